package dev.flotilla.serve;

import dev.flotilla.cluster.Cluster;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.text.TokenTrie;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.Map;
import java.util.function.Function;
import java.util.function.LongSupplier;

/**
 * What of serving decides: stages by placement, the routing of requests, and the controller's part.
 * Knows neither sockets nor disks: the cluster brings calls and threads, a real node's or a
 * simulated one's, and slices come from whoever has them.
 *
 * <p>Make it before the cluster starts, for it adds its services and its reconciler; start it after
 * the cluster, close it before.
 */
public final class ServingCore implements AutoCloseable {

  /**
   * Plants a bug: the first token after a request went on elsewhere is delivered twice. For the
   * simulator, which must find it; never set it otherwise.
   */
  public static final String DOUBLE_A_TOKEN = "flotilla.fault.double-a-token";

  private final StageHost stages;
  private final Router router;
  private final DeploymentService deployments;
  private final KeptAnswers answers;

  /** Where a simulated node has its layers from. */
  @FunctionalInterface
  public interface Layers {

    /**
     * Loads some; may take long.
     *
     * @throws dev.flotilla.FlotillaException if they cannot be had now; it is tried again
     */
    LayerSlice load(LayerRange layers, int cachePositions);
  }

  /**
   * Of a node that has nothing but layers: no files, no drafts.
   *
   * @param vocabulary of a model, by its name
   */
  public ServingCore(
      Cluster cluster,
      Layers layers,
      Function<String, TokenTrie> vocabulary,
      MeterRegistry meters) {
    this(
        cluster,
        new StageHost.Slices() {
          @Override
          public LayerSlice load(
              Placement placement, int stage, AllReduce allReduce, LoadProgress progress) {
            return layers.load(placement.layers(stage), placement.cachePositions());
          }

          @Override
          public LayerSlice draft(Placement placement) {
            throw new IllegalStateException("no draft model is wanted");
          }
        },
        model -> Map.of(),
        vocabulary,
        meters,
        new ServingMetrics(meters),
        cluster.threads()::nanoTime);
  }

  /**
   * @param metadata of a model, by its name
   * @param vocabulary likewise
   */
  ServingCore(
      Cluster cluster,
      StageHost.Slices slices,
      Function<String, Map<String, Object>> metadata,
      Function<String, TokenTrie> vocabulary,
      MeterRegistry meters,
      ServingMetrics metrics,
      LongSupplier nanoTime) {
    stages = new StageHost(cluster, slices, new Grammars(vocabulary), metrics, nanoTime);
    router = new Router(cluster, metrics, nanoTime);
    deployments = new DeploymentService(cluster, metadata, nanoTime);
    answers = new KeptAnswers(cluster, meters);
    stages.services().forEach(cluster::addService);
    cluster.addReconciler(deployments);
  }

  /** Starts loading and answering; the cluster has started. */
  public void start() {
    stages.start();
    router.start();
  }

  /** Continues token lists with deployed models. */
  public Generator generator() {
    return router;
  }

  /** What is being answered here, and could be gone on with elsewhere. */
  public KeptAnswers answers() {
    return answers;
  }

  /** Embeds token lists with deployed models. */
  public Embedder embedder() {
    return router;
  }

  /** What is wanted to run, and what runs. */
  public Deployments deployments() {
    return deployments;
  }

  /** Grows with everything that this node computes for requests, or loads for them. */
  long work() {
    return stages.work();
  }

  /** Ends what runs here: requests that came in here fail, those of other nodes go on elsewhere. */
  @Override
  public void close() {
    router.close();
    answers.close();
    stages.close();
  }
}
