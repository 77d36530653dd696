package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.List;
import java.util.Map;

/**
 * Work over all nodes: a job is cut into tasks, each runs where its data is, and what they emit is
 * merged by key into a table.
 *
 * <p>A job survives the death of any node, its coordinator's included: what is done is not done
 * again. Errors: {@code INVALID} for an unknown job or bad input, {@code NOT_FOUND}, {@code
 * TOO_LARGE}, and those of the grid.
 */
public interface Jobs {

  /** The largest input, as JSON. */
  int INPUT_BYTES_MAX = 1 << 20;

  /**
   * A job as it stands.
   *
   * @param state {@code submitted}, {@code running}, {@code done}, {@code failed} or {@code
   *     cancelled}
   * @param reason of a failure
   * @param coordinator the node that coordinates it, or did last
   * @param tasks map and reduce tasks; 0 until it is planned
   * @param attempts tasks started, with those started again and copies of slow ones
   * @param copies second copies of slow tasks
   * @param rows of the result
   */
  record View(
      String id,
      String job,
      String state,
      String reason,
      String coordinator,
      int tasks,
      int done,
      int attempts,
      int copies,
      long rows,
      long createdAtMs,
      long updatedAtMs) {}

  /** A row of a result. */
  record Row(String key, JsonNode value) {}

  /** Names and descriptions of what can be run. */
  Map<String, String> definitions();

  /**
   * Starts a job, if its input is as it should be; returns its id at once.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} for an unknown job, or an input that
   *     names what there is not
   */
  String submit(String job, JsonNode input);

  /** A job. */
  View show(String id);

  /** All jobs, oldest first. */
  List<View> list();

  /**
   * Ends a job that runs; takes one that has ended out of the list, with its rows.
   *
   * @return its state after that; {@code deleted} if it was taken out
   */
  String cancel(String id);

  /**
   * The result's rows in the order of their keys; also the SQL table {@code flotilla_job_rows}, by
   * {@code id} = job's id, a slash, the key.
   *
   * @param after the last key of the page before, or empty
   */
  List<Row> rows(String id, String after, int limit);
}
