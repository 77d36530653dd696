package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import javax.cache.Cache;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.QueryEntity;
import org.apache.ignite.cache.query.QueryCursor;
import org.apache.ignite.cache.query.ScanQuery;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.configuration.CacheConfiguration;

/** Jobs in the grid: their records, what their tasks gave, and the rows of their results. */
final class JobStore {

  static final String SUBMITTED = "submitted";
  static final String RUNNING = "running";
  static final String DONE = "done";
  static final String FAILED = "failed";
  static final String CANCELLED = "cancelled";

  /**
   * A job; {@code plan} is empty until it is planned.
   *
   * @param setbacks how often in a row its coordination broke off without a task getting done
   */
  record JobRecord(
      String id,
      String job,
      JsonNode input,
      String state,
      String reason,
      String coordinator,
      List<JobDefinition.Task> plan,
      int buckets,
      int done,
      int attempts,
      int copies,
      long rows,
      int setbacks,
      long createdAtMs,
      long updatedAtMs) {

    boolean ended() {
      return !state.equals(SUBMITTED) && !state.equals(RUNNING);
    }

    Jobs.View view() {
      return new Jobs.View(
          id,
          job,
          state,
          reason,
          coordinator,
          plan.isEmpty() ? 0 : plan.size() + buckets,
          done,
          attempts,
          copies,
          rows,
          createdAtMs,
          updatedAtMs);
    }
  }

  private static final String JOBS = "flotilla.jobs";
  private static final String OUTPUTS = "flotilla.job-outputs";

  /** Ids of jobs that have not ended, written with their records. */
  private static final String OPEN = "flotilla.jobs-open";

  static final String ROWS = "flotilla.job-rows";
  private static final String ROWS_TABLE = "FLOTILLA_JOB_ROWS";
  private static final int ROWS_PER_TRANSACTION = 500;

  private final Grid grid;
  private final Fences fences;

  JobStore(Grid grid, Fences fences) {
    this.grid = grid;
    this.fences = fences;
    grid.onStart(
        ignite -> {
          ignite.getOrCreateCache(grid.<String, byte[]>cacheConfig(JOBS));
          ignite.getOrCreateCache(grid.<String, byte[]>cacheConfig(OUTPUTS));
          ignite.getOrCreateCache(grid.<String, Boolean>cacheConfig(OPEN));
          ignite.getOrCreateCache(rowsConfig(grid));
        });
  }

  static CacheConfiguration<String, String> rowsConfig(Grid grid) {
    return grid.<String, String>cacheConfig(ROWS)
        .setSqlSchema("PUBLIC")
        .setQueryEntities(
            List.of(
                new QueryEntity(String.class, String.class)
                    .setTableName(ROWS_TABLE)
                    .setKeyFieldName("ID")
                    .setValueFieldName("DATA")
                    .addQueryField("ID", String.class.getName(), "ID")
                    .addQueryField("DATA", String.class.getName(), "DATA")));
  }

  Optional<JobRecord> find(String id) {
    return grid.read(
        "reading job " + id, ignite -> Optional.ofNullable(decode(jobs(ignite).get(id))));
  }

  private static @org.jspecify.annotations.Nullable JobRecord decode(
      byte @org.jspecify.annotations.Nullable [] value) {
    return value == null ? null : Json.read(value, JobRecord.class);
  }

  List<JobRecord> all() {
    return grid.read(
        "listing jobs",
        ignite -> {
          List<JobRecord> all = new ArrayList<>();
          try (QueryCursor<Cache.Entry<String, byte[]>> entries =
              jobs(ignite).query(new ScanQuery<String, byte[]>())) {
            entries.forEach(e -> all.add(Json.read(e.getValue(), JobRecord.class)));
          }
          return all;
        });
  }

  void create(JobRecord job) {
    grid.transact(
        "submitting job " + job.job(),
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          jobs(ignite).put(job.id(), Json.write(job));
          open(ignite).put(job.id(), true);
          return job;
        });
  }

  /** Jobs that have not ended, of those that this node is the first to keep. */
  List<String> openHere() {
    return grid.read(
        "looking for jobs",
        ignite -> {
          List<String> ids = new ArrayList<>();
          try (QueryCursor<Cache.Entry<String, Boolean>> entries =
              open(ignite).query(new ScanQuery<String, Boolean>().setLocal(true))) {
            entries.forEach(e -> ids.add(e.getKey()));
          }
          return ids;
        });
  }

  /**
   * Changes a record that has not ended.
   *
   * @return what it is now
   * @throws FlotillaException {@code CONFLICT} for a coordinator that was replaced
   */
  JobRecord update(
      String id, Optional<Fence> fence, java.util.function.UnaryOperator<JobRecord> change) {
    return grid.transact(
        "updating job " + id,
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          fences.check(ignite, "job " + id, fence);
          JobRecord before = decode(jobs(ignite).get(id));
          if (before == null) {
            throw notFound(id);
          }
          JobRecord after = before.ended() ? before : change.apply(before);
          if (!after.equals(before)) {
            jobs(ignite).put(id, Json.write(after));
          }
          if (after.ended()) {
            open(ignite).remove(id);
          }
          return after;
        });
  }

  static FlotillaException notFound(String id) {
    return new FlotillaException(Code.NOT_FOUND, "no job " + id, "`flotilla jobs list` shows all.");
  }

  /** Which tasks have given their result. */
  Set<String> done(JobRecord job) {
    return grid.read(
        "reading job " + job.id(),
        ignite -> {
          Set<String> keys = new LinkedHashSet<>();
          job.plan().forEach(task -> keys.add(doneKey(job.id(), task.name())));
          for (int i = 0; i < job.buckets(); i++) {
            keys.add(doneKey(job.id(), reduceName(i)));
          }
          Set<String> done = new LinkedHashSet<>();
          outputs(ignite)
              .getAll(keys)
              .keySet()
              .forEach(key -> done.add(key.substring(key.lastIndexOf('/') + 1)));
          return done;
        });
  }

  static String reduceName(int bucket) {
    return "reduce-" + bucket;
  }

  private static String doneKey(String id, String task) {
    return id + "/done/" + task;
  }

  private static String outputKey(String id, String task, int bucket) {
    return id + "/" + bucket + "/" + task;
  }

  /** Keeps a map task's outputs, unless another copy of it came first. */
  void putMap(JobRecord job, String task, List<byte[]> outputs, Fence fence) {
    grid.transact(
        "keeping task " + task + " of job " + job.id(),
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          fences.check(ignite, "job " + job.id(), Optional.of(fence));
          String done = doneKey(job.id(), task);
          if (outputs(ignite).get(done) == null) {
            Map<String, byte[]> entries = new TreeMap<>();
            for (int i = 0; i < outputs.size(); i++) {
              entries.put(outputKey(job.id(), task, i), outputs.get(i));
            }
            entries.put(done, new byte[] {1});
            outputs(ignite).putAll(entries);
          }
          return done;
        });
  }

  /** What map tasks gave for one bucket, as JSON objects. */
  List<byte[]> bucket(String id, List<String> maps, int bucket) {
    Set<String> keys = new LinkedHashSet<>();
    maps.forEach(task -> keys.add(outputKey(id, task, bucket)));
    Map<String, byte[]> found =
        grid.read("reading job " + id, ignite -> outputs(ignite).getAll(keys));
    if (found.size() != keys.size()) {
      throw new FlotillaException(
          Code.NOT_FOUND, "outputs of job " + id + " are gone", "The job was deleted.");
    }
    return List.copyOf(found.values());
  }

  /**
   * Writes a bucket's rows, then that it is done. Rows are the same whichever copy of the task
   * gives them, so writing some twice changes nothing.
   */
  void putRows(JobRecord job, int bucket, Map<String, JsonNode> rows, Fence fence) {
    List<Map.Entry<String, JsonNode>> all = List.copyOf(rows.entrySet());
    for (int from = 0; from <= all.size(); from += ROWS_PER_TRANSACTION) {
      int to = Math.min(all.size(), from + ROWS_PER_TRANSACTION);
      Map<String, String> part = new TreeMap<>();
      all.subList(from, to)
          .forEach(row -> part.put(job.id() + "/" + row.getKey(), row.getValue().toString()));
      boolean last = to == all.size();
      grid.transact(
          "keeping rows of job " + job.id(),
          Grid.TransactionMode.PESSIMISTIC,
          ignite -> {
            fences.check(ignite, "job " + job.id(), Optional.of(fence));
            rows(ignite).putAll(part);
            if (last) {
              outputs(ignite).put(doneKey(job.id(), reduceName(bucket)), new byte[] {1});
            }
            return part;
          });
      if (last) {
        return;
      }
    }
  }

  List<Jobs.Row> rows(String id, String after, int limit) {
    return grid.read(
        "reading rows of job " + id,
        ignite -> {
          List<Jobs.Row> page = new ArrayList<>();
          SqlFieldsQuery query =
              new SqlFieldsQuery(
                      "SELECT id, data FROM "
                          + ROWS_TABLE
                          + " WHERE id > ? AND id < ? ORDER BY id LIMIT "
                          + limit)
                  .setSchema("PUBLIC")
                  .setArgs(id + "/" + after, id + "0"); // '0' follows '/'
          for (List<?> row : rows(ignite).query(query).getAll()) {
            page.add(
                new Jobs.Row(
                    String.valueOf(row.get(0)).substring(id.length() + 1),
                    Json.read(
                        String.valueOf(row.get(1))
                            .getBytes(java.nio.charset.StandardCharsets.UTF_8),
                        JsonNode.class)));
          }
          return page;
        });
  }

  long rowCount(String id) {
    return grid.read(
        "counting rows of job " + id,
        ignite ->
            ((Number)
                    rows(ignite)
                        .query(
                            new SqlFieldsQuery(
                                    "SELECT COUNT(*) FROM "
                                        + ROWS_TABLE
                                        + " WHERE id > ? AND id < ?")
                                .setSchema("PUBLIC")
                                .setArgs(id + "/", id + "0"))
                        .getAll()
                        .getFirst()
                        .getFirst())
                .longValue());
  }

  /** Deletes what tasks gave; the rows and the record stay. */
  void deleteOutputs(JobRecord job) {
    Set<String> keys = new java.util.TreeSet<>();
    for (JobDefinition.Task task : job.plan()) {
      keys.add(doneKey(job.id(), task.name()));
      for (int i = 0; i < job.buckets(); i++) {
        keys.add(outputKey(job.id(), task.name(), i));
      }
    }
    for (int i = 0; i < job.buckets(); i++) {
      keys.add(doneKey(job.id(), reduceName(i)));
    }
    grid.write(
        "tidying job " + job.id(),
        ignite -> {
          outputs(ignite).removeAll(keys);
          return keys;
        });
  }

  void delete(JobRecord job) {
    deleteOutputs(job);
    Map<String, String> page = new HashMap<>();
    do {
      page.clear();
      rows(job.id(), "", 1000).forEach(row -> page.put(job.id() + "/" + row.key(), ""));
      grid.write(
          "deleting job " + job.id(),
          ignite -> {
            rows(ignite).removeAll(new java.util.TreeSet<>(page.keySet()));
            return page;
          });
    } while (!page.isEmpty());
    grid.write(
        "deleting job " + job.id(),
        ignite -> {
          jobs(ignite).remove(job.id());
          return job;
        });
  }

  private static IgniteCache<String, byte[]> jobs(Ignite ignite) {
    return ignite.cache(JOBS);
  }

  private static IgniteCache<String, Boolean> open(Ignite ignite) {
    return ignite.cache(OPEN);
  }

  private static IgniteCache<String, byte[]> outputs(Ignite ignite) {
    return ignite.cache(OUTPUTS);
  }

  private static IgniteCache<String, String> rows(Ignite ignite) {
    return ignite.cache(ROWS);
  }
}
