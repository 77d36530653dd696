package dev.flotilla.simulate;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Pings;
import dev.flotilla.cluster.Registry;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Engine;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Generator;
import dev.flotilla.serve.SamplingParameters;
import dev.flotilla.serve.proto.Accepted;
import dev.flotilla.serve.proto.Finished;
import dev.flotilla.serve.proto.GenerateEvent;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A cluster of many nodes and deployments as its leader sees it: the planner, the controller, the
 * failure detector, the registry and a router are the real ones; of the other nodes there is what
 * they say. Shows what the leader's own work costs, on this machine's clock.
 */
public final class LargeCluster {

  private static final String SELF = "leader";
  private static final int ENTRIES_AT_ONCE = 500;
  private static final int REQUESTS = 2_000;
  private static final double LOST = 0.01;
  private static final long PATIENCE_NS = 3_600 * World.S;

  /**
   * What it took.
   *
   * @param placeSeconds of computing, until all deployments were placed
   * @param placements so many decisions were made then
   * @param lost nodes that were lost at once
   * @param replanSeconds of computing, until nothing was on them any more
   * @param replanned so many replicas were placed anew
   * @param detectSeconds on the cluster's clock, from the loss until the first of them was placed
   * @param routesPerSecond requests that a router sent to a head
   * @param idlePassSeconds of computing, in a second in which nothing happens
   * @param placeBytes of commits, until all deployments were placed: what each node received
   * @param replanBytes the same, of the loss
   * @param stateBytes of the whole registry, which each node keeps
   */
  public record Figures(
      int nodes,
      int deployments,
      double placeSeconds,
      long placements,
      int lost,
      double replanSeconds,
      long replanned,
      double detectSeconds,
      double routesPerSecond,
      double idlePassSeconds,
      long placeBytes,
      long replanBytes,
      long stateBytes) {}

  private final int nodes;
  private final int deployments;
  private final World world = new World(1);
  private final Network network = new Network(world, List.of(SELF));
  private final Checks checks = new Checks(world);
  private final Group group = new Group(world, network, List.of(SELF), 1, checks);
  private final Set<String> lost = new HashSet<>();
  private final SimulatedNode leader;

  private LargeCluster(int nodes, int deployments) {
    this.nodes = nodes;
    this.deployments = deployments;
    this.leader =
        new SimulatedNode(
            world,
            new Others(),
            group,
            network.machine(SELF),
            SELF + "#1",
            Map.of("memory_bytes", 1.0, "weight_bytes_per_second", 1e9),
            new ToyModel(world, 8, World.MS, World.MS, 0));
  }

  /** Builds it, loses some of it, and routes requests. */
  public static Figures run(int nodes, int deployments) {
    return World.run("cluster", () -> new LargeCluster(nodes, deployments).run());
  }

  /** The other nodes: they answer, unless they are lost, and take every request. */
  private final class Others implements Reach {

    @Override
    public void ping(SimulatedNode from, NodeInfo node, Consumer<Pings.Outcome> outcome) {
      boolean gone = lost.contains(node.id());
      world.after(
          gone ? 1_500 * World.MS : World.MS,
          from,
          () -> outcome.accept(gone ? new Pings.Silent() : new Pings.Answered(node.incarnation())));
    }

    @Override
    public ManagedChannel channel(SimulatedNode from, String node) {
      return new TakingChannel();
    }

    @Override
    public void ended(SimulatedNode process) {
      // It does not.
    }
  }

  private Figures run() {
    leader.start();
    until("the leader acts", () -> leader.started() && checks.controllers() > 0);
    List<Registry.Write> entries = new ArrayList<>();
    Random random = new Random(1);
    for (int i = 1; i < nodes; i++) {
      NodeInfo info =
          new NodeInfo(
              "n" + i,
              "n" + i,
              "n" + i,
              8000,
              "0.1.0",
              1,
              1,
              NodeInfo.State.UP,
              Map.of(
                  "memory_bytes",
                  ToyModel.bytes() * (0.4 + random.nextInt(5) * 0.4),
                  "weight_bytes_per_second",
                  1e10 + random.nextInt(10) * 4e9));
      entries.add(
          new Registry.Write(new Registry.Key("node", "n" + i), Optional.of(Json.write(info))));
    }
    for (int i = 0; i < deployments; i++) {
      entries.add(ToyModel.entry(model(i)));
    }
    write(entries);
    entries.clear();
    for (int i = 0; i < deployments; i++) {
      Deployments.Wanted wanted =
          new Deployments.Wanted(model(i), 1, 1 + i % 3, "least_load", true, Engine.DEFAULT);
      entries.add(
          new Registry.Write(
              new Registry.Key("deployment", model(i)), Optional.of(Json.write(wanted))));
    }
    long before = group.bytesDecided();
    long startNs = System.nanoTime();
    write(entries);
    until("all is placed", () -> checks.placements() >= deployments);
    final double placeSeconds = seconds(startNs);
    final long placeBytes = group.bytesDecided() - before;
    final double idle = idlePass();
    final double routes = routes();

    List<String> used = new ArrayList<>(used());
    before = group.bytesDecided();
    long placed = checks.placements();
    for (int i = 0; i < Math.max(1, (int) (nodes * LOST)); i++) {
      lost.add(i < used.size() && i % 2 == 0 ? used.get(i) : "n" + (1 + random.nextInt(nodes - 1)));
    }
    startNs = System.nanoTime();
    long lostNs = world.nowNs();
    until("the loss is noticed", () -> checks.placements() > placed);
    final double detect = (world.nowNs() - lostNs) / 1e9;
    until("nothing is on what is lost", () -> used().stream().noneMatch(lost::contains));
    return new Figures(
        nodes,
        deployments,
        placeSeconds,
        deployments,
        lost.size(),
        seconds(startNs),
        checks.placements() - placed,
        detect,
        routes,
        idle,
        placeBytes,
        group.bytesDecided() - before,
        group.truth().toSnapshot().length);
  }

  private static String model(int number) {
    return "m" + number;
  }

  private static double seconds(long sinceNs) {
    return (System.nanoTime() - sinceNs) / 1e9;
  }

  private void until(String what, BooleanSupplier reached) {
    long endNs = world.nowNs() + PATIENCE_NS;
    while (!reached.getAsBoolean()) {
      if (world.nowNs() > endNs) {
        throw new Violation("in vain: " + what);
      }
      world.run(50 * World.MS);
    }
  }

  private void write(List<Registry.Write> entries) {
    boolean[] done = {false};
    var _ =
        leader
            .threads()
            .start(
                "writes",
                () -> {
                  for (int i = 0; i < entries.size(); i += ENTRIES_AT_ONCE) {
                    Optional<Long> _ =
                        leader
                            .registry()
                            .commit(
                                List.of(),
                                entries.subList(i, Math.min(entries.size(), i + ENTRIES_AT_ONCE)));
                  }
                  done[0] = true;
                });
    until("entries are written", () -> done[0]);
  }

  /** The nodes that have layers. */
  private Set<String> used() {
    Set<String> used = new LinkedHashSet<>();
    for (Registry.Entry entry : leader.registry().list("placement")) {
      Json.read(entry.value(), JsonNode.class)
          .path("stages")
          .forEach(stage -> used.add(stage.path("node").asText()));
    }
    return used;
  }

  /** What a second without news costs the leader. */
  private double idlePass() {
    world.run(2 * World.S);
    long startNs = System.nanoTime();
    world.run(5 * World.S);
    return seconds(startNs) / 5;
  }

  private double routes() {
    List<Registry.Write> ready = new ArrayList<>();
    for (Registry.Entry entry : leader.registry().list("placement")) {
      ready.add(
          new Registry.Write(
              new Registry.Key("replica-status", entry.key().name()),
              Optional.of(
                  Json.write(Map.of("epoch", entry.epoch(), "state", "ready", "reason", "")))));
    }
    checks.trust(SELF + "#1");
    write(ready);
    int[] ended = {0};
    double[] took = {0};
    var _ =
        leader
            .threads()
            .start(
                "requests",
                () -> {
                  long startNs = System.nanoTime();
                  for (int i = 0; i < REQUESTS; i++) {
                    ask(model(i % deployments), i, ended);
                  }
                  took[0] = seconds(startNs);
                });
    until("requests are answered", () -> ended[0] == REQUESTS && took[0] > 0);
    return REQUESTS / took[0];
  }

  private void ask(String model, int number, int[] ended) {
    Generator.Generation _ =
        leader
            .serving()
            .generator()
            .start(
                new GenerationRequest(
                    "r" + number,
                    model,
                    new int[] {1, 2, 3},
                    SamplingParameters.GREEDY,
                    1,
                    new int[0],
                    Optional.empty(),
                    Claim.NOBODY),
                new Generator.Sink() {
                  @Override
                  public void token(int token) {}

                  @Override
                  public void finished(Generator.FinishReason reason) {
                    ended[0]++;
                  }

                  @Override
                  public void failed(FlotillaException error) {
                    world.fail(new Violation("a request failed", error));
                  }
                });
  }

  /** To a head that takes every request and has nothing to say. */
  private static final class TakingChannel extends OpenChannel {

    @Override
    public <Q, R> ClientCall<Q, R> newCall(MethodDescriptor<Q, R> method, CallOptions options) {
      return new ClientCall<>() {
        private @Nullable Listener<R> listener;

        @Override
        public void start(Listener<R> responses, Metadata headers) {
          listener = responses;
        }

        @Override
        public void request(int messages) {}

        @Override
        public void cancel(@Nullable String message, @Nullable Throwable cause) {}

        @Override
        @SuppressWarnings("unchecked") // only generations are asked for
        public void halfClose() {
          Listener<R> end = listener;
          if (end != null) {
            end.onMessage(
                (R) GenerateEvent.newBuilder().setAccepted(Accepted.getDefaultInstance()).build());
            end.onMessage(
                (R)
                    GenerateEvent.newBuilder()
                        .setFinished(Finished.newBuilder().setReason("LENGTH"))
                        .build());
            end.onClose(Status.OK, new Metadata());
          }
        }

        @Override
        public void sendMessage(Q message) {}
      };
    }

    @Override
    public String authority() {
      return "";
    }
  }
}
