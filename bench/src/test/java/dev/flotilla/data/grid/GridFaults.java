package dev.flotilla.data.grid;

import dev.flotilla.bench.FaultNet;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Three grids as processes on hosts of a {@link FaultNet}, written to all the time while one fault
 * after the other strikes; after each it is looked whether everything acknowledged is there,
 * nothing refused is, and all three hold the same. As a program it goes on for as long as it is
 * told: {@code GridFaults CYCLES SEED}.
 */
final class GridFaults implements AutoCloseable {

  /** What strikes. */
  enum Fault {
    ISOLATE,
    ISOLATE_BRIEFLY,
    PAIR,
    ONE_WAY,
    ALL_APART,
    PAUSE_1_S,
    PAUSE_10_S,
    KILL,
    KILL_ALL
  }

  /** What came out, in numbers. */
  record Tally(int cycles, long acknowledged, int lost, int ghosts, int torn, int diverged) {

    Tally plus(Tally other) {
      return new Tally(
          cycles + other.cycles,
          acknowledged + other.acknowledged,
          lost + other.lost,
          ghosts + other.ghosts,
          torn + other.torn,
          diverged + other.diverged);
    }

    static Tally none() {
      return new Tally(0, 0, 0, 0, 0, 0);
    }
  }

  private static final String PLANTED = "flotilla.fault.acknowledge-before-majority";
  private static final int PORT = 8000;
  private static final String GONE = "-1";
  private static final long REJOIN_S = 60;

  private final Path folder;
  private final FaultNet net;
  private final boolean planted;
  private final List<Member> nodes = new ArrayList<>();

  /** By key: the values that it may have now, {@link #GONE} among them. */
  private final Map<String, Set<String>> possible = new HashMap<>();

  /** Keys of operations that run, and whose value was not possible before. */
  private final Set<String> begun = new HashSet<>();

  private final List<String[]> pairs = new ArrayList<>();
  private final Map<String, Integer> outcomes = new TreeMap<>();
  private long acknowledged;

  /**
   * Starts them.
   *
   * @param planted whether they acknowledge without a majority, to see that it is found
   */
  GridFaults(Path folder, int subnet, boolean planted) throws IOException {
    this.folder = folder;
    this.planted = planted;
    this.net = new FaultNet(subnet);
    for (int number = 1; number <= 3; number++) {
      net.add();
    }
    try {
      for (int number = 1; number <= 3; number++) {
        List<String> join =
            number == 1
                ? List.of()
                : List.of(net.address(1) + ":" + PORT, nodes.getFirst().ask("invite"));
        Member node = new Member(number, join);
        nodes.add(node);
        node.awaitReady();
      }
    } catch (IOException | RuntimeException e) {
      close();
      throw e;
    }
  }

  /** One process, and what it says. */
  private final class Member {
    private final int number;
    private final List<String> join;
    private volatile Process process;
    private volatile BlockingQueue<String> answers = new LinkedBlockingQueue<>();
    private volatile Thread reader;
    private BufferedWriter input;

    Member(int number, List<String> join) throws IOException {
      this.number = number;
      this.join = join;
      start();
    }

    void start() throws IOException {
      Path own = folder.resolve("node-" + number);
      Files.createDirectories(own);
      List<String> command = new ArrayList<>(net.on(number));
      command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
      command.add("@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"));
      command.addAll(
          List.of(
              "-Xmx400m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dflotilla.logs=" + own));
      if (planted) {
        command.add("-D" + PLANTED + "=true");
      }
      command.addAll(
          List.of(
              "-cp",
              System.getProperty("java.class.path"),
              GridProcess.class.getName(),
              own.toString(),
              "node-" + number,
              net.address(number),
              Integer.toString(PORT)));
      command.addAll(join);
      process =
          new ProcessBuilder(command)
              .redirectError(ProcessBuilder.Redirect.appendTo(own.resolve("stderr.txt").toFile()))
              .start();
      answers = new LinkedBlockingQueue<>();
      input = process.outputWriter(StandardCharsets.UTF_8);
      Process started = process;
      BlockingQueue<String> queue = answers;
      reader = Thread.ofPlatform().daemon().start(() -> listen(started, queue));
    }

    private void listen(Process started, BlockingQueue<String> queue) {
      try (BufferedReader lines =
          new BufferedReader(
              new InputStreamReader(started.getInputStream(), StandardCharsets.UTF_8))) {
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
          if (line.equals("ready")) {
            queue.add(line);
          } else if (line.startsWith("answer ")) {
            queue.add(line.substring("answer ".length()));
          } else {
            note(line);
          }
        }
      } catch (IOException killed) {
        // What it had begun stays possible.
      }
    }

    String ask(String command) throws IOException {
      input.write(command + "\n");
      input.flush();
      return next(30);
    }

    private String next(long seconds) throws IOException {
      try {
        String answer = answers.poll(seconds, TimeUnit.SECONDS);
        if (answer == null) {
          noteThreads();
          throw new IOException("node " + number + " does not answer; see " + folder);
        }
        return answer;
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IOException(e);
      }
    }

    void awaitReady() throws IOException {
      next(90);
    }

    void kill() throws IOException {
      process.destroyForcibly();
      process.onExit().join();
      try {
        reader.join();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    void signal(String signal) throws IOException {
      new ProcessBuilder("kill", signal, Long.toString(process.pid())).start().onExit().join();
    }
  }

  /** Where every process stands, for whoever looks for the reason of a failure. */
  private void noteThreads() throws IOException {
    for (Member node : nodes) {
      new ProcessBuilder(
              Path.of(System.getProperty("java.home"), "bin", "jstack").toString(),
              Long.toString(node.process.pid()))
          .redirectOutput(folder.resolve("threads-" + node.number + ".txt").toFile())
          .start()
          .onExit()
          .join();
    }
  }

  /** One line of a writer: {@code begin|done|refused|unknown WHAT VALUE KEY… [CODE]}. */
  private synchronized void note(String line) {
    String[] words = line.split(" ");
    if (words.length < 4) {
      return;
    }
    String value = words[2];
    boolean pair = words[1].equals("pair");
    String code = words.length > (pair ? 5 : 4) ? words[words.length - 1] : "";
    if (!words[0].equals("begin")) {
      outcomes.merge(words[0] + (code.isEmpty() ? "" : " " + code), 1, Integer::sum);
    }
    if (words[0].equals("unknown")) {
      System.err.println(Instant.now() + " " + line);
    }
    if (words[0].equals("begin") && pair) {
      pairs.add(new String[] {words[3], words[4]});
    }
    for (int i = 3; i < (pair ? 5 : 4); i++) {
      Set<String> values = possible.computeIfAbsent(words[i], key -> new HashSet<>(Set.of(GONE)));
      switch (words[0]) {
        case "begin" -> {
          if (values.add(value)) {
            begun.add(words[i]);
          }
        }
        case "done" -> {
          values.clear();
          values.add(value);
          acknowledged++;
        }
        case "refused" -> {
          // Unless an earlier one may have brought the same.
          if (begun.contains(words[i])) {
            values.remove(value);
          }
        }
        default -> {}
      }
      if (!words[0].equals("begin")) {
        begun.remove(words[i]);
      }
    }
  }

  /** One fault, its mending, and the look at what is there. */
  Tally cycle(Fault fault, Random random) throws IOException, InterruptedException {
    for (Member node : nodes) {
      node.ask("write");
    }
    Thread.sleep(1_000);
    int victim = random.nextInt(3);
    int other = (victim + 1 + random.nextInt(2)) % 3;
    long cutMs = 6_000L + random.nextInt(4_000);
    Member node = nodes.get(victim);
    switch (fault) {
      case ISOLATE -> cut(cutMs, () -> net.isolate(victim + 1));
      case ISOLATE_BRIEFLY -> cut(1_000 + random.nextInt(4_000), () -> net.isolate(victim + 1));
      case PAIR -> cut(cutMs, () -> net.cut(victim + 1, other + 1));
      case ONE_WAY -> cut(cutMs, () -> net.cutOneWay(victim + 1, other + 1));
      case ALL_APART ->
          cut(
              cutMs,
              () -> {
                net.isolate(1);
                net.isolate(2);
              });
      case PAUSE_1_S -> pause(node, 1_000);
      case PAUSE_10_S -> pause(node, 10_000);
      case KILL -> {
        node.kill();
        Thread.sleep(random.nextInt(5_000));
        node.start();
        node.awaitReady();
      }
      case KILL_ALL -> {
        for (Member each : nodes) {
          each.kill();
        }
        for (Member each : nodes) {
          each.start();
        }
        for (Member each : nodes) {
          each.awaitReady();
        }
      }
    }
    return check();
  }

  private interface Cut {
    void make() throws IOException;
  }

  private void cut(long forMs, Cut cut) throws IOException, InterruptedException {
    System.err.println(Instant.now() + " cut");
    cut.make();
    Thread.sleep(forMs);
    net.heal();
    System.err.println(Instant.now() + " healed");
  }

  private static void pause(Member node, long forMs) throws IOException, InterruptedException {
    node.signal("-STOP");
    Thread.sleep(forMs);
    node.signal("-CONT");
  }

  private Tally check() throws IOException, InterruptedException {
    long deadlineNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(REJOIN_S);
    for (Member node : nodes) {
      while (!node.ask("majority").equals("true")) {
        if (System.nanoTime() > deadlineNs) {
          throw new IOException("node " + node.number + " does not rejoin; see " + folder);
        }
        Thread.sleep(100);
      }
    }
    for (Member node : nodes) {
      node.ask("rest");
    }
    Thread.sleep(500);
    List<Map<String, String>> contents = contents();
    // A node that is being filled does not hold all of it yet.
    while (new HashSet<>(contents).size() > 1 && System.nanoTime() < deadlineNs) {
      Thread.sleep(500);
      contents = contents();
    }
    return judge(contents);
  }

  private List<Map<String, String>> contents() throws IOException {
    List<Map<String, String>> all = new ArrayList<>();
    for (Member node : nodes) {
      String file = node.ask("dump");
      Map<String, String> own = new LinkedHashMap<>();
      if (file.startsWith("failed")) {
        own.put("failed", node.number + file);
      } else {
        for (String line : Files.readAllLines(Path.of(file))) {
          String[] words = line.split(" ");
          own.put(words[0], words[1]);
        }
      }
      all.add(own);
    }
    return all;
  }

  private synchronized Tally judge(List<Map<String, String>> contents) {
    int lost = 0;
    int ghosts = 0;
    int torn = 0;
    int diverged = new HashSet<>(contents).size() - 1;
    if (diverged > 0) {
      tellDifferences(contents);
    }
    for (Map<String, String> own : contents) {
      for (Map.Entry<String, Set<String>> expected : possible.entrySet()) {
        String found = own.getOrDefault(expected.getKey(), GONE);
        if (!expected.getValue().contains(found)) {
          boolean ghost = expected.getValue().equals(Set.of(GONE));
          if (lost + ghosts < 5) {
            System.err.printf(
                "%s: may be %s, is %s%n", expected.getKey(), expected.getValue(), found);
          }
          if (ghost) {
            ghosts++;
          } else {
            lost++;
          }
        }
      }
      for (String[] pair : pairs) {
        if (own.containsKey(pair[0]) != own.containsKey(pair[1])) {
          torn++;
        }
      }
    }
    // From here on what is there is what was decided.
    Map<String, String> truth = contents.getFirst();
    possible.replaceAll((key, values) -> new HashSet<>(Set.of(truth.getOrDefault(key, GONE))));
    Tally tally = new Tally(1, acknowledged, lost, ghosts, torn, diverged);
    acknowledged = 0;
    return tally;
  }

  private static void tellDifferences(List<Map<String, String>> contents) {
    Set<String> keys = new TreeSet<>();
    contents.forEach(own -> keys.addAll(own.keySet()));
    int told = 0;
    for (String key : keys) {
      List<String> values = contents.stream().map(own -> own.getOrDefault(key, GONE)).toList();
      if (new HashSet<>(values).size() > 1 && told++ < 20) {
        System.err.printf("differs: %s is %s%n", key, values);
      }
    }
    System.err.printf("%d keys differ of %d%n", told, keys.size());
  }

  synchronized Map<String, Integer> outcomes() {
    return new TreeMap<>(outcomes);
  }

  @Override
  public void close() throws IOException {
    for (Member node : nodes) {
      node.kill();
    }
    net.close();
  }

  /** Arguments: how many cycles, the seed, and the faults to choose from, or none for all. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    int cycles = Integer.parseInt(arguments[0]);
    long seed = Long.parseLong(arguments[1]);
    List<Fault> faults = new ArrayList<>();
    for (int i = 2; i < arguments.length; i++) {
      faults.add(Fault.valueOf(arguments[i]));
    }
    if (faults.isEmpty()) {
      faults.addAll(List.of(Fault.values()));
    }
    Random random = new Random(seed);
    Tally total = Tally.none();
    Path folder = Files.createTempDirectory("grid-faults");
    try (GridFaults grids =
        new GridFaults(folder, 30 + (int) (seed % 200), Boolean.getBoolean(PLANTED))) {
      for (int cycle = 0; cycle < cycles; cycle++) {
        Fault fault = faults.get(cycle % faults.size());
        long beganNs = System.nanoTime();
        Tally tally = grids.cycle(fault, random);
        total = total.plus(tally);
        System.out.printf(
            "%d %s %.1f s %s%n", cycle, fault, (System.nanoTime() - beganNs) / 1e9, tally);
      }
      System.out.println(total + " " + grids.outcomes());
    }
    System.exit(total.lost() + total.ghosts() + total.torn() + total.diverged() == 0 ? 0 : 1);
  }
}
