package dev.flotilla.serve;

import dev.flotilla.cluster.Cluster;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.text.Tokenizer;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.function.LongSupplier;

/**
 * Serving on one node: its models, its stages, the routing of requests that come in here, and the
 * controller's part for when this node leads.
 *
 * <p>Make it before the cluster starts, for it adds its services and its reconciler; start it after
 * the cluster, close it before.
 */
public final class Serving implements AutoCloseable {

  private final ModelStore models;
  private final ServingCore core;

  /**
   * @param dataFolder the node's data folder
   * @param threads that each slice on this node computes with
   * @param clock for what people read, such as a model's age
   * @param nanoTime for durations
   */
  public Serving(
      Cluster cluster,
      Path dataFolder,
      int threads,
      MeterRegistry meters,
      InstantSource clock,
      LongSupplier nanoTime) {
    ServingMetrics metrics = new ServingMetrics(meters);
    models = new ModelStore(cluster, dataFolder, threads, clock);
    cluster.addService(models.service());
    core =
        new ServingCore(
            cluster,
            new StageHost.Slices() {
              @Override
              public LayerSlice load(
                  Placement placement, int stage, AllReduce allReduce, LoadProgress progress) {
                return models.load(placement, stage, allReduce, progress);
              }

              @Override
              public LayerSlice draft(Placement placement) {
                return models.draft(placement);
              }
            },
            models::metadata,
            model -> Tokenizer.tokenTrie(models.metadata(model), model),
            meters,
            metrics,
            nanoTime);
  }

  /** Starts loading and answering; the cluster has started. */
  public void start() {
    models.start();
    core.start();
  }

  /** Continues token lists with deployed models. */
  public Generator generator() {
    return core.generator();
  }

  /** What is being answered here, and could be gone on with elsewhere. */
  public KeptAnswers answers() {
    return core.answers();
  }

  /** Embeds token lists with deployed models. */
  public Embedder embedder() {
    return core.embedder();
  }

  /** What is wanted to run, and what runs. */
  public Deployments deployments() {
    return core.deployments();
  }

  /** Grows with everything that this node computes for requests, or loads for them. */
  public long work() {
    return core.work();
  }

  /** The model files. */
  public ModelStore models() {
    return models;
  }

  /** Ends what runs here: requests that came in here fail, those of other nodes go on elsewhere. */
  @Override
  public void close() {
    core.close();
    models.close();
  }
}
