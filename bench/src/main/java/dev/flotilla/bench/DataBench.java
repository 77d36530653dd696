package dev.flotilla.bench;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * How fast the data plane is for a program that embeds a node, beside what it would use otherwise:
 * Redis, PostgreSQL, plain files. One after the other on this machine, nothing else running: the
 * peers, then one node, then three of which two are processes of their own.
 */
@Command(
    name = "data",
    description = "Caches, locks, queues, SQL and blobs, beside Redis, PostgreSQL and plain files.",
    mixinStandardHelpOptions = true)
final class DataBench implements Callable<Integer> {

  private static final int[] CLIENTS = {1, 8};
  private static final int[] BATCHES = {1, 10};
  private static final List<String> PARTS = List.of("cache", "lock", "queue", "sql", "blob");
  private static final String REDIS = "Redis";
  private static final String POSTGRES = "PostgreSQL";
  private static final String NEAR = ", near";

  /** A line of the table. */
  private record Row(
      String what, String system, int clients, String durability, Load.Figures figures) {}

  /** Our rate over a peer's for the same work, as it should be at least. */
  private record Target(String what, String variant, String peer, double ratio) {}

  private static final List<Target> TARGETS =
      List.of(
          new Target("cache get", NEAR, REDIS, 10),
          new Target("queue send 1", "", POSTGRES, 1),
          new Target("queue send 10", "", POSTGRES, 1),
          new Target("queue receive+ack 1", "", POSTGRES, 1),
          new Target("queue receive+ack 10", "", POSTGRES, 1));

  /** A target, and what came of it. */
  private record Ratio(Target target, String system, int clients, double ratio) {
    boolean met() {
      return ratio >= target.ratio();
    }
  }

  @FunctionalInterface
  private interface Measurement {
    Load.Figures run() throws Exception;
  }

  @Option(
      names = "--seconds",
      defaultValue = "3",
      description =
          "Of each measurement, after a third of it to warm up; near hits have at most 1"
              + " (${DEFAULT-VALUE}).")
  private double seconds;

  @Option(names = "--nodes", split = ",", description = "Only with so many: 1, 3 (default: both).")
  private List<Integer> nodes = List.of(1, 3);

  @Option(
      names = "--only",
      split = ",",
      description = "Only these: cache, lock, queue, sql, blob (default: all).")
  private List<String> only = PARTS;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  private final List<Row> rows = new ArrayList<>();
  private final List<String> notes = new ArrayList<>();
  private boolean failed;

  @Override
  public Integer call() throws Exception {
    if (!PARTS.containsAll(only)
        || !List.of(1, 3).containsAll(nodes)
        || seconds < 0.1
        || seconds > 600) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "--only takes " + PARTS + ", --nodes 1 or 3, --seconds 0.1 to 600",
          "");
    }
    peers();
    if (only.contains("blob")) {
      plainFiles();
    }
    for (int count : nodes) {
      try (EmbeddedCluster cluster = EmbeddedCluster.start(count)) {
        ours(cluster, count);
      } catch (IOException | RuntimeException e) {
        fail(systemOf(count), e);
      }
    }
    List<Ratio> ratios = ratios();
    System.out.print(asJson ? json(ratios) : text(ratios));
    return failed ? 1 : 0;
  }

  private void peers() throws IOException, InterruptedException {
    if (only.equals(List.of("blob"))) {
      return;
    }
    try (Peers peers = new Peers()) {
      if (!peers.hasRedis()) {
        notes.add("Redis is not installed, and left out (apt-get install redis-server)");
      }
      if (!peers.hasPostgres()) {
        notes.add("PostgreSQL is not installed, and left out (apt-get install postgresql)");
      }
      for (int clients : CLIENTS) {
        if (peers.hasRedis()) {
          redis(peers, clients);
        }
        if (peers.hasPostgres()) {
          postgres(peers, clients);
        }
      }
    }
  }

  private void redis(Peers peers, int clients) throws InterruptedException {
    String synced = "append-only file forced to disk at each write";
    if (only.contains("cache")) {
      row(
          "cache get",
          REDIS,
          clients,
          "a read, over a socket",
          () -> PeerFigures.redisGet(peers, clients, seconds));
      row(
          "cache put",
          REDIS,
          clients,
          synced,
          () -> PeerFigures.redisPut(peers, true, clients, seconds));
      row(
          "cache put",
          "Redis, memory only",
          clients,
          "none",
          () -> PeerFigures.redisPut(peers, false, clients, seconds));
    }
    if (only.contains("lock")) {
      row(
          "lock acquire+release",
          REDIS,
          clients,
          synced,
          () -> PeerFigures.redisLock(peers, clients, seconds));
    }
  }

  private void postgres(Peers peers, int clients) throws InterruptedException {
    String synced = "forced to disk at each commit";
    if (only.contains("queue")) {
      for (int batch : BATCHES) {
        row(
            "queue send " + batch,
            POSTGRES,
            clients,
            synced,
            () -> PeerFigures.postgresSend(peers, clients, batch, seconds));
        row(
            "queue receive+ack " + batch,
            POSTGRES,
            clients,
            synced + ", SKIP LOCKED",
            () -> PeerFigures.postgresReceive(peers, clients, batch, seconds));
      }
    }
    if (only.contains("sql")) {
      row(
          "sql select by key",
          POSTGRES,
          clients,
          "a read, over a socket",
          () -> PeerFigures.postgresSelect(peers, clients, seconds));
      row(
          "sql update by key",
          POSTGRES,
          clients,
          synced,
          () -> PeerFigures.postgresUpdate(peers, clients, seconds));
    }
  }

  private void plainFiles() throws IOException, InterruptedException {
    Path folder = Files.createTempDirectory("flotilla-bench-files");
    try {
      blobs("plain files", BlobBench.files(folder), "forced to disk, renamed, folder forced", "");
    } finally {
      NodeFiles.deleteTree(folder);
    }
  }

  private void ours(EmbeddedCluster cluster, int count) throws InterruptedException {
    String system = systemOf(count);
    String copies =
        count == 1
            ? "forced to disk at each commit"
            : "forced to disk on all 3 nodes at each commit";
    DataFigures figures = new DataFigures(cluster.flotilla(), seconds);
    if (only.contains("queue")) {
      warm(figures, system);
    }
    for (int clients : CLIENTS) {
      if (only.contains("cache")) {
        near(figures, system + NEAR, clients);
        row(
            "cache get",
            system + ", not near",
            clients,
            "a read of the grid",
            () -> figures.cacheGetFar(clients));
        row("cache put", system, clients, copies, () -> figures.cachePut(clients));
      }
      if (only.contains("lock")) {
        row(
            "lock acquire+release",
            system,
            clients,
            count == 1 ? "forced to disk" : "forced to disk on 2 of 3 nodes",
            () -> figures.lock(clients));
      }
      if (only.contains("queue")) {
        queues(figures, system, clients, copies);
      }
      if (only.contains("sql")) {
        row(
            "sql select by key",
            system,
            clients,
            "a read of the grid",
            () -> figures.select(clients));
        row("sql update by key", system, clients, copies, () -> figures.update(clients));
      }
    }
    if (only.contains("blob")) {
      blobs(
          system,
          BlobBench.blobs(cluster.flotilla().blobs()),
          count == 1 ? "forced to disk" : "forced to disk on 2 of 3 nodes",
          ", checked against its digest");
    }
    if (figures.refused() > 0) {
      notes.add(
          system
              + ": "
              + figures.refused()
              + " operations were in another's way and done again; that time is counted");
    }
  }

  private void warm(DataFigures figures, String system) throws InterruptedException {
    try {
      figures.warmQueues();
      notes.add(system + ": queues were used for " + DataFigures.WARM_SECONDS + " s before");
    } catch (InterruptedException e) {
      throw e;
    } catch (Exception e) {
      fail(system + ", warming up", e);
    }
  }

  private void near(DataFigures figures, String system, int clients) throws InterruptedException {
    row(
        "cache get",
        system,
        clients,
        "a read of this process's copy",
        () -> {
          DataFigures.Near near = figures.cacheGetNear(clients);
          notes.add(
              String.format(
                  Locale.ROOT,
                  "%s, %d clients: %.2f%% of the reads were near hits",
                  system,
                  clients,
                  100 * near.share()));
          return near.figures();
        });
  }

  private void queues(DataFigures figures, String system, int clients, String copies)
      throws InterruptedException {
    for (int batch : BATCHES) {
      row(
          "queue send " + batch,
          system,
          clients,
          copies + (batch == 1 ? "" : "; under one key, all or none"),
          () -> figures.send(clients, batch, true));
      if (batch > 1) {
        row(
            "queue send " + batch,
            system + ", no keys",
            clients,
            copies + "; a call's in one partition, in turn, all or none",
            () -> figures.send(clients, batch, false));
      }
      row(
          "queue receive+ack " + batch,
          system,
          clients,
          copies,
          () -> figures.receive(clients, batch));
    }
  }

  private void blobs(String system, BlobBench.Store store, String put, String get)
      throws InterruptedException {
    for (int clients : CLIENTS) {
      for (int bytes : new int[] {BlobBench.SMALL, BlobBench.LARGE}) {
        String size = bytes == BlobBench.SMALL ? "4 KB" : "8 MB";
        List<String> kept = new ArrayList<>();
        row(
            "blob put " + size,
            system,
            clients,
            put,
            () -> BlobBench.put(store, bytes, clients, seconds, kept));
        row(
            "blob get " + size,
            system,
            clients,
            "a read" + get,
            () -> BlobBench.get(store, bytes, clients, seconds, kept));
      }
    }
  }

  /** One that fails is said at the end, and does not cost the others. */
  private void row(
      String what, String system, int clients, String durability, Measurement measurement)
      throws InterruptedException {
    System.err.print(String.format(Locale.ROOT, "%s, %s, %d clients …", what, system, clients));
    try {
      Row row = new Row(what, system, clients, durability, measurement.run());
      rows.add(row);
      System.err.println(String.format(Locale.ROOT, " %.0f/s", row.figures().perSecond()));
    } catch (InterruptedException e) {
      throw e;
    } catch (Exception e) {
      fail(String.format(Locale.ROOT, "%s, %s, %d clients", what, system, clients), e);
    }
  }

  private void fail(String what, Exception e) {
    failed = true;
    String why = e instanceof FlotillaException known ? known.explanation() : e.toString();
    notes.add("FAILED: " + what + ": " + why);
    System.err.println(" failed: " + why);
  }

  private static String systemOf(int count) {
    return "flotilla, " + count + (count == 1 ? " node" : " nodes");
  }

  private Optional<Row> find(String what, String system, int clients) {
    return rows.stream()
        .filter(r -> r.what().equals(what) && r.system().equals(system) && r.clients() == clients)
        .findFirst();
  }

  private List<Ratio> ratios() {
    List<Ratio> all = new ArrayList<>();
    for (Target target : TARGETS) {
      for (int count : nodes) {
        String system = systemOf(count) + target.variant();
        for (int clients : CLIENTS) {
          Optional<Row> ours = find(target.what(), system, clients);
          Optional<Row> theirs = find(target.what(), target.peer(), clients);
          if (ours.isPresent() && theirs.isPresent()) {
            double ratio = ours.get().figures().perSecond() / theirs.get().figures().perSecond();
            all.add(new Ratio(target, system, clients, ratio));
          }
        }
      }
    }
    return all;
  }

  private String text(List<Ratio> ratios) {
    StringBuilder text = new StringBuilder();
    text.append(
        String.format(
            Locale.ROOT,
            "%-21s %-28s %7s %12s %11s %11s  %s%n",
            "what",
            "system",
            "clients",
            "operations/s",
            "p50 us",
            "p99 us",
            "durability"));
    Set<String> whats = new LinkedHashSet<>();
    rows.forEach(row -> whats.add(row.what()));
    for (String what : whats) {
      for (int clients : CLIENTS) {
        for (Row row : rows) {
          if (row.what().equals(what) && row.clients() == clients) {
            text.append(
                String.format(
                    Locale.ROOT,
                    "%-21s %-28s %7d %12.0f %11.1f %11.1f  %s%n",
                    what,
                    row.system(),
                    clients,
                    row.figures().perSecond(),
                    row.figures().p50Us(),
                    row.figures().p99Us(),
                    row.durability()));
          }
        }
      }
    }
    text.append(
        String.format(
            Locale.ROOT,
            "A queue's rate is in messages, its times are of a batch. Values have 100 bytes.%n%n"));
    for (Ratio ratio : ratios) {
      text.append(
          String.format(
              Locale.ROOT,
              "%-21s %s / %s, %d clients: %.2f (target %.0f: %s)%n",
              ratio.target().what(),
              ratio.system(),
              ratio.target().peer(),
              ratio.clients(),
              ratio.ratio(),
              ratio.target().ratio(),
              ratio.met() ? "met" : "missed"));
    }
    notes.forEach(note -> text.append(note).append(System.lineSeparator()));
    return text.toString();
  }

  private String json(List<Ratio> ratios) {
    ObjectNode report = Json.MAPPER.createObjectNode();
    var figures = report.putArray("figures");
    for (Row row : rows) {
      figures
          .addObject()
          .put("what", row.what())
          .put("system", row.system())
          .put("clients", row.clients())
          .put("durability", row.durability())
          .put("per_second", row.figures().perSecond())
          .put("p50_us", row.figures().p50Us())
          .put("p99_us", row.figures().p99Us());
    }
    var compared = report.putArray("ratios");
    for (Ratio ratio : ratios) {
      compared
          .addObject()
          .put("what", ratio.target().what())
          .put("system", ratio.system())
          .put("peer", ratio.target().peer())
          .put("clients", ratio.clients())
          .put("ratio", ratio.ratio())
          .put("target", ratio.target().ratio())
          .put("met", ratio.met());
    }
    var said = report.putArray("notes");
    notes.forEach(said::add);
    return report.toPrettyString() + System.lineSeparator();
  }
}
