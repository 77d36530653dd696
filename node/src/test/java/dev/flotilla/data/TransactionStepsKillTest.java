package dev.flotilla.data;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.Json;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.data.StoppingMessages.Step;
import dev.flotilla.data.TransactionStepsProgram.Change;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Three real processes, each of which ends once, as by {@code kill -9}, in the middle of many
 * transactions: one at each step of the two-phase commit, with the process as its coordinator, as
 * the first owner of some of its entries, and as a backup of others.
 */
class TransactionStepsKillTest {

  /** Exit code of a process that was killed with -9. */
  static final int KILLED = 137;

  private static final Duration LONG = Duration.ofSeconds(90);

  /** Some other node has committed by then, so all must. */
  private static final Set<Step> CERTAIN =
      Set.of(
          Step.COORDINATOR_BETWEEN_FINISHES,
          Step.COORDINATOR_BEFORE_ANSWER,
          Step.OWNER_BETWEEN_FINISHES,
          Step.OWNER_FINISHED,
          Step.BACKUP_FINISHED);

  @TempDir Path folder;

  /** A process, and what it says. */
  private static final class Node implements AutoCloseable {
    private final String name;
    private final List<String> command;
    private final Path errors;
    private BlockingQueue<String> answers = new LinkedBlockingQueue<>();
    private BlockingQueue<String> ends = new LinkedBlockingQueue<>();
    private Process process;

    Node(String name, List<String> command, Path errors) throws IOException {
      this.name = name;
      this.command = command;
      this.errors = errors;
      this.process = start();
    }

    private Process start() throws IOException {
      Process started =
          new ProcessBuilder(command)
              .redirectError(ProcessBuilder.Redirect.appendTo(errors.toFile()))
              .start();
      BlockingQueue<String> itsAnswers = new LinkedBlockingQueue<>();
      BlockingQueue<String> itsEnds = new LinkedBlockingQueue<>();
      answers = itsAnswers;
      ends = itsEnds;
      Thread.ofPlatform().daemon().start(() -> listen(started, itsAnswers, itsEnds));
      return started;
    }

    private static void listen(
        Process process, BlockingQueue<String> answers, BlockingQueue<String> ends) {
      try (BufferedReader lines =
          new BufferedReader(
              new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
          if (line.startsWith("answer ")) {
            answers.add(line.substring("answer ".length()));
          } else if (line.startsWith("end ")) {
            ends.add(line.substring("end ".length()));
          }
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    void tell(String line) throws IOException {
      process.getOutputStream().write((line + "\n").getBytes(StandardCharsets.UTF_8));
      process.getOutputStream().flush();
    }

    String answer() throws InterruptedException {
      return next(answers);
    }

    /** Id and outcome of a transaction. */
    String end() throws InterruptedException {
      return next(ends);
    }

    private String next(BlockingQueue<String> lines) throws InterruptedException {
      String line = lines.poll(LONG.toSeconds(), TimeUnit.SECONDS);
      assertThat(line).as("what %s says", name).isNotNull();
      return line;
    }

    String ask(String line) throws IOException, InterruptedException {
      tell(line);
      return answer();
    }

    /** Asks until the answer is as wanted, for a minute and a half. */
    String ask(String line, Predicate<String> wanted) throws IOException, InterruptedException {
      long deadlineNs = System.nanoTime() + LONG.toNanos();
      while (true) {
        String answer = ask(line);
        if (wanted.test(answer)) {
          return answer;
        }
        assertThat(System.nanoTime()).as("%s to %s: %s", line, name, answer).isLessThan(deadlineNs);
        TimeUnit.MILLISECONDS.sleep(20);
      }
    }

    void halt() throws IOException, InterruptedException {
      tell("halt");
      assertThat(process.waitFor(LONG.toSeconds(), TimeUnit.SECONDS)).isTrue();
      assertThat(process.exitValue()).isEqualTo(KILLED);
    }

    void restart() throws IOException, InterruptedException {
      process = start();
      assertThat(answer()).isEqualTo("ready");
    }

    @Override
    public void close() {
      process.destroyForcibly();
      process.onExit().join();
    }
  }

  private final List<Node> nodes = new ArrayList<>();
  private final List<Change> changes = new ArrayList<>();
  private final Set<String> done = new TreeSet<>();

  @Test
  void transactionsAreWholeWhereverInTheirCommitANodeIsKilled() throws Exception {
    try {
      int port = NodeProcess.freePorts(19_000);
      for (int i = 0; i < 3; i++) {
        start(i, port);
      }
      assertThat(nodes.getFirst().ask("make " + Step.values().length)).isEqualTo("made");
      for (int round = 0; round < nodes.size(); round++) {
        endInTheMiddle(round);
      }
      assertThat(nodes.getFirst().ask("drain").split(" "))
          .containsExactlyInAnyOrderElementsOf(done);
    } finally {
      nodes.forEach(Node::close);
    }
  }

  private void start(int index, int port) throws IOException, InterruptedException {
    String name = "n" + index;
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"),
                "-Xmx512m",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("java.class.path"),
                TransactionStepsProgram.class.getName(),
                folder.resolve(name).toString(),
                name,
                "" + (port + 10 * index)));
    if (index > 0) {
      command.addAll(List.of("127.0.0.1:" + port, nodes.getFirst().ask("invite")));
    }
    Files.createDirectories(folder.resolve(name));
    Node node = new Node(name, command, folder.resolve(name).resolve("stderr.txt"));
    nodes.add(node);
    assertThat(node.answer()).isEqualTo("ready");
  }

  private void endInTheMiddle(int round) throws IOException, InterruptedException {
    Node doomed = nodes.get(round);
    List<Node> survivors = nodes.stream().filter(node -> node != doomed).toList();
    List<Change> now =
        List.of(
            Json.read(
                doomed
                    .ask("changes " + round + " " + Step.values().length)
                    .getBytes(StandardCharsets.UTF_8),
                Change[].class));
    changes.addAll(now);
    Map<String, Step> steps = new HashMap<>();
    Map<String, Node> coordinators = new HashMap<>();
    for (int i = 0; i < now.size(); i++) {
      Step step = List.of(Step.values()).get(i / 2);
      Change change = now.get(i);
      Node coordinator = step.isCoordinators() ? doomed : survivors.get(i % 2);
      steps.put(change.id(), step);
      coordinators.put(change.id(), coordinator);
      String transaction = coordinator.ask("run " + json(change));
      assertThat(doomed.ask("stop-at " + step + " " + change.id() + " " + transaction))
          .isEqualTo("armed");
    }
    for (Change change : now) {
      coordinators.get(change.id()).tell("go " + change.id());
    }
    String _ = doomed.ask("awaited", "[][]"::equals);
    doomed.halt();

    Map<String, String> ends = new HashMap<>();
    for (Node node : survivors) {
      for (long left = coordinators.values().stream().filter(node::equals).count();
          left > 0;
          left--) {
        String end = node.end();
        ends.put(end.substring(0, end.indexOf(' ')), end.substring(end.indexOf(' ') + 1));
      }
    }
    for (Node node : survivors) {
      String _ = node.ask("in-doubt", "[]"::equals);
    }
    Set<String> whole = done(survivors.getFirst());
    for (Change change : now) {
      String id = change.id();
      String end = ends.getOrDefault(id, "");
      String what = id + ", " + steps.get(id) + ": " + end;
      if (end.startsWith("committed") || CERTAIN.contains(steps.get(id))) {
        assertThat(whole).as(what).contains(id);
      } else if (end.startsWith("refused")) {
        assertThat(whole).as(what).doesNotContain(id);
      }
    }
    assertThat(whole).containsAll(done);
    done.addAll(whole);
    doomed.restart();
    for (Node node : nodes) {
      check(node);
    }
  }

  private Set<String> done(Node node) throws IOException, InterruptedException {
    return ids(node.ask("done " + json(changes), answer -> !answer.startsWith("failed ")));
  }

  private static Set<String> ids(String answer) {
    return Arrays.stream(answer.split(","))
        .filter(id -> !id.isEmpty())
        .collect(Collectors.toCollection(TreeSet::new));
  }

  private void check(Node node) throws IOException, InterruptedException {
    assertThat(done(node)).as("what %s reads", node.name).isEqualTo(done);
    String _ = node.ask("copies " + json(changes), answer -> ids(answer).equals(done));
    String _ = node.ask("in-doubt", "[]"::equals);
    for (Change change : changes) {
      String id = change.id();
      assertThat(node.ask("state " + id, answer -> !answer.startsWith("failed ")))
          .as("the state of %s, as %s has it", id, node.name)
          .isIn(done.contains(id) ? Set.of("COMMITTED") : Set.of("ROLLED_BACK", "NONE"));
    }
  }

  private static String json(Object value) {
    return new String(Json.write(value), StandardCharsets.UTF_8);
  }
}
