package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.cache.CacheValue;
import dev.flotilla.data.cache.GridCaches;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.jobs.JobDefinition.Context;
import dev.flotilla.data.jobs.JobDefinition.Task;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import javax.cache.Cache;
import org.apache.ignite.cache.affinity.Affinity;
import org.apache.ignite.cache.query.QueryCursor;
import org.apache.ignite.cache.query.ScanQuery;

/**
 * The text that a job goes over, line by line. It comes from {@code {"blob": "sha256:…"}}, cut at
 * {@code split_bytes}, from the values of a cache, {@code {"cache": "name"}}, read where its
 * partitions are, or from {@code {"lines": […]}}.
 */
public final class TextLines {

  private static final int LINE_BYTES_MAX = 1 << 20;
  private static final int PARTITIONS_PER_TASK = 8;
  private static final int LINES_PER_TASK = 1000;
  private static final long SPLIT_BYTES = 1 << 20;
  private static final long SPLIT_BYTES_MIN = 1 << 10;
  private static final long SPLIT_BYTES_MAX = 64 << 20;

  /** What an input says of its text. */
  public static final List<String> FIELDS = List.of("blob", "split_bytes", "cache", "lines");

  /** Takes the lines of a task. */
  @FunctionalInterface
  public interface Reader {

    /**
     * The next line.
     *
     * @param place sorts as the lines stand in the text; of a cache's values, the key
     */
    void line(String place, String line) throws InterruptedException;
  }

  private TextLines() {}

  /**
   * Cuts the text up that an input names.
   *
   * @throws FlotillaException {@code INVALID} if it names none
   */
  public static List<Task> plan(Context context, JsonNode input) {
    List<String> sources = Stream.of("blob", "cache", "lines").filter(input::hasNonNull).toList();
    if (sources.size() != 1) {
      throw wrong(
          sources.isEmpty()
              ? "names no text"
              : "names more than one text: " + String.join(", ", sources),
          "Give one of {\"blob\": \"sha256:…\"}, {\"cache\": \"name\"} and {\"lines\": […]}.");
    }
    if (input.hasNonNull("split_bytes") && !input.hasNonNull("blob")) {
      throw wrong("has split_bytes, which only a blob takes", "");
    }
    return switch (sources.getFirst()) {
      case "blob" -> blobTasks(context, text(input, "blob"), split(input));
      case "cache" -> cacheTasks(context, text(input, "cache"));
      default -> lineTasks(input.path("lines"));
    };
  }

  /**
   * Lets an input pass that has these fields at most.
   *
   * @throws FlotillaException {@code INVALID} naming another
   */
  public static void only(JsonNode input, List<String> known, String... more) {
    List<String> all = new ArrayList<>(List.of(more));
    all.addAll(known);
    for (Map.Entry<String, JsonNode> field : input.properties()) {
      if (!all.contains(field.getKey())) {
        throw wrong(
            "has a field '" + field.getKey() + "', which this job does not know",
            all.isEmpty() ? "It takes none." : "It takes " + String.join(", ", all) + ".");
      }
    }
  }

  private static FlotillaException wrong(String complaint, String remedy) {
    return new FlotillaException(Code.INVALID, "the job's input " + complaint, remedy);
  }

  private static String text(JsonNode input, String name) {
    if (!input.path(name).isTextual()) {
      throw wrong("has a " + name + " that is no string", "");
    }
    return input.path(name).textValue();
  }

  private static long split(JsonNode input) {
    JsonNode split = input.path("split_bytes");
    if (split.isMissingNode() || split.isNull()) {
      return SPLIT_BYTES;
    }
    if (!split.isIntegralNumber()
        || split.asLong() < SPLIT_BYTES_MIN
        || split.asLong() > SPLIT_BYTES_MAX) {
      throw wrong(
          "has split_bytes that are no integer from " + SPLIT_BYTES_MIN + " to " + SPLIT_BYTES_MAX,
          "");
    }
    return split.asLong();
  }

  private static List<Task> blobTasks(Context context, String digest, long split) {
    long size =
        context
            .blobs()
            .find(digest)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.INVALID, "there is no blob " + digest, "Put it first."))
            .size();
    List<Task> tasks = new ArrayList<>();
    for (long from = 0; from < Math.max(1, size); from += split) {
      ObjectNode payload = Json.MAPPER.createObjectNode();
      payload.put("blob", digest);
      payload.put("size", size);
      payload.put("from", from).put("to", Math.min(size, from + split));
      tasks.add(new Task("range-" + from, payload, List.of(), false));
    }
    return tasks;
  }

  private static List<Task> cacheTasks(Context context, String name) {
    String engineName =
        GridCaches.engineName(context.cluster().registry(), name)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.INVALID,
                        "there is no cache " + name,
                        "`flotilla cache list` shows all."));
    return context
        .grid()
        .read(
            "planning over cache " + name,
            ignite -> {
              if (!Grid.hasCache(ignite, engineName)) {
                return List.of(); // Nothing was ever put.
              }
              Affinity<String> affinity = ignite.affinity(engineName);
              Map<List<String>, List<Integer>> byOwners = new HashMap<>();
              for (int p = 0; p < affinity.partitions(); p++) {
                List<String> owners =
                    affinity.mapPartitionToPrimaryAndBackups(p).stream()
                        .map(node -> String.valueOf(node.consistentId()))
                        .limit(3)
                        .toList();
                byOwners.computeIfAbsent(owners, o -> new ArrayList<>()).add(p);
              }
              List<Task> tasks = new ArrayList<>();
              byOwners.forEach(
                  (owners, partitions) -> {
                    for (int i = 0; i < partitions.size(); i += PARTITIONS_PER_TASK) {
                      ObjectNode payload = Json.MAPPER.createObjectNode();
                      payload.put("cache", name).put("engine_cache", engineName);
                      payload.set(
                          "partitions",
                          Json.MAPPER.valueToTree(
                              partitions.subList(
                                  i, Math.min(partitions.size(), i + PARTITIONS_PER_TASK))));
                      tasks.add(
                          new Task("partitions-" + partitions.get(i), payload, owners, false));
                    }
                  });
              return tasks;
            });
  }

  private static List<Task> lineTasks(JsonNode lines) {
    if (!lines.isArray()) {
      throw wrong("has lines that are no array of strings", "");
    }
    for (int i = 0; i < lines.size(); i++) {
      if (!lines.get(i).isTextual()) {
        throw wrong("has lines[" + i + "], which is no string", "");
      }
    }
    List<Task> tasks = new ArrayList<>();
    for (int from = 0; from < Math.max(1, lines.size()); from += LINES_PER_TASK) {
      ObjectNode payload = Json.MAPPER.createObjectNode().put("from", from);
      var part = payload.putArray("lines");
      for (int i = from; i < Math.min(lines.size(), from + LINES_PER_TASK); i++) {
        part.add(lines.get(i));
      }
      tasks.add(new Task("lines-" + from, payload, List.of(), false));
    }
    return tasks;
  }

  /** Reads the lines of a task. */
  public static void read(Context context, JsonNode payload, Reader reader)
      throws InterruptedException {
    if (payload.has("blob")) {
      blobLines(context, payload, reader);
    } else if (payload.has("cache")) {
      cacheLines(context, payload, reader);
    } else {
      long number = payload.path("from").asLong();
      for (JsonNode line : payload.path("lines")) {
        checkInterrupt();
        reader.line(place(number++), line.asText());
      }
    }
  }

  private static String place(long number) {
    return String.format("%016d", number);
  }

  private static void cacheLines(Context context, JsonNode payload, Reader reader)
      throws InterruptedException {
    String name = payload.path("cache").asText();
    String engineName = payload.path("engine_cache").asText();
    for (JsonNode partition : payload.path("partitions")) {
      checkInterrupt();
      Map<String, byte[]> found =
          context
              .grid()
              .read(
                  "reading cache " + name,
                  ignite -> {
                    if (!Grid.hasCache(ignite, engineName)) {
                      throw new FlotillaException(
                          Code.NOT_FOUND, "cache " + name + " was dropped meanwhile", "");
                    }
                    Map<String, byte[]> entries = new HashMap<>();
                    try (QueryCursor<Cache.Entry<String, byte[]>> cursor =
                        ignite
                            .<String, byte[]>cache(engineName)
                            .query(
                                new ScanQuery<String, byte[]>().setPartition(partition.asInt()))) {
                      cursor.forEach(e -> entries.put(e.getKey(), e.getValue()));
                    }
                    return entries;
                  });
      for (Map.Entry<String, byte[]> entry : found.entrySet()) {
        byte[] value = CacheValue.decode(entry.getValue()).bytes();
        for (String line : new String(value, StandardCharsets.UTF_8).lines().toList()) {
          reader.line(entry.getKey(), line);
        }
      }
    }
  }

  /** The lines that begin in the range; the last may end behind it. */
  private static void blobLines(Context context, JsonNode payload, Reader reader)
      throws InterruptedException {
    long from = payload.path("from").asLong();
    long to = payload.path("to").asLong();
    long size = payload.path("size").asLong();
    if (from >= to) {
      return;
    }
    // One byte before the range tells whether a line begins with the range.
    long start = Math.max(0, from - 1);
    try (InputStream in =
        new BufferedInputStream(
            context.blobs().read(payload.path("blob").asText(), start, size - start), 1 << 16)) {
      long at = start;
      if (from > 0) {
        int b = in.read();
        at++;
        while (b != '\n' && b >= 0) {
          b = in.read();
          at++;
        }
      }
      while (at < to) {
        checkInterrupt();
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        long began = at;
        int b = in.read();
        while (b != '\n' && b >= 0) {
          line.write(b);
          at++;
          if (line.size() > LINE_BYTES_MAX) {
            throw new FlotillaException(
                Code.TOO_LARGE,
                "the line at byte " + began + " is longer than " + LINE_BYTES_MAX + " bytes",
                "Break it up.");
          }
          b = in.read();
        }
        at++;
        reader.line(place(began), line.toString(StandardCharsets.UTF_8));
      }
    } catch (IOException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE, "cannot read " + payload.path("blob").asText(), "Try again.", e);
    }
  }

  private static void checkInterrupt() throws InterruptedException {
    if (Thread.interrupted()) {
      throw new InterruptedException();
    }
  }
}
