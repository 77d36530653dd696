package dev.flotilla.bench;

import dev.flotilla.app.NodeProcess;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.sql.Sharding;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import org.apache.ignite.Ignite;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.internal.IgniteEx;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Compares hash, range and list sharding on the same skewed rows: how evenly they lie, what a scan
 * of a range costs, and how many rows move when a node joins. All nodes run in this process, each
 * with a real grid and its own files.
 */
@Command(
    name = "sharding",
    description = "Hash, range and list sharding on the same skewed rows.",
    mixinStandardHelpOptions = true)
final class ShardingBench implements Callable<Integer> {

  /** A strategy's table and what was measured of it. */
  record Measured(
      String name,
      String clause,
      Sharding.Skew skew,
      int scanPartitions,
      int partitions,
      int scanNodes,
      double scanMs,
      int tenantPartitions,
      double tenantMs,
      long newOwner,
      long copied) {}

  private static final int TENANTS = 100;
  private static final long TIMES = 100_000;
  private static final long SEED = 42;
  private static final int INSERT_ROWS = 500;
  private static final int REPEATS = 30;
  private static final String[] COLOURS = {"#3b6fb6", "#e08a2c", "#4f9d69", "#9a5fb5"};

  @Option(names = "--rows", defaultValue = "20000", description = "Default ${DEFAULT-VALUE}.")
  private int rows;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      description = "Where to write sharding.md and sharding.svg (default: nowhere).")
  private Path out = Path.of("");

  @Override
  public Integer call() throws IOException {
    Path folder = Files.createTempDirectory("flotilla-sharding");
    List<ClusterNode> clusters = new ArrayList<>();
    List<DataPlane> planes = new ArrayList<>();
    try {
      for (int i = 1; i <= 3; i++) {
        start(folder, i, clusters, planes);
      }
      List<Measured> measured = measure(folder, clusters, planes);
      System.out.print(table(measured));
      if (!out.toString().isEmpty()) {
        Files.writeString(out.resolve("sharding.md"), page(measured));
        Files.writeString(out.resolve("sharding.svg"), picture(measured));
      }
      return 0;
    } finally {
      planes.reversed().forEach(DataPlane::close);
      clusters.reversed().forEach(ClusterNode::close);
      NodeFiles.deleteTree(folder);
    }
  }

  static void start(Path folder, int number, List<ClusterNode> clusters, List<DataPlane> planes)
      throws IOException {
    String name = "node-" + number;
    int port = NodeProcess.freePorts(20_000 + 100 * number);
    Path data = folder.resolve(name);
    ClusterConfig config =
        new ClusterConfig(
            data, name, "127.0.0.1", "127.0.0.1", port, "bench", InstantSource.system(), Map.of());
    ClusterNode cluster =
        clusters.isEmpty()
            ? ClusterNode.create(config)
            : ClusterNode.join(
                config,
                "127.0.0.1:" + clusters.getFirst().nodes().getFirst().httpPort(),
                clusters.getFirst().invite());
    DataPlane plane =
        new DataPlane(
            new Environment(
                cluster,
                data,
                "127.0.0.1",
                port,
                new SimpleMeterRegistry(),
                InstantSource.system(),
                System::nanoTime,
                new Random()));
    cluster.start();
    plane.start();
    clusters.add(cluster);
    planes.add(plane);
  }

  /** The first of seven neighbours that nobody has, as a node needs them. */
  private List<Measured> measure(Path folder, List<ClusterNode> clusters, List<DataPlane> planes)
      throws IOException {
    Map<String, String> clauses = new LinkedHashMap<>();
    clauses.put("hash", "SHARD BY HASH (tenant) INTO 32");
    clauses.put(
        "range",
        "SHARD BY RANGE (ts) SPLIT AT (41000, 68000, 85000, 94000, 98000, 99600, 99970) SPREAD 4");
    clauses.put("list", "SHARD BY LIST (tenant) (0, 1, 2, 3, 4, 5, (6, 7, 8, 9)) SPREAD 4");
    DataPlane plane = planes.getFirst();
    List<String> values = rowsAsSql();
    for (Map.Entry<String, String> each : clauses.entrySet()) {
      plane
          .sharding()
          .execute(
              "CREATE TABLE by_"
                  + each.getKey()
                  + " (ts BIGINT, tenant INT, id INT, tokens INT, PRIMARY KEY (ts, tenant, id)) "
                  + each.getValue());
      for (int from = 0; from < values.size(); from += INSERT_ROWS) {
        String into =
            "INSERT INTO by_"
                + each.getKey()
                + " (ts, tenant, id, tokens) VALUES "
                + String.join(
                    ",", values.subList(from, Math.min(values.size(), from + INSERT_ROWS)));
        plane.grid().write("loading", ignite -> run(ignite, new SqlFieldsQuery(into)));
      }
    }
    Map<String, Object[]> before = new LinkedHashMap<>();
    Map<String, Map<Integer, List<String>>> owners = new LinkedHashMap<>();
    for (String name : clauses.keySet()) {
      String table = "BY_" + name.toUpperCase(Locale.ROOT);
      before.put(
          name,
          new Object[] {
            plane.sharding().skew(table),
            scan(plane, "SELECT SUM(tokens) FROM " + table + " WHERE ts BETWEEN 91000 AND 92999"),
            scan(plane, "SELECT SUM(tokens) FROM " + table + " WHERE tenant = 3")
          });
      owners.put(name, owners(plane, table));
    }
    start(folder, 4, clusters, planes);
    List<Measured> measured = new ArrayList<>();
    for (String name : clauses.keySet()) {
      String table = "BY_" + name.toUpperCase(Locale.ROOT);
      Map<Integer, List<String>> now = awaitOwners(plane, table, clusters.getLast().self());
      Sharding.Skew skew = (Sharding.Skew) Objects.requireNonNull(before.get(name))[0];
      Scan range = (Scan) Objects.requireNonNull(before.get(name))[1];
      Scan tenant = (Scan) Objects.requireNonNull(before.get(name))[2];
      long newOwner = 0;
      long copied = 0;
      for (Sharding.PartitionLoad load : skew.partitions()) {
        List<String> old =
            Objects.requireNonNull(Objects.requireNonNull(owners.get(name)).get(load.partition()));
        List<String> fresh = Objects.requireNonNull(now.get(load.partition()));
        if (!old.getFirst().equals(fresh.getFirst())) {
          newOwner += load.rows();
        }
        Set<String> added = new HashSet<>(fresh);
        old.forEach(added::remove);
        copied += added.size() * load.rows();
      }
      measured.add(
          new Measured(
              name,
              clauses.get(name),
              skew,
              range.touched().partitionsTouched(),
              range.touched().partitions(),
              range.touched().nodes().size(),
              range.ms(),
              tenant.touched().partitionsTouched(),
              tenant.ms(),
              newOwner,
              copied));
    }
    return measured;
  }

  /** Tenants by Zipf's law, times mostly recent: what a usage table looks like. */
  private List<String> rowsAsSql() {
    Random random = new Random(SEED);
    double[] cumulative = new double[TENANTS];
    double sum = 0;
    for (int i = 0; i < TENANTS; i++) {
      sum += 1 / Math.pow(i + 1, 1.1);
      cumulative[i] = sum;
    }
    List<String> values = new ArrayList<>();
    for (int id = 0; id < rows; id++) {
      int at = Arrays.binarySearch(cumulative, random.nextDouble() * sum);
      int tenant = Math.min(TENANTS - 1, at >= 0 ? at : -at - 1);
      long ts = (long) (TIMES * (1 - Math.pow(random.nextDouble(), 4)));
      values.add("(" + ts + "," + tenant + "," + id + "," + random.nextInt(1000) + ")");
    }
    return values;
  }

  private static List<List<?>> run(Ignite ignite, SqlFieldsQuery query) {
    return ((IgniteEx) ignite)
        .context()
        .query()
        .querySqlFields(query.setSchema("PUBLIC"), true)
        .getAll();
  }

  private record Scan(Sharding.TouchedTable touched, double ms) {}

  /** The median time of a query confined to the partitions that its condition leaves. */
  private static Scan scan(DataPlane plane, String statement) {
    Sharding.TouchedTable touched =
        plane.sharding().explain(statement, List.of()).tables().getFirst();
    int[] partitions =
        touched.nodes().stream()
            .flatMap(node -> node.partitions().stream())
            .mapToInt(partition -> partition)
            .toArray();
    double[] ms = new double[REPEATS];
    for (int i = 0; i < 2 * REPEATS; i++) {
      long startNs = System.nanoTime();
      SqlFieldsQuery query = new SqlFieldsQuery(statement);
      if (!touched.whole()) {
        query.setPartitions(partitions);
      }
      plane.grid().read("a scan", ignite -> run(ignite, query));
      ms[i % REPEATS] = (System.nanoTime() - startNs) / 1e6;
    }
    Arrays.sort(ms);
    return new Scan(touched, ms[REPEATS / 2]);
  }

  private static Map<Integer, List<String>> owners(DataPlane plane, String table) {
    return plane
        .grid()
        .read(
            "looking where rows are",
            ignite -> {
              var affinity = ignite.<Object>affinity("SQL_PUBLIC_" + table);
              Map<Integer, List<String>> owners = new TreeMap<>();
              for (int p = 0; p < affinity.partitions(); p++) {
                owners.put(
                    p,
                    affinity.mapPartitionToPrimaryAndBackups(p).stream()
                        .map(node -> String.valueOf(node.consistentId()))
                        .toList());
              }
              return owners;
            });
  }

  /** Once the new node owns what it is to own, and nobody holds more copies than wanted. */
  private static Map<Integer, List<String>> awaitOwners(
      DataPlane plane, String table, String joined) {
    long deadlineNs = System.nanoTime() + 60_000_000_000L;
    while (true) {
      Map<Integer, List<String>> owners = owners(plane, table);
      boolean settled =
          owners.values().stream().anyMatch(nodes -> nodes.getFirst().equals(joined))
              && owners.values().stream().allMatch(nodes -> nodes.size() <= 3);
      if (settled || System.nanoTime() > deadlineNs) {
        return owners;
      }
      try {
        Thread.sleep(200);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException(e);
      }
    }
  }

  private String table(List<Measured> measured) {
    StringBuilder text = new StringBuilder();
    text.append("| | ");
    measured.forEach(each -> text.append(each.name()).append(" | "));
    text.append("\n|---|").append("---|".repeat(measured.size())).append('\n');
    row(
        text,
        measured,
        "fullest node / mean",
        m -> String.format(Locale.ROOT, "%.2f", m.skew().imbalance()));
    row(
        text,
        measured,
        "fullest partition / mean",
        m -> String.format(Locale.ROOT, "%.1f", m.skew().partitionImbalance()));
    row(
        text,
        measured,
        "2% of the times: partitions",
        m -> m.scanPartitions() + " of " + m.partitions());
    row(text, measured, "2% of the times: nodes", m -> m.scanNodes() + "");
    row(
        text,
        measured,
        "2% of the times: median ms",
        m -> String.format(Locale.ROOT, "%.1f", m.scanMs()));
    row(
        text,
        measured,
        "one tenant: partitions",
        m -> m.tenantPartitions() + " of " + m.partitions());
    row(
        text,
        measured,
        "one tenant: median ms",
        m -> String.format(Locale.ROOT, "%.1f", m.tenantMs()));
    row(
        text,
        measured,
        "4th node joins: rows with a new first owner",
        m -> String.format(Locale.ROOT, "%.0f%%", 100.0 * m.newOwner() / rows));
    row(
        text,
        measured,
        "4th node joins: rows copied to it",
        m -> String.format(Locale.ROOT, "%.0f%%", 100.0 * m.copied() / rows));
    return text.toString();
  }

  private static void row(
      StringBuilder text,
      List<Measured> measured,
      String name,
      java.util.function.Function<Measured, String> value) {
    text.append("| ").append(name).append(" | ");
    measured.forEach(each -> text.append(value.apply(each)).append(" | "));
    text.append('\n');
  }

  private String page(List<Measured> measured) {
    StringBuilder text = new StringBuilder();
    text.append("# Hash, range or list?\n\n");
    text.append("The same ").append(rows);
    text.append(
        " rows of a usage table, three times on three nodes: tenants by Zipf's law (exponent 1.1,"
            + " 100 tenants), times mostly recent. Repeat it with `flotilla bench sharding --out"
            + " docs`, which writes this page and the picture; all nodes run in one process, so"
            + " only compare times with each other.\n\n");
    text.append("![Rows per partition and node](sharding.svg)\n\n");
    measured.forEach(
        m -> text.append("- ").append(m.name()).append(": `").append(m.clause()).append("`\n"));
    text.append('\n').append(table(measured)).append('\n');
    text.append(
        """
        - **Hash** needs no knowledge of the data, and finds one tenant in one partition; but a
          large tenant is one partition on one node, and a range of times is everywhere.
        - **Range** reads a range of times from the shards that hold it. Its bounds were chosen here by
          someone who knew how the times are distributed, so its balance is the best case; bounds that do
          not follow the data give another. Newest rows all go to the last shard:
          split it as it grows
          (`ALTER TABLE … SPLIT SHARD AT (…)`, while statements go on).
        - **List** keeps a tenant's rows together, on nodes of your choice (`ON NODES`), and a large
          one spread over several partitions (`SPREAD`). Tenants that are not named share a shard.

        How much moves when a node joins depends on how many partitions it takes over, not on the
        strategy; with few large partitions it is more a matter of luck. Every row has three copies,
        so about 75% have a copy on any one of four nodes. Shards that are bound to nodes do not move.

        `SPREAD n` splits each range or list value over n partitions by the hash of the primary key.
        A table with more than one cannot have co-located ones beside it, since then equal values lie
        on different nodes: use `SPREAD 1` for a table that others are joined with by that column.
        """);
    return text.toString();
  }

  /** Rows of each partition as bars in their shard's order, coloured by node. */
  private String picture(List<Measured> measured) {
    int width = 960;
    int panel = 190;
    int chartLeft = 90;
    int chartWidth = 560;
    int chartHeight = 110;
    StringBuilder svg = new StringBuilder();
    svg.append(
        String.format(
            Locale.ROOT,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\""
                + " font-family=\"sans-serif\">\n"
                + "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            width,
            70 + panel * measured.size()));
    text(
        svg,
        20,
        30,
        17,
        "#222222",
        "start",
        "Rows per partition: the same " + rows + " rows, sharded three ways");
    List<String> nodes =
        measured.getFirst().skew().nodes().stream().map(Sharding.NodeLoad::node).toList();
    for (int i = 0; i < nodes.size(); i++) {
      svg.append(
          String.format(
              Locale.ROOT,
              "<rect x=\"%d\" y=\"42\" width=\"12\" height=\"12\" fill=\"%s\"/>\n",
              20 + 90 * i,
              COLOURS[i % COLOURS.length]));
      text(svg, 37 + 90 * i, 52, 12, "#444444", "start", "node " + (i + 1));
    }
    long most =
        measured.stream()
            .flatMap(m -> m.skew().partitions().stream())
            .mapToLong(Sharding.PartitionLoad::rows)
            .max()
            .orElse(1);
    for (int m = 0; m < measured.size(); m++) {
      Measured each = measured.get(m);
      int top = 80 + panel * m;
      int bottom = top + chartHeight;
      text(svg, 20, top + 16, 15, "#222222", "start", each.name());
      text(svg, chartLeft - 8, top + 36, 10, "#777777", "end", Long.toString(most));
      text(svg, chartLeft - 8, bottom, 10, "#777777", "end", "0");
      List<Sharding.PartitionLoad> loads = each.skew().partitions();
      double bar = (double) chartWidth / loads.size();
      double scale = (chartHeight - 28.0) / most;
      for (int i = 0; i < loads.size(); i++) {
        double height = Math.max(loads.get(i).rows() * scale, loads.get(i).rows() > 0 ? 0.8 : 0);
        svg.append(
            String.format(
                Locale.ROOT,
                "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
                chartLeft + i * bar,
                bottom - height,
                bar - 2,
                height,
                COLOURS[Math.max(0, nodes.indexOf(loads.get(i).node())) % COLOURS.length]));
      }
      svg.append(
          String.format(
              Locale.ROOT,
              "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#888888\"/>\n",
              chartLeft,
              bottom,
              chartLeft + chartWidth,
              bottom));
      boundaries(svg, each, chartLeft, bottom, bar);
      int left = chartLeft + chartWidth + 30;
      String[] lines = {
        String.format(Locale.ROOT, "fullest node / mean: %.2f", each.skew().imbalance()),
        String.format(
            Locale.ROOT, "fullest partition / mean: %.1f", each.skew().partitionImbalance()),
        String.format(
            Locale.ROOT,
            "2%% of the times: %d of %d partitions, %.1f ms",
            each.scanPartitions(),
            each.partitions(),
            each.scanMs()),
        String.format(
            Locale.ROOT,
            "one tenant: %d of %d partitions, %.1f ms",
            each.tenantPartitions(),
            each.partitions(),
            each.tenantMs()),
        String.format(
            Locale.ROOT, "a node joins: %.0f%% change owner", 100.0 * each.newOwner() / rows)
      };
      for (int i = 0; i < lines.length; i++) {
        text(svg, left, top + 30 + 20 * i, 13, "#333333", "start", lines[i]);
      }
    }
    return svg.append("</svg>\n").toString();
  }

  /** Ticks between shards, and their numbers. */
  private static void boundaries(
      StringBuilder svg, Measured each, int left, int bottom, double bar) {
    List<Sharding.PartitionLoad> loads = each.skew().partitions();
    boolean shards = loads.stream().anyMatch(load -> load.shard() != load.partition());
    if (!shards) {
      text(
          svg,
          left + loads.size() * bar / 2,
          bottom + 20,
          11,
          "#777777",
          "middle",
          "partitions by hash of the tenant");
      return;
    }
    int spread = (int) loads.stream().filter(load -> load.shard() == 0).count();
    for (int shard = 0; shard * spread < loads.size(); shard++) {
      double x = left + shard * spread * bar;
      svg.append(
          String.format(
              Locale.ROOT,
              "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#888888\"/>\n",
              x - 1,
              bottom,
              x - 1,
              bottom + 6));
      text(svg, x + spread * bar / 2, bottom + 20, 11, "#777777", "middle", "shard " + shard);
    }
  }

  private static void text(
      StringBuilder svg, double x, double y, int size, String colour, String anchor, String text) {
    svg.append(
        String.format(
            Locale.ROOT,
            "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" fill=\"%s\""
                + " text-anchor=\"%s\">%s</text>\n",
            x,
            y,
            size,
            colour,
            anchor,
            text.replace("&", "&amp;").replace("<", "&lt;")));
  }
}
