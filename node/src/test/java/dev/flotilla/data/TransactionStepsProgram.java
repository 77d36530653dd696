package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.GridCaches;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.GridConfig;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.Queue.Message;
import dev.flotilla.data.queue.QueueConfig;
import dev.flotilla.data.sql.Transaction;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Options;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.function.Function;
import org.apache.ignite.Ignite;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.cache.affinity.Affinity;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.lang.IgniteUuid;

/**
 * A node with the whole data plane, told what to do by lines on standard input; each is answered by
 * one that begins with {@code answer}, and what became of a transaction is told by one that begins
 * with {@code end}.
 */
final class TransactionStepsProgram {

  /**
   * What one transaction changes. No two of a round share a partition of a table or of the queue,
   * which would wait for each other.
   *
   * @param from the account that gives 1 to {@code to}
   * @param row of the table of transfers
   * @param queueKey what is sent carries it
   * @param entries keys of the cache, of which each node is the first owner of one
   */
  record Change(
      String id, Mode mode, int from, int to, int row, String queueKey, List<String> entries) {}

  private static final String CACHE = "parts";
  private static final String QUEUE = "told";
  private static final Duration LONG = Duration.ofMinutes(5);

  private final dev.flotilla.cluster.ClusterNode cluster;
  private final DataPlane data;
  private final StoppingMessages messages;
  private final Map<String, CountDownLatch> go = new ConcurrentHashMap<>();

  /** Of transactions that are to be stopped before they are answered; and of those that have. */
  private final Set<String> unanswered = ConcurrentHashMap.newKeySet();

  private TransactionStepsProgram(
      dev.flotilla.cluster.ClusterNode cluster, DataPlane data, StoppingMessages messages) {
    this.cluster = cluster;
    this.data = data;
    this.messages = messages;
  }

  /** Arguments: data folder, name, port, and to join, HOST:PORT and a token. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    Path folder = Path.of(arguments[0]);
    ClusterConfig config =
        new ClusterConfig(
            folder,
            arguments[1],
            "127.0.0.1",
            "127.0.0.1",
            Integer.parseInt(arguments[2]),
            "0.1.0",
            InstantSource.system(),
            Map.of("cores", 2.0));
    var cluster =
        arguments.length > 3
            ? dev.flotilla.cluster.ClusterNode.join(config, arguments[3], arguments[4])
            : dev.flotilla.cluster.ClusterNode.create(config);
    StoppingMessages messages = new StoppingMessages();
    DataPlane data =
        new DataPlane(
            new Environment(
                cluster,
                folder,
                config.bindHost(),
                config.httpPort(),
                new SimpleMeterRegistry(),
                InstantSource.system(),
                System::nanoTime,
                new Random()),
            GridConfig.of(folder, config.bindHost(), config.httpPort())
                .withMemory(64L << 20)
                .withMessages(() -> messages));
    cluster.start();
    data.start();
    say("answer ready");
    new TransactionStepsProgram(cluster, data, messages).obey();
  }

  private static synchronized void say(String line) {
    System.out.println(line);
    System.out.flush();
  }

  private void obey() throws IOException, InterruptedException {
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] words = line.split(" ", 3);
      try {
        switch (words[0]) {
          case "run" -> run(Json.read(bytes(words[1]), Change.class));
          case "go" -> go.get(words[1]).countDown();
          case "halt" -> Runtime.getRuntime().halt(TransactionStepsKillTest.KILLED);
          default -> say("answer " + answer(words));
        }
      } catch (FlotillaException e) {
        say("answer failed " + e.code() + " " + e.getMessage());
      }
    }
  }

  private String answer(String[] words) throws InterruptedException {
    return switch (words[0]) {
      case "invite" -> cluster.invite();
      case "make" -> make(Integer.parseInt(words[1]));
      case "changes" -> changes(words[1], Integer.parseInt(words[2]));
      case "stop-at" -> stopAt(StoppingMessages.Step.valueOf(words[1]), words[2]);
      case "awaited" -> messages.awaited() + unanswered.toString();
      case "in-doubt" -> inDoubt();
      case "done" -> done(Json.read(bytes(words[1]), Change[].class));
      case "copies" -> copies(Json.read(bytes(words[1]), Change[].class));
      case "state" ->
          data.transactions().find(words[1]).map(view -> view.state().name()).orElse("NONE");
      case "drain" -> String.join(" ", drain());
      default -> throw new IllegalArgumentException(words[0]);
    };
  }

  /** For so many changes at once. */
  private String make(int count) {
    data.sql().execute("CREATE TABLE account (id INT PRIMARY KEY, n INT)");
    data.sql().execute("CREATE TABLE transfer (id INT PRIMARY KEY, n INT)");
    for (int account : apart("SQL_PUBLIC_ACCOUNT", 0, 2 * count)) {
      data.sql().execute("INSERT INTO account VALUES (?, 0)", account);
    }
    data.caches().create(CACHE, CacheConfig.DEFAULT).put("made", new byte[1]);
    QueueConfig usual = QueueConfig.DEFAULT;
    var _ =
        data.queues()
            .create(
                QUEUE,
                new QueueConfig(
                    64,
                    usual.depthMax(),
                    usual.attemptsMax(),
                    usual.retentionMs(),
                    usual.dedupMs()));
    return "made";
  }

  /** So many changes that do not meet, each in both modes. */
  private String changes(String round, int count) {
    List<Integer> accounts = apart("SQL_PUBLIC_ACCOUNT", 0, 2 * count);
    List<Integer> rows = apart("SQL_PUBLIC_TRANSFER", 10_000 * Integer.parseInt(round), count);
    List<String> queueKeys = queueKeys(round, 2 * count);
    List<Change> changes = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      for (Mode mode : List.of(Mode.PESSIMISTIC, Mode.OPTIMISTIC)) {
        String id = "r" + round + "-" + i + "-" + mode;
        changes.add(
            new Change(
                id,
                mode,
                accounts.get(2 * i),
                accounts.get(2 * i + 1),
                rows.get(i),
                queueKeys.removeFirst(),
                entries(id)));
      }
    }
    return new String(Json.write(changes), StandardCharsets.UTF_8);
  }

  /** Numbers from the given one on that are in different partitions. */
  private List<Integer> apart(String cache, int from, int count) {
    return read(
        ignite -> {
          Affinity<Integer> affinity = ignite.affinity(cache);
          Map<Integer, Integer> byPartition = new LinkedHashMap<>();
          for (int i = from; byPartition.size() < count; i++) {
            byPartition.putIfAbsent(affinity.partition(i), i);
          }
          return List.copyOf(byPartition.values());
        });
  }

  /** Found by sending: a message's id begins with its partition. */
  private List<String> queueKeys(String round, int count) {
    Set<String> partitions = new HashSet<>();
    List<String> keys = new ArrayList<>();
    for (int i = 0; keys.size() < count; i++) {
      String key = round + "-" + i;
      String id = data.queues().queue(QUEUE).send(Queue.Outgoing.of(key, bytes("probe")));
      if (partitions.add(id.substring(0, id.indexOf('-')))) {
        keys.add(key);
      }
    }
    return keys;
  }

  private List<String> entries(String id) {
    return read(
        ignite -> {
          Affinity<String> affinity = ignite.affinity(engineCache());
          Map<ClusterNode, String> byOwner = new LinkedHashMap<>();
          int nodes = ignite.cluster().forServers().nodes().size();
          for (int i = 0; byOwner.size() < nodes; i++) {
            byOwner.putIfAbsent(affinity.mapKeyToNode(id + "/" + i), id + "/" + i);
          }
          return List.copyOf(byOwner.values());
        });
  }

  private String stopAt(StoppingMessages.Step step, String of) {
    String[] words = of.split(" ");
    if (step == StoppingMessages.Step.COORDINATOR_BEFORE_ANSWER) {
      unanswered.add(words[0]);
    } else {
      messages.stopAt(step, IgniteUuid.fromString(words[1]));
    }
    return "armed";
  }

  private void run(Change change) {
    CountDownLatch its = new CountDownLatch(1);
    go.put(change.id(), its);
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              String end = outcome(change, its);
              if (!unanswered.remove(change.id())) {
                say("end " + change.id() + " " + end);
              }
            });
  }

  private String outcome(Change change, CountDownLatch its) {
    try {
      return data.transactions()
              .runOnce(
                  change.id(),
                  new Options(change.mode(), LONG),
                  transaction -> {
                    change(transaction, change);
                    say("answer " + read(ignite -> ignite.transactions().tx().xid()));
                    try {
                      its.await();
                    } catch (InterruptedException e) {
                      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
                    }
                    return true;
                  })
              .isPresent()
          ? "committed"
          : "committed, as was found";
    } catch (FlotillaException e) {
      return (e.code() == Code.OUTCOME_UNKNOWN ? "unknown " : "refused ") + e;
    }
  }

  private void change(Transaction transaction, Change change) {
    if (change.mode() != Mode.OPTIMISTIC) {
      transaction.sql("UPDATE account SET n = n - 1 WHERE id = ?", change.from());
      transaction.sql("UPDATE account SET n = n + 1 WHERE id = ?", change.to());
      transaction.sql("INSERT INTO transfer VALUES (?, 1)", change.row());
    }
    Cache cache = data.caches().cache(CACHE);
    change.entries().forEach(key -> cache.put(key, new byte[1]));
    var _ =
        data.queues().queue(QUEUE).send(Queue.Outgoing.of(change.queueKey(), bytes(change.id())));
  }

  private String engineCache() {
    return GridCaches.engineName(cluster.registry(), CACHE).orElseThrow();
  }

  private <T> T read(Function<Ignite, T> operation) {
    return data.grid().read("looking", operation);
  }

  /** The engine's transactions that run on this node. */
  private String inDoubt() {
    return read(
        ignite ->
            new TreeSet<>(
                    ((IgniteEx) ignite)
                        .context().cache().context().tm().activeTransactions().stream()
                            .map(each -> String.valueOf(each.nearXidVersion().asIgniteUuid()))
                            .toList())
                .toString());
  }

  /**
   * Reads all that was changed, under locks: the ids of what was done in all its parts. Of what was
   * done in some parts the parts are told.
   */
  private String done(Change[] changes) {
    return data.transactions()
        .run(
            new Options(Mode.PESSIMISTIC, Duration.ofSeconds(30)),
            transaction -> {
              Map<Integer, Integer> accounts = numbers(transaction, "account");
              Map<Integer, Integer> transfers = numbers(transaction, "transfer");
              Map<Integer, Integer> expected = new LinkedHashMap<>();
              accounts.keySet().forEach(account -> expected.put(account, 0));
              List<String> done = new ArrayList<>();
              Cache cache = data.caches().cache(CACHE);
              for (Change change : changes) {
                List<Boolean> parts = new ArrayList<>();
                change.entries().forEach(key -> parts.add(cache.get(key).isPresent()));
                if (change.mode() != Mode.OPTIMISTIC) {
                  parts.add(transfers.containsKey(change.row()));
                }
                if (new HashSet<>(parts).size() > 1) {
                  done.add(change.id() + " in half: " + parts);
                } else if (parts.contains(true)) {
                  done.add(change.id());
                  if (change.mode() != Mode.OPTIMISTIC) {
                    expected.merge(change.from(), -1, Integer::sum);
                    expected.merge(change.to(), 1, Integer::sum);
                  }
                }
              }
              if (!expected.equals(accounts)) {
                done.add("accounts are " + accounts + " and should be " + expected);
              }
              return String.join(",", done);
            });
  }

  private static Map<Integer, Integer> numbers(Transaction transaction, String table) {
    Map<Integer, Integer> all = new LinkedHashMap<>();
    transaction
        .sql("SELECT id, n FROM " + table + " ORDER BY id")
        .rows()
        .forEach(row -> all.put((Integer) row.getFirst(), (Integer) row.get(1)));
    return all;
  }

  /** The ids of those of which this node's own copies of the cache's entries have something. */
  private String copies(Change[] changes) {
    return read(
        ignite -> {
          var cache = ignite.<String, byte[]>cache(engineCache());
          List<String> held = new ArrayList<>();
          for (Change change : changes) {
            long count =
                change.entries().stream()
                    .filter(
                        key ->
                            cache.localPeek(key, CachePeekMode.PRIMARY, CachePeekMode.BACKUP)
                                != null)
                    .count();
            if (count > 0) {
              held.add(change.id() + (count == change.entries().size() ? "" : " in half"));
            }
          }
          return String.join(",", held);
        });
  }

  /** All that the queue has, acknowledged here. */
  private List<String> drain() throws InterruptedException {
    Queue queue = data.queues().queue(QUEUE);
    List<String> all = new ArrayList<>();
    while (true) {
      List<Message> some =
          queue.receive(
              Queue.DEFAULT_GROUP, "", 100, Duration.ofMinutes(1), Duration.ofMillis(500));
      if (some.isEmpty()) {
        return all;
      }
      some.stream()
          .map(each -> new String(each.body(), StandardCharsets.UTF_8))
          .filter(body -> !body.equals("probe"))
          .forEach(all::add);
      queue.acknowledge(some.stream().map(Message::receipt).toList(), Optional.empty());
    }
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
