package dev.flotilla.serve;

import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Rows;
import dev.flotilla.serve.proto.StepResult;
import dev.flotilla.text.TokenTrie;
import io.grpc.Status;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * The stages of a replica without any arithmetic: what is left is what a step costs on its way
 * through them. The first node has the head's part, the others one stage each; everything between
 * them is what serving uses.
 */
public final class StageChain implements AutoCloseable {

  private static final String REPLICA = "bench-0";
  private static final int PATIENCE_S = 30;

  private final List<StageHost> hosts;
  private final Chain chain;
  private final LinkedBlockingQueue<Object> arrived;
  private final int width;
  private final WireType wire;
  private long number;

  private StageChain(
      List<StageHost> hosts,
      Chain chain,
      LinkedBlockingQueue<Object> arrived,
      int width,
      WireType wire) {
    this.hosts = hosts;
    this.chain = chain;
    this.arrived = arrived;
    this.width = width;
    this.wire = wire;
  }

  /** The stages of one node; made before the cluster's node starts, since it adds services. */
  public static final class Part {
    private final StageHost host;

    /**
     * @param width of hidden states
     */
    public Part(Cluster cluster, int width) {
      host =
          new StageHost(
              cluster,
              new StageHost.Slices() {
                @Override
                public LayerSlice load(
                    Placement placement, int stage, AllReduce allReduce, LoadProgress progress) {
                  return new IdleSlice(
                      new ModelConfig(
                          8,
                          width,
                          placement.stages().size(),
                          1,
                          1,
                          32,
                          32,
                          32,
                          10_000,
                          1e-5f,
                          false),
                      placement.layers(stage));
                }

                @Override
                public LayerSlice draft(Placement placement) {
                  throw new IllegalStateException("no draft is wanted");
                }
              },
              new Grammars(model -> new TokenTrie(List.of())),
              new ServingMetrics(new SimpleMeterRegistry()),
              System::nanoTime);
      host.services().forEach(cluster::addService);
    }
  }

  /**
   * Places the stages on nodes that have started, and opens a chain from the first to the last.
   *
   * @param wire {@code f32} or {@code bf16}
   */
  public static StageChain open(List<Cluster> clusters, List<Part> parts, int width, String wire)
      throws InterruptedException {
    List<Deployments.StageView> stages = new ArrayList<>();
    for (int i = 0; i < clusters.size(); i++) {
      stages.add(new Deployments.StageView(clusters.get(i).self(), i, i));
    }
    Engine engine = Engine.of("f16", wire, false, "");
    Placement placement = new Placement(REPLICA, "bench", "", 32, engine, stages);
    Registry registry = clusters.getFirst().registry();
    long epoch =
        registry
            .commit(
                List.of(),
                List.of(
                    new Registry.Write(Placement.key(REPLICA), Optional.of(Json.write(placement)))))
            .orElseThrow();
    // The head's own node has no part in it: its head would open a chain of its own.
    List<StageHost> hosts = parts.stream().skip(1).map(part -> part.host).toList();
    hosts.forEach(StageHost::start);
    LinkedBlockingQueue<Object> arrived = new LinkedBlockingQueue<>();
    long untilNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
    while (true) {
      Chain chain =
          Chain.open(
              clusters.getFirst().channel(stages.get(1).node()),
              REPLICA,
              epoch,
              1,
              new Chain.Listener() {
                @Override
                public void opened(boolean copies) {
                  arrived.add("opened");
                }

                @Override
                public void result(StepResult result) {
                  arrived.add(result);
                }

                @Override
                public void broken(Status status) {
                  arrived.add(status);
                }
              });
      if ("opened".equals(arrived.poll(PATIENCE_S, TimeUnit.SECONDS))) {
        return new StageChain(hosts, chain, arrived, width, engine.wire());
      }
      if (System.nanoTime() > untilNs) {
        throw new IllegalStateException("the stages did not load");
      }
      Thread.sleep(100);
    }
  }

  /**
   * Sends a step and waits for its tokens.
   *
   * @return nanoseconds from the hidden states to the tokens
   */
  public long roundTripNs(int rows) throws InterruptedException {
    List<Rows.Run> runs = new ArrayList<>();
    List<Batch.Draw> draws = new ArrayList<>();
    for (int row = 0; row < rows; row++) {
      runs.add(new Rows.Run(new int[] {0}, 0, 1, false));
      draws.add(new Batch.Draw(row, 1, SamplingParameters.GREEDY, Optional.empty()));
    }
    Batch batch = new Batch(++number, new int[rows], new Rows(runs), draws, List.of(), new long[0]);
    float[] hidden = new float[rows * width];
    long startNs = System.nanoTime();
    chain.send(Wire.step(batch, hidden, List.of(), wire));
    Object answer = arrived.poll(PATIENCE_S, TimeUnit.SECONDS);
    long ns = System.nanoTime() - startNs;
    if (!(answer instanceof StepResult result) || result.getTokensCount() != rows) {
      throw new IllegalStateException("the chain answered " + answer);
    }
    return ns;
  }

  @Override
  public void close() {
    chain.close();
    hosts.forEach(StageHost::close);
  }
}
