package dev.flotilla.serve;

import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.LayerRange;
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
 * The ranks of a tensor-parallel replica without any arithmetic but the sums: what is left is what
 * a sum costs. This process is rank 0; everything between the ranks is what serving uses.
 */
public final class SumChain implements AutoCloseable {

  private static final String REPLICA = "bench-0";
  private static final int PATIENCE_S = 30;

  private final List<StageHost> hosts;
  private final Followers followers;
  private final RankSums sums;
  private final int width;
  private final int sumsInStep;
  private long number;

  private SumChain(
      List<StageHost> hosts, Followers followers, RankSums sums, int width, int sumsInStep) {
    this.hosts = hosts;
    this.followers = followers;
    this.sums = sums;
    this.width = width;
    this.sumsInStep = sumsInStep;
  }

  /** One node's part; made before the cluster's node starts, since it adds services. */
  public static final class Part {
    private final StageHost host;

    /**
     * @param width of hidden states
     * @param sumsInStep how many sums a step has
     */
    public Part(Cluster cluster, int width, int sumsInStep) {
      host =
          new StageHost(
              cluster,
              new StageHost.Slices() {
                @Override
                public LayerSlice load(
                    Placement placement, int stage, AllReduce allReduce, LoadProgress progress) {
                  return new Summing(width, allReduce, sumsInStep);
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

  /** Places the ranks on nodes that have started, and opens the chains between them. */
  public static SumChain open(List<Cluster> clusters, List<Part> parts, int width, int sumsInStep)
      throws InterruptedException {
    List<Deployments.StageView> ranks =
        clusters.stream().map(c -> new Deployments.StageView(c.self(), 0, 0)).toList();
    List<Placement.Share> shares = clusters.stream().map(c -> new Placement.Share(1, 32)).toList();
    Placement placement = new Placement(REPLICA, "bench", "", 32, Engine.DEFAULT, ranks, shares);
    Registry registry = clusters.getFirst().registry();
    long epoch =
        registry
            .commit(
                List.of(),
                List.of(
                    new Registry.Write(Placement.key(REPLICA), Optional.of(Json.write(placement)))))
            .orElseThrow();
    // Rank 0's own node has no part in it: its head would open chains of its own.
    List<StageHost> hosts = parts.stream().skip(1).map(part -> part.host).toList();
    hosts.forEach(StageHost::start);
    RankSums sums = new RankSums(0, clusters.size());
    Followers followers =
        new Followers(
            sums,
            (rank, listener) ->
                Chain.open(
                    clusters.getFirst().channel(ranks.get(rank).node()),
                    REPLICA,
                    epoch,
                    rank,
                    listener));
    long untilNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
    while (true) {
      LinkedBlockingQueue<Object> heard = new LinkedBlockingQueue<>();
      followers.open(
          new Chain.Listener() {
            @Override
            public void opened(boolean copies) {
              heard.add("opened");
            }

            @Override
            public void result(StepResult result) {}

            @Override
            public void broken(Status status) {
              heard.add(status);
            }
          });
      if ("opened".equals(heard.poll(PATIENCE_S, TimeUnit.SECONDS))) {
        return new SumChain(hosts, followers, sums, width, sumsInStep);
      }
      if (System.nanoTime() > untilNs) {
        throw new IllegalStateException("the ranks did not load");
      }
      Thread.sleep(100);
    }
  }

  /**
   * Makes a step.
   *
   * @return nanoseconds of each of its sums, at rank 0
   */
  public List<Long> stepNs(int rows) {
    List<Rows.Run> runs = new ArrayList<>();
    for (int row = 0; row < rows; row++) {
      runs.add(new Rows.Run(new int[] {0}, 0, 1, false));
    }
    Batch batch =
        new Batch(++number, new int[rows], new Rows(runs), List.of(), List.of(), new long[0]);
    float[] hidden = new float[rows * width];
    followers.send(Wire.step(batch, hidden, List.of(), WireType.F32));
    List<Long> each = new ArrayList<>();
    for (int i = 0; i < sumsInStep; i++) {
      long startNs = System.nanoTime();
      sums.sum(hidden);
      each.add(System.nanoTime() - startNs);
    }
    return each;
  }

  @Override
  public void close() {
    followers.close();
    hosts.forEach(StageHost::close);
  }

  /** Layers that do nothing but sum. */
  private static final class Summing extends IdleSlice {

    private final AllReduce allReduce;
    private final int sums;

    Summing(int width, AllReduce allReduce, int sums) {
      super(
          new ModelConfig(8, width, 1, 8, 8, 32, 256, 32, 10_000, 1e-5f, false),
          new LayerRange(0, 0));
      this.allReduce = allReduce;
      this.sums = sums;
    }

    @Override
    public void forward(float[] hidden, Rows rows) {
      for (int i = 0; i < sums; i++) {
        allReduce.sum(hidden);
      }
    }
  }
}
