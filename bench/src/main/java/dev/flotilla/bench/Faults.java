package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.app.NodeProcess;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** What happens to the nodes of a run, one fault at a time, each mended before the next. */
final class Faults {

  /** A node that was killed or told to stop and is not back by then was not well. */
  private static final Duration RETURN_LIMIT = Duration.ofMinutes(4);

  private static final Duration STOP_LIMIT = Duration.ofSeconds(90);
  private static final int FILL_BYTES = 4 << 20;

  /** What every cluster of processes can be put through. */
  private static final List<String> OF_PROCESSES = List.of("kill", "pause");

  /** What leaves too few nodes to decide, or none: who reads from them then may lose its stream. */
  private static final List<String> OF_MAJORITIES = List.of("majority", "all");

  /** What needs hosts of their own. */
  private static final List<String> OF_CUTS = List.of("isolate", "pair", "one-way");

  /** What needs cables and disks of our own. */
  private static final List<String> OF_HOSTS = List.of("lossy", "slow", "disk");

  /**
   * One that happened.
   *
   * @param kind its name
   * @param node whom it happened to, counted from 0; the first of several
   * @param beganNs by {@link System#nanoTime}
   * @param mendedNs the same: when the node was back, or the network or the disk as before
   */
  record Fault(String kind, int node, long beganNs, long mendedNs) {

    /** Whether too few nodes were left to keep what nodes keep for each other. */
    boolean tookMajority() {
      return OF_MAJORITIES.contains(kind);
    }
  }

  private final Nodes nodes;
  private final int count;
  private final Random random;
  private final List<String> possible;
  private final Consumer<String> say;
  private final List<String> helped = new ArrayList<>();
  private long slowestReturnNs;
  private int turn;

  /**
   * @param wanted only these kinds of those possible here; all that cut, kill one and pause if
   *     empty
   * @param say hears of each, before it happens
   */
  Faults(Nodes nodes, int count, Random random, List<String> wanted, Consumer<String> say) {
    this.nodes = nodes;
    this.count = count;
    this.random = random;
    this.say = say;
    List<String> here = new ArrayList<>(OF_PROCESSES);
    if (nodes.net().isPresent()) {
      here.addAll(OF_CUTS);
    }
    if (!wanted.isEmpty()) {
      here.add("restart");
      here.addAll(OF_MAJORITIES);
      if (nodes.spoilable()) {
        here.addAll(OF_HOSTS);
      }
      here.retainAll(wanted);
    }
    this.possible = here;
  }

  /**
   * Refuses names that are none.
   *
   * @throws FlotillaException {@code INVALID}
   */
  static void check(List<String> wanted) {
    List<String> known = new ArrayList<>(OF_PROCESSES);
    known.add("restart");
    Stream.of(OF_MAJORITIES, OF_HOSTS, OF_CUTS).forEach(known::addAll);
    wanted.stream()
        .filter(kind -> !known.contains(kind))
        .findFirst()
        .ifPresent(
            kind -> {
              throw new FlotillaException(
                  FlotillaException.Code.INVALID,
                  "there is no fault " + kind,
                  "Those that there are: " + String.join(", ", known) + ".");
            });
  }

  /** What may happen here. */
  List<String> possible() {
    return possible;
  }

  /** Nodes that did not come back, or ended, by themselves; what was done for each. */
  List<String> helped() {
    return helped;
  }

  /** The longest that a killed node took from its new start until it served again. */
  long slowestReturnNs() {
    return slowestReturnNs;
  }

  /** One fault and its mending. */
  Fault next() throws IOException, InterruptedException {
    String kind = possible.get(random.nextInt(possible.size()));
    int victim = random.nextInt(count);
    int other = (victim + 1 + random.nextInt(Math.max(1, count - 1))) % count;
    int forMs = 1_000 + random.nextInt(9_000);
    if (kind.equals("restart")) {
      // One after the other, as all nodes are restarted.
      victim = turn++ % count;
    }
    NodeProcess node = nodes.node(victim);
    long beganNs;
    switch (kind) {
      case "kill" -> {
        say(kind, node, "for " + forMs + " ms");
        beganNs = System.nanoTime();
        node.kill();
        Thread.sleep(forMs);
        back(node);
      }
      case "majority", "all" -> {
        int many = kind.equals("all") ? count : count / 2 + 1;
        int first = victim;
        List<NodeProcess> killed =
            IntStream.range(0, many).mapToObj(i -> nodes.node((first + i) % count)).toList();
        say(kind, node, "and %d more for %d ms".formatted(many - 1, forMs));
        beganNs = System.nanoTime();
        killed.forEach(NodeProcess::kill);
        Thread.sleep(forMs);
        back(killed);
      }
      case "restart" -> {
        say(kind, node, "");
        beganNs = System.nanoTime();
        node.terminate();
        if (!node.awaitEnd(STOP_LIMIT)) {
          help(node, "did not stop in " + STOP_LIMIT.toSeconds() + " s, and was killed");
          node.kill();
        }
        back(node);
      }
      case "pause" -> {
        say(kind, node, "for " + forMs + " ms");
        beganNs = System.nanoTime();
        node.pause();
        Thread.sleep(forMs);
        node.resume();
      }
      case "lossy" -> {
        double share = 0.1 + 0.2 * random.nextDouble();
        say(kind, node, "%.0f%% for %d ms".formatted(100 * share, forMs));
        Wire wire = nodes.net().orElseThrow().wire(victim + 1);
        beganNs = System.nanoTime();
        wire.lose(share);
        Thread.sleep(forMs);
        wire.mend();
      }
      case "slow" -> {
        int delayMs = 20 + random.nextInt(180);
        say(kind, node, delayMs + " ms for " + forMs + " ms");
        Wire wire = nodes.net().orElseThrow().wire(victim + 1);
        beganNs = System.nanoTime();
        wire.delay(delayMs * 1_000_000L);
        Thread.sleep(forMs);
        wire.mend();
      }
      case "disk" -> {
        say(kind, node, "for " + forMs + " ms");
        beganNs = System.nanoTime();
        Path file = node.folder().resolve("somebody-elses.file");
        fill(file);
        Thread.sleep(forMs);
        Files.delete(file);
      }
      default -> {
        say(kind, node, "for " + forMs + " ms");
        FaultNet net = nodes.net().orElseThrow();
        beganNs = System.nanoTime();
        switch (kind) {
          case "isolate" -> net.isolate(victim + 1);
          case "pair" -> net.cut(victim + 1, other + 1);
          default -> net.cutOneWay(victim + 1, other + 1);
        }
        Thread.sleep(forMs);
        net.heal();
      }
    }
    Fault fault = new Fault(kind, victim, beganNs, System.nanoTime());
    for (int i = 0; i < count; i++) {
      if (!nodes.node(i).isAlive()) {
        help(nodes.node(i), "ended by itself, and was started again");
        back(nodes.node(i));
      }
    }
    return fault;
  }

  private void say(String kind, NodeProcess node, String more) {
    say.accept(kind + " " + node.name() + " " + more);
  }

  private void help(NodeProcess node, String how) {
    helped.add(node.name() + " " + how);
    say.accept(helped.getLast());
  }

  private void back(NodeProcess node) throws IOException, InterruptedException {
    back(List.of(node));
  }

  /** Starts nodes that have ended, all at once, and waits until they serve. */
  private void back(List<NodeProcess> ended) throws IOException, InterruptedException {
    long startedNs = System.nanoTime();
    for (NodeProcess node : ended) {
      node.restart();
    }
    for (NodeProcess node : ended) {
      try {
        node.awaitReady(RETURN_LIMIT);
      } catch (FlotillaException e) {
        help(node, "did not come back, and was started once more: " + e.getMessage());
        node.kill();
        node.restart();
        node.awaitReady(RETURN_LIMIT);
      }
    }
    slowestReturnNs = Math.max(slowestReturnNs, System.nanoTime() - startedNs);
  }

  /** Takes all that is left of a disk. */
  private static void fill(Path file) throws IOException {
    byte[] zeros = new byte[FILL_BYTES];
    int size = zeros.length;
    try (OutputStream out = Files.newOutputStream(file)) {
      while (size > 0) {
        try {
          out.write(zeros, 0, size);
        } catch (IOException full) {
          // What is left may be less than that.
          size /= 2;
        }
      }
    }
  }
}
