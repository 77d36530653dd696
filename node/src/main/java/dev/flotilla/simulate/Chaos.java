package dev.flotilla.simulate;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Fencing;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.Pooling;
import dev.flotilla.serve.AnswerValue;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Embedder;
import dev.flotilla.serve.EmbeddingRequest;
import dev.flotilla.serve.Engine;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Generator;
import dev.flotilla.serve.Kept;
import dev.flotilla.serve.Priority;
import dev.flotilla.serve.SamplingParameters;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * One run: a cluster that serves streams, changes what it serves and hands locks around, while
 * machines die, stop and come back, disks are slow and lose what was not forced, and the network
 * cuts, delays, loses and doubles. Then everything is mended, and within a while everything must be
 * well again.
 */
public final class Chaos {

  private static final long FAULTS_NS = 30 * World.S;

  /** Longer than the minute for which a router waits for a replica. */
  private static final long CALM_MOST_NS = 100 * World.S;

  /** Longer than a node must have answered before more of a deployment is placed on it. */
  private static final long STEADY_NS = 20 * World.S;

  private static final int VOTERS = 3;

  /** Texts of the toy's characters that nest, go more than one way at once, and may end. */
  private static final String GRAMMAR =
      """
      root ::= list "z"?
      list ::= "[" (item ("_" item)*)? "]"
      item ::= [a-m]{1,5} | [a-f]+ "^" | [A-Z]+ | list
      """;

  private static final int GRAMMAR_END = '}' - 'A';

  /** As long as the gateway waits for a stream's copy. */
  private static final long COPY_NS = 500 * World.MS;

  /** For so long a reader without news of its stream tries to read on. */
  private static final long READER_NS = 30 * World.S;

  /**
   * What a run was like.
   *
   * @param trace digest of all that happened; the same for the same seed
   * @param failure what went wrong; empty if nothing did
   * @param story the faults and what came of them, in order
   */
  public record Report(
      long seed,
      int nodes,
      long events,
      long trace,
      Counts counts,
      Optional<String> failure,
      List<String> story) {}

  /**
   * How much of everything there was.
   *
   * @param accepted streams that a router took
   * @param finished of these, with the right text to its end
   * @param held of these, to a grammar
   * @param cancelled of those taken, by who asked
   * @param failed of these, that could not go on in time
   * @param orphaned of these, whose own node died, and nobody had a copy or came for it
   * @param returned how often a reader went on with its stream at another node, or the same
   * @param refused streams that were not taken, since nobody was ready or the queue was full
   * @param embedded texts
   * @param pauseNs the longest wait of a stream for its next token
   */
  public record Counts(
      long accepted,
      long finished,
      long held,
      long cancelled,
      long failed,
      long orphaned,
      long returned,
      long refused,
      long tokens,
      long pauseNs,
      long faults,
      long elections,
      long controllers,
      long placements,
      long leases,
      long fencedWrites,
      long tornEntries,
      long tornSnapshots,
      long embedded) {

    /** Of no run. */
    public static final Counts NONE =
        new Counts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

    /** Of two runs, or more. */
    public Counts plus(Counts more) {
      return new Counts(
          accepted + more.accepted,
          finished + more.finished,
          held + more.held,
          cancelled + more.cancelled,
          failed + more.failed,
          orphaned + more.orphaned,
          returned + more.returned,
          refused + more.refused,
          tokens + more.tokens,
          Math.max(pauseNs, more.pauseNs),
          faults + more.faults,
          elections + more.elections,
          controllers + more.controllers,
          placements + more.placements,
          leases + more.leases,
          fencedWrites + more.fencedWrites,
          tornEntries + more.tornEntries,
          tornSnapshots + more.tornSnapshots,
          embedded + more.embedded);
    }

    /** For people. */
    public String text() {
      return String.format(
          Locale.ROOT,
          "streams: %d accepted, %d finished (%d of them held to a grammar), %d cancelled,"
              + " %d failed, %d lost with their node;"
              + " %d readers came back; %d refused; %d tokens, longest pause %.1f s; %d embeddings%n"
              + "faults: %d; elections %d, controllers %d, placements %d; leases %d with %d writes;"
              + " torn: %d log entries, %d snapshots",
          accepted,
          finished,
          held,
          cancelled,
          failed,
          orphaned,
          returned,
          refused,
          tokens,
          pauseNs / 1e9,
          embedded,
          faults,
          elections,
          controllers,
          placements,
          leases,
          fencedWrites,
          tornEntries,
          tornSnapshots);
    }
  }

  /** Counts while it runs. */
  private static final class Tally {
    long accepted;
    long finished;
    long held;
    long cancelled;
    long failed;
    long orphaned;
    long returned;
    long refused;
    long tokens;
    long pauseNs;
    long faults;
    long leases;
    long fencedWrites;
    long embedded;
  }

  private final long seed;
  private final World world;
  private final Network network;
  private final Group group;
  private final Checks checks;
  private final ToyModel model;
  private final Map<String, Map<String, Double>> profiles = new LinkedHashMap<>();
  private final Map<String, Integer> starts = new LinkedHashMap<>();
  private final List<Stream> streams = new ArrayList<>();
  private final List<Vector> vectors = new ArrayList<>();
  private final List<String> story = new ArrayList<>();
  private final Set<String> drained = new LinkedHashSet<>();
  private final Tally tally = new Tally();
  private final boolean poor;
  private final int nodes;
  private boolean trouble = true;
  private boolean begun;
  private final List<String> models;
  private long requests;

  private Chaos(long seed) {
    this.seed = seed;
    this.world = new World(seed);
    this.nodes = 2 + world.random.nextInt(4);
    List<String> names = IntStream.range(0, nodes).mapToObj(i -> "n" + i).toList();
    this.network = new Network(world, names);
    this.checks = new Checks(world);
    this.group = new Group(world, network, names, VOTERS, checks);
    this.model =
        new ToyModel(
            world,
            world.chance(0.5) ? 128 : 8 + world.random.nextInt(16),
            world.between(World.MS, 10 * World.MS),
            world.between(20 * World.MS, World.S),
            world.chance(0.3) ? 0.3 : 0);
    this.poor = world.chance(0.4);
    this.models = poor || world.chance(0.5) ? List.of("toy") : List.of("toy", "toy-too");
    for (String name : names) {
      double memory = ToyModel.bytes() * (poor ? 0.62 : 3);
      profiles.put(name, Map.of("memory_bytes", memory, "weight_bytes_per_second", 1e10));
    }
  }

  /**
   * Runs one seed to its end, or to the first promise that is broken. Uses no thread but one at a
   * time.
   */
  public static Report run(long seed) {
    return World.run("seed-" + seed, () -> new Chaos(seed).run());
  }

  private Report run() {
    Optional<String> failure = Optional.empty();
    try {
      live();
    } catch (RuntimeException | Error e) {
      failure = Optional.of(trace(e));
      tell("FAILED: " + e.getMessage());
    }
    return new Report(
        seed, nodes, world.count(), world.trace(), counts(), failure, List.copyOf(story));
  }

  private static String trace(Throwable thrown) {
    StringBuilder text = new StringBuilder();
    for (Throwable t = thrown; t != null; t = t.getCause()) {
      text.append(text.isEmpty() ? "" : "\n caused by ").append(t);
      for (int i = 0; i < Math.min(8, t.getStackTrace().length); i++) {
        text.append("\n    at ").append(t.getStackTrace()[i]);
      }
    }
    return text.toString();
  }

  private Counts counts() {
    return new Counts(
        tally.accepted,
        tally.finished,
        tally.held,
        tally.cancelled,
        tally.failed,
        tally.orphaned,
        tally.returned,
        tally.refused,
        tally.tokens,
        tally.pauseNs,
        tally.faults,
        group.elections(),
        checks.controllers(),
        checks.placements(),
        tally.leases,
        tally.fencedWrites,
        group.tornEntries(),
        group.tornSnapshots(),
        tally.embedded);
  }

  private void tell(String what) {
    story.add(String.format(Locale.ROOT, "%9.3f s  %s", world.nowNs() / 1e9, what));
  }

  private void live() {
    network.machines().forEach(this::begin);
    watch();
    world.after(world.between(2 * World.S, 4 * World.S), null, this::fault);
    world.run(FAULTS_NS);
    trouble = false;
    mend();
    world.run(10 * World.S); // what operators were about to do is done
    for (Network.Machine machine : network.machines()) {
      SimulatedNode process = machine.running();
      if (process != null) {
        var _ = process.threads().start("operator", () -> takeAllBack(process));
      }
    }
    if (!offered()) {
      for (Network.Machine machine : network.machines()) {
        SimulatedNode process = machine.running();
        if (process != null) {
          var _ = process.threads().start("operator", () -> offerAgain(process));
        }
      }
    }
    becalm();
  }

  /** Everything becomes well within a while, and stays so. */
  private void becalm() {
    long endNs = world.nowNs() + CALM_MOST_NS;
    Optional<String> ill = ill();
    long steadyNs = 0;
    while (steadyNs < STEADY_NS && world.nowNs() < endNs) {
      long placements = checks.placements();
      world.run(World.S);
      ill = ill();
      steadyNs = ill.isEmpty() && checks.placements() == placements ? steadyNs + World.S : 0;
    }
    if (steadyNs < STEADY_NS) {
      throw new Violation(
          ill.orElse("placements are still made") + ", long after everything was mended");
    }
  }

  private void watch() {
    network.watch();
    world.after(500 * World.MS, null, this::watch);
  }

  // The cluster.

  private void begin(Network.Machine machine) {
    int number = starts.merge(machine.name, 1, Integer::sum);
    Map<String, Double> profile = profiles.getOrDefault(machine.name, Map.of());
    machine.on = true;
    SimulatedNode process =
        new SimulatedNode(
            world, network, group, machine, machine.name + "#" + number, profile, model);
    process.start();
    var _ = process.threads().start("client", () -> work(process));
    var _ = process.threads().start("locker", () -> lock(process));
  }

  private void end(Network.Machine machine, boolean power) {
    SimulatedNode process = machine.running();
    if (power) {
      machine.on = false;
    }
    if (process != null) {
      process.die();
      for (Stream stream : streams) {
        if (stream.gateway == process && stream.open()) {
          stream.cut();
        }
      }
    }
  }

  // Trouble.

  private Network.Machine anyone() {
    List<Network.Machine> machines = network.machines();
    return machines.get(world.random.nextInt(machines.size()));
  }

  private Network.Machine victim() {
    // The leader is the one whose loss costs most.
    Optional<Network.Machine> leader =
        network.machines().stream()
            .filter(
                m -> {
                  SimulatedNode process = m.running();
                  return process != null && process.member().leads();
                })
            .findFirst();
    return leader.isPresent() && world.chance(0.45) ? leader.get() : anyone();
  }

  private void fault() {
    if (!trouble) {
      return;
    }
    tally.faults++;
    Network.Machine one = victim();
    long lastsNs = world.between(200 * World.MS, world.chance(0.3) ? 15 * World.S : 4 * World.S);
    String lasts = String.format(Locale.ROOT, "%.1f s", lastsNs / 1e9);
    switch (world.random.nextInt(10)) {
      case 0, 1 -> {
        tell("kill -9 " + one.name + ", back in " + lasts);
        end(one, false);
        world.after(lastsNs, null, () -> back(one));
      }
      case 2 -> {
        tell("power off " + one.name + ", back in " + lasts);
        end(one, true);
        world.after(lastsNs, null, () -> back(one));
      }
      case 3 -> {
        SimulatedNode process = one.running();
        if (process != null) {
          tell("stop " + process.id() + " for " + lasts);
          process.stoppedUntilNs = world.nowNs() + lastsNs;
        }
      }
      case 4 -> {
        tell("isolate " + one.name + " for " + lasts);
        for (Network.Machine other : network.machines()) {
          if (other != one) {
            way(one, other, lastsNs, way -> way.cut = true, way -> way.cut = false);
            way(other, one, lastsNs, way -> way.cut = true, way -> way.cut = false);
          }
        }
      }
      case 5 -> {
        Network.Machine other = anyone();
        if (other != one) {
          tell("cut " + one.name + " > " + other.name + ", one way, for " + lasts);
          way(one, other, lastsNs, way -> way.cut = true, way -> way.cut = false);
        }
      }
      case 6 -> {
        Network.Machine other = anyone();
        if (other != one) {
          long slowNs = world.between(50 * World.MS, 900 * World.MS);
          tell("slow " + one.name + " - " + other.name + " for " + lasts);
          way(one, other, lastsNs, way -> way.slowNs = slowNs, way -> way.slowNs = 0);
          way(other, one, lastsNs, way -> way.slowNs = slowNs, way -> way.slowNs = 0);
        }
      }
      case 7 -> {
        tell("lose and double packets of " + one.name + " for " + lasts);
        double lost = world.random.nextDouble() * 0.4;
        for (Network.Machine other : network.machines()) {
          if (other != one) {
            way(one, other, lastsNs, way -> lossy(way, lost), way -> lossy(way, 0));
            way(other, one, lastsNs, way -> lossy(way, lost), way -> lossy(way, 0));
          }
        }
      }
      case 8 -> {
        tell("slow disk of " + one.name + " for " + lasts);
        one.disk.slowUntilNs = world.nowNs() + lastsNs;
        one.disk.slowNs = world.between(50 * World.MS, 3 * World.S);
      }
      default -> {
        if (world.chance(0.15)) {
          tell("power off all, back in " + lasts);
          for (Network.Machine machine : network.machines()) {
            end(machine, true);
            world.after(lastsNs + world.between(0, 2 * World.S), null, () -> back(machine));
          }
        } else if (world.chance(0.3)) {
          drain(one, lasts);
          world.after(lastsNs, null, () -> takeBack(one));
        } else {
          change();
        }
      }
    }
    world.after(world.between(300 * World.MS, 5 * World.S), null, this::fault);
  }

  private static void lossy(Network.Way way, double lost) {
    way.lost = lost;
    way.doubled = lost / 2;
  }

  private void way(
      Network.Machine from,
      Network.Machine to,
      long lastsNs,
      Consumer<Network.Way> worse,
      Consumer<Network.Way> better) {
    Network.Way way = network.way(from.name, to.name);
    worse.accept(way);
    world.after(lastsNs, null, () -> better.accept(way));
  }

  /** An operator wants a machine free; whoever restarts it ends that, too. */
  private void drain(Network.Machine one, String lasts) {
    SimulatedNode process = anyone().running();
    if (process != null && process.started()) {
      tell("drain " + one.name + " for " + lasts);
      drained.add(one.name);
      var _ =
          process
              .threads()
              .start(
                  "operator",
                  () -> {
                    try {
                      List<String> _ =
                          process.serving().deployments().drain(one.name, Duration.ofSeconds(5));
                    } catch (FlotillaException e) {
                      checkRefusal(e);
                    } catch (InterruptedException e) {
                      throw new Violation("interrupted", e);
                    }
                  });
    }
  }

  private void takeBack(Network.Machine one) {
    SimulatedNode process = anyone().running();
    if (process != null && process.started()) {
      var _ =
          process
              .threads()
              .start(
                  "operator",
                  () -> {
                    try {
                      process.drain(one.name, false);
                    } catch (FlotillaException e) {
                      checkRefusal(e);
                    }
                  });
    }
  }

  /** As often as it takes. */
  private void takeAllBack(SimulatedNode process) {
    try {
      for (String name : drained) {
        boolean back = false;
        while (!back) {
          try {
            process.drain(name, false);
            back = true;
          } catch (FlotillaException e) {
            checkRefusal(e);
            process.threads().sleep(World.S);
          }
        }
      }
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  private void back(Network.Machine machine) {
    if (machine.running() == null) {
      tell(machine.name + " is back");
      begin(machine);
    }
  }

  private void mend() {
    tell("all is mended");
    for (Network.Machine one : network.machines()) {
      one.disk.slowUntilNs = 0;
      for (Network.Machine other : network.machines()) {
        Network.Way way = network.way(one.name, other.name);
        way.cut = false;
        way.slowNs = 0;
        lossy(way, 0);
      }
      if (one.running() == null) {
        begin(one);
      }
    }
  }

  // Work.

  private static Registry.Key deployment(String model) {
    return new Registry.Key("deployment", model);
  }

  /** Whether all that is to be served is wanted. */
  private boolean offered() {
    return models.stream().allMatch(m -> group.truth().entries().get(deployment(m)) != null);
  }

  private String anyModel() {
    return models.get(world.random.nextInt(models.size()));
  }

  private Deployments.Wanted wanted(String model) {
    int stages = poor ? 2 + world.random.nextInt(2) : 1 + world.random.nextInt(3);
    int replicas = poor ? 1 : 1 + world.random.nextInt(2);
    return new Deployments.Wanted(
        model,
        replicas,
        Math.min(stages, nodes),
        1,
        world.chance(0.5) ? "least_load" : "round_robin",
        true,
        Engine.of("f32", "f32", world.chance(0.3), ""),
        replicas * stages <= nodes && replicas > 1 && world.chance(0.7) ? 1 : 0);
  }

  /** An operator wants something else. */
  private void change() {
    SimulatedNode process = anyone().running();
    if (process == null || !process.started() || !offered()) {
      return;
    }
    String model = anyModel();
    Deployments.Wanted now = wanted(model);
    boolean away = world.chance(0.2);
    tell(
        model
            + (away ? " is wanted no more, then: " : " is wanted: ")
            + now.replicas()
            + " replicas of "
            + now.stages()
            + " stages");
    var _ =
        process
            .threads()
            .start(
                "operator",
                () -> {
                  try {
                    if (away) {
                      process.serving().deployments().remove(model);
                      process.threads().sleep(world.between(World.MS, 4 * World.S));
                    }
                    process.serving().deployments().deploy(now);
                  } catch (FlotillaException e) {
                    checkRefusal(e);
                  } catch (InterruptedException e) {
                    throw new Violation("interrupted", e);
                  }
                });
  }

  /** What the cluster may say when it is in trouble. */
  private void checkRefusal(FlotillaException e) {
    switch (e.code()) {
      case UNAVAILABLE, BUSY, NO_MAJORITY, OUTCOME_UNKNOWN, CONFLICT, NOT_FOUND -> {}
      default -> world.fail(new Violation("refused with " + e.code() + ": " + e.getMessage(), e));
    }
  }

  private void work(SimulatedNode process) {
    try {
      while (!process.started()) {
        process.threads().sleep(50 * World.MS);
      }
      if (!begun) {
        begun = true;
        offer(process);
      }
      while (world.nowNs() < FAULTS_NS + 3 * World.S) {
        process.threads().sleep(world.between(20 * World.MS, 2 * World.S));
        var _ = process.threads().start("request", () -> ask(process));
      }
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  /** An operator took it away, and died before it was there again. */
  private void offerAgain(SimulatedNode process) {
    try {
      while (!process.started()) {
        process.threads().sleep(50 * World.MS);
      }
      offer(process);
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  private void offer(SimulatedNode process) throws InterruptedException {
    for (String model : models) {
      while (process.registry().get(deployment(model)).isEmpty()) {
        try {
          Registry.Write entry = ToyModel.entry(model);
          Optional<Long> _ =
              process
                  .registry()
                  .commit(List.of(new Registry.Condition(entry.key(), 0)), List.of(entry));
          process.serving().deployments().deploy(wanted(model));
        } catch (FlotillaException e) {
          checkRefusal(e);
          process.threads().sleep(World.S);
        }
      }
    }
  }

  private void ask(SimulatedNode process) {
    int[] prompt = new int[1 + world.random.nextInt(world.chance(0.2) ? 130 : 30)];
    int shared = world.chance(0.5) ? prompt.length * 2 / 3 : 0; // so that beginnings are found
    for (int i = 0; i < prompt.length; i++) {
      prompt[i] = i < shared ? i % ToyModel.WORDS : world.random.nextInt(ToyModel.WORDS);
    }
    if (world.chance(0.1)) {
      embed(process, prompt);
      return;
    }
    SamplingParameters sampling =
        world.chance(0.5)
            ? SamplingParameters.GREEDY
            : new SamplingParameters(0.8f, 0.9f, 20, world.random.nextLong());
    Optional<String> grammar = world.chance(0.25) ? Optional.of(GRAMMAR) : Optional.empty();
    int[] ends =
        grammar.isPresent()
            ? new int[] {GRAMMAR_END}
            : world.chance(0.2) ? new int[] {world.random.nextInt(ToyModel.WORDS)} : new int[0];
    int tokens = 1 + world.random.nextInt(world.chance(0.2) ? 120 : 40);
    Priority priority = world.chance(0.2) ? Priority.HIGH : Priority.NORMAL;
    Claim claim = new Claim("t" + world.random.nextInt(3), priority);
    String id = "r" + requests++;
    GenerationRequest request =
        new GenerationRequest(
            id + "-0", anyModel(), prompt, sampling, tokens, ends, grammar, claim);
    Stream stream =
        new Stream(
            process,
            id,
            claim.tenant(),
            ToyModel.text(request),
            grammar.isPresent(),
            world.chance(0.05));
    streams.add(stream);
    boolean leaves = world.chance(0.1);
    Connection connection = new Connection(stream);
    stream.connection = connection;
    Kept kept =
        process
            .serving()
            .answers()
            .open(AnswerValue.of(id, new byte[0], List.of(request)), connection::takenAway);
    connection.kept = kept;
    try {
      Generator.Generation generation = process.serving().generator().start(request, connection);
      connection.generation = generation;
      stream.taken(generation);
      boolean _ = kept.awaitCopy(COPY_NS);
      connection.show();
      if (leaves) {
        world.after(world.between(0, 500 * World.MS), process, stream::leave);
      }
    } catch (FlotillaException e) {
      kept.forget();
      stream.refused(e);
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  /** A reader comes back, to whatever node. */
  private void comeBack(Stream stream, int absence) {
    if (stream.ended || stream.absences != absence) {
      return;
    }
    SimulatedNode process = anyone().running();
    if (world.nowNs() - stream.lastNs > READER_NS) {
      stream.lost();
    } else if (process == null || !process.started()) {
      comeBackLater(stream, absence);
    } else {
      stream.gateway = process;
      var _ = process.threads().start("reader", () -> readOn(stream, process, absence));
    }
  }

  private void comeBackLater(Stream stream, int absence) {
    world.after(200 * World.MS, null, () -> comeBack(stream, absence));
  }

  private void readOn(Stream stream, SimulatedNode process, int absence) {
    Connection connection = new Connection(stream);
    try {
      Kept kept =
          process
              .serving()
              .answers()
              .take(stream.id, stream.tenant, value -> {}, connection::takenAway);
      if (stream.ended || stream.absences != absence) {
        kept.close();
        return;
      }
      tally.returned++;
      AnswerValue value = kept.value();
      AnswerValue.Progress progress = value.progress().getFirst();
      List<Integer> had = Arrays.stream(progress.tokens()).boxed().toList();
      if (had.size() > stream.expected.size()
          || !had.equals(stream.expected.subList(0, had.size()))) {
        throw new Violation("a copy has " + had + " of a stream of " + stream.expected);
      }
      connection.kept = kept;
      connection.tokens.addAll(had);
      stream.connection = connection;
      if (progress.end().isPresent()) {
        connection.end = progress.end();
      } else {
        connection.generation =
            process
                .serving()
                .generator()
                .resume(value.requests().getFirst(), progress.tokens(), connection);
      }
      boolean _ = kept.awaitCopy(COPY_NS);
      connection.show();
    } catch (FlotillaException e) {
      checkRefusal(e);
      connection.close();
      if (stream.ended || stream.absences != absence) {
        return;
      }
      stream.connection = null;
      if (e.code() == FlotillaException.Code.NOT_FOUND) {
        stream.lost();
      } else {
        comeBackLater(stream, absence);
      }
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  /**
   * What a reader hears from one node, of which it may have some. Nothing is shown before another
   * node knows of the stream, or that takes too long.
   */
  private final class Connection implements Generator.Sink {
    private final Stream stream;
    private final List<Integer> tokens = new ArrayList<>();
    private @Nullable Kept kept;
    private Generator.@Nullable Generation generation;
    private Optional<Generator.FinishReason> end = Optional.empty();
    private boolean shown;

    Connection(Stream stream) {
      this.stream = stream;
    }

    void show() {
      shown = true;
      deliver();
    }

    private void deliver() {
      if (!shown || stream.connection != this) {
        return;
      }
      while (stream.received < tokens.size() && !stream.ended) {
        stream.token(tokens.get(stream.received));
      }
      if (end.isPresent() && !stream.ended) {
        close();
        stream.finished(end.get());
      }
    }

    void close() {
      if (kept != null) {
        kept.close();
      }
    }

    /** Its reader reads on elsewhere. */
    void takenAway() {
      if (generation != null) {
        generation.cancel();
      }
    }

    @Override
    public void token(int token) {
      if (end.isPresent()) {
        world.fail(new Violation("a token came after the end"));
      }
      tokens.add(token);
      if (kept != null) {
        kept.token(0, token);
      }
      deliver();
    }

    @Override
    public void finished(Generator.FinishReason reason) {
      if (end.isPresent()) {
        world.fail(new Violation("a stream ended twice"));
      }
      end = Optional.of(reason);
      if (kept != null) {
        kept.ended(0, reason);
      }
      deliver();
    }

    @Override
    public void failed(FlotillaException error) {
      close();
      if (stream.connection == this && !stream.ended) {
        stream.failed(error);
      }
    }
  }

  private void embed(SimulatedNode process, int[] text) {
    Pooling pooling = world.chance(0.5) ? Pooling.MEAN : Pooling.LAST;
    Vector vector = new Vector(process, ToyModel.vector(text, pooling));
    vectors.add(vector);
    try {
      Runnable _ =
          process
              .serving()
              .embedder()
              .embed(
                  new EmbeddingRequest("e" + requests++, anyModel(), text, pooling, Claim.NOBODY),
                  vector);
    } catch (FlotillaException e) {
      vector.failed(e);
    }
  }

  /** A text to embed, and who waits for it. */
  private final class Vector implements Embedder.Sink {
    private final SimulatedNode gateway;
    private final float[] expected;
    private boolean ended;

    Vector(SimulatedNode gateway, float[] expected) {
      this.gateway = gateway;
      this.expected = expected;
    }

    boolean open() {
      return !ended && !gateway.down;
    }

    private void end() {
      if (ended) {
        world.fail(new Violation("an embedding came twice"));
      }
      ended = true;
    }

    @Override
    public void embedded(float[] vector) {
      end();
      tally.embedded++;
      if (!Arrays.equals(vector, expected)) {
        world.fail(new Violation("an embedding is another than it was"));
      }
    }

    @Override
    public void failed(FlotillaException error) {
      end();
      checkRefusal(error);
    }

    @Override
    public String toString() {
      return "an embedding at " + gateway.id() + " has no end";
    }
  }

  /** A request, and who reads its answer. */
  private final class Stream {
    private SimulatedNode gateway;
    private final String id;
    private final String tenant;
    private final List<Integer> expected;
    private final boolean held;
    private final boolean impatient;
    private @Nullable Connection connection;
    private int absences;
    private boolean accepted;
    private boolean ended;
    private boolean cancelling;
    private int received;
    private long lastNs = world.nowNs();

    Stream(
        SimulatedNode gateway,
        String id,
        String tenant,
        List<Integer> expected,
        boolean held,
        boolean impatient) {
      this.gateway = gateway;
      this.id = id;
      this.tenant = tenant;
      this.expected = expected;
      this.held = held;
      this.impatient = impatient;
    }

    boolean open() {
      return !ended;
    }

    @Override
    public String toString() {
      return "a stream of "
          + gateway.id()
          + ", "
          + (accepted ? "accepted" : "not accepted yet")
          + ", has "
          + received
          + " of "
          + expected.size()
          + " tokens and no end";
    }

    /** Its reader has no connection any more, and comes back if it had heard anything. */
    void cut() {
      boolean heard = absences > 0 || (connection != null && connection.shown);
      connection = null;
      int absence = ++absences;
      if (heard) {
        world.after(world.between(0, World.S), null, () -> comeBack(this, absence));
      } else {
        lost();
      }
    }

    void lost() {
      ended = true;
      tally.orphaned += accepted ? 1 : 0;
    }

    /** Its reader goes away; its node may notice that, or not. */
    void leave() {
      Connection left = connection;
      if (ended || left == null || !left.shown) {
        return;
      }
      cut();
      if (world.chance(0.5)) {
        left.close();
        left.takenAway();
      }
    }

    void taken(Generator.Generation generation) {
      accepted = true;
      tally.accepted++;
      if (impatient) {
        world.after(
            world.between(0, 500 * World.MS),
            gateway,
            () -> {
              cancelling = true;
              generation.cancel();
            });
      }
    }

    void refused(FlotillaException e) {
      end();
      tally.refused++;
      checkRefusal(e);
    }

    private void end() {
      if (ended) {
        world.fail(new Violation("a stream ended twice"));
      }
      ended = true;
    }

    void token(int token) {
      if (ended) {
        world.fail(new Violation("a token came after the end"));
      } else if (received >= expected.size() || expected.get(received) != token) {
        world.fail(
            new Violation(
                "token "
                    + token
                    + " came as number "
                    + received
                    + " of a stream of "
                    + expected
                    + " at "
                    + gateway.id()));
      }
      received++;
      tally.tokens++;
      tally.pauseNs = Math.max(tally.pauseNs, world.nowNs() - lastNs);
      lastNs = world.nowNs();
      world.note(token);
    }

    void finished(Generator.FinishReason reason) {
      end();
      if (reason == Generator.FinishReason.CANCELLED) {
        tally.cancelled++;
        if (!cancelling) {
          world.fail(new Violation("a stream was cancelled by nobody"));
        }
      } else {
        tally.finished++;
        tally.held += held ? 1 : 0;
        if (received != expected.size()) {
          world.fail(
              new Violation(
                  "a stream ended after " + received + " of " + expected.size() + " tokens"));
        }
      }
    }

    void failed(FlotillaException error) {
      end();
      tally.failed++;
      checkRefusal(error);
    }
  }

  private void lock(SimulatedNode process) {
    try {
      while (!process.started()) {
        process.threads().sleep(50 * World.MS);
      }
      while (world.nowNs() < FAULTS_NS + 20 * World.S) {
        process.threads().sleep(world.between(100 * World.MS, 3 * World.S));
        try {
          hold(process);
        } catch (FlotillaException e) {
          checkRefusal(e);
        }
      }
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  /** Takes a lock, and writes to what it guards for longer than it may have it. */
  private void hold(SimulatedNode process) throws InterruptedException {
    String name = "lock-" + world.random.nextInt(2);
    Optional<Lease> lease =
        process
            .locks()
            .lease(
                Locks.Request.exclusive(name, process.id())
                    .ttl(Duration.ofMillis(world.between(500, 3_000)))
                    .await(Duration.ofMillis(world.between(0, 4_000))));
    if (lease.isEmpty()) {
      return;
    }
    tally.leases++;
    try (Lease held = lease.get()) {
      for (int i = world.random.nextInt(6); i >= 0; i--) {
        byte[] token = Long.toString(held.fence().token()).getBytes(StandardCharsets.US_ASCII);
        Optional<Long> _ =
            Fencing.commit(
                process.registry(),
                "what " + name + " guards",
                Optional.of(held.fence()),
                List.of(),
                List.of(
                    new Registry.Write(
                        new Registry.Key(Checks.GUARDED, name), Optional.of(token))));
        tally.fencedWrites++;
        process.threads().sleep(world.between(10 * World.MS, World.S));
      }
    }
  }

  // What must be so in the end.

  private Optional<String> ill() {
    if (!offered()) {
      return Optional.of("nothing could be deployed");
    }
    for (Network.Machine machine : network.machines()) {
      SimulatedNode process = machine.running();
      if (process == null || !process.started()) {
        return Optional.of(machine.name + " is not back");
      }
      for (Deployments.DeploymentView view : process.serving().deployments().list()) {
        if (!view.state().equals("ready")) {
          return Optional.of(
              machine.name + " sees the deployment " + view.state() + ": " + view.reason());
        }
      }
    }
    return streams.stream()
        .filter(Stream::open)
        .map(Stream::toString)
        .findFirst()
        .or(() -> vectors.stream().filter(Vector::open).map(Vector::toString).findFirst());
  }
}
