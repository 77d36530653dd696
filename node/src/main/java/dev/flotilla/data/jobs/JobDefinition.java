package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.grid.Grid;
import java.util.List;
import java.util.function.BiConsumer;

/**
 * A kind of job: registered by name on every node when it is made, so that a job in the cluster is
 * a name and plain parameters, never code.
 *
 * <p>Tasks may run more than once, and on any node: they must depend on nothing but their payload
 * and what it names, change nothing, and heed interruption. What counts is the first result of each
 * task.
 */
public interface JobDefinition {

  /**
   * What a job has to work with on this node.
   *
   * @param grid the choke point to the data grid
   */
  record Context(Cluster cluster, Grid grid, Blobs blobs) {}

  /**
   * A part of the map phase.
   *
   * @param name unique in its job, letters, digits, dots and dashes
   * @param nodes where its data is, best first; may be empty
   * @param bound whether it means nothing on other nodes
   */
  record Task(String name, JsonNode payload, List<String> nodes, boolean bound) {}

  /** What it is called in {@code POST /api/jobs}. */
  String name();

  /** One line for people. */
  String description();

  /**
   * Cuts the work up, on the coordinator.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the input is not as it should be
   */
  List<Task> plan(Context context, JsonNode input);

  /**
   * Looks at an input before the job is taken, on the node that was asked: what cannot be done is
   * refused at once, and never fails later. Where planning is costly, look at the input alone.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the input is not as it should be
   */
  default void check(Context context, JsonNode input) {
    var _ = plan(context, input);
  }

  /** Does one task, and emits rows: a key and a value. Rows of equal keys are {@link #merge}d. */
  void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
      throws InterruptedException;

  /** Two values of one key as one; must not depend on the order of merging. */
  JsonNode merge(JsonNode first, JsonNode second);
}
