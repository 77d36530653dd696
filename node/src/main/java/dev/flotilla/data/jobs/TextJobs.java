package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.cache.CacheValue;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.cache.Cache;
import org.apache.ignite.cache.affinity.Affinity;
import org.apache.ignite.cache.query.QueryCursor;
import org.apache.ignite.cache.query.ScanQuery;

/**
 * The jobs that come with every node. Text comes from {@code {"blob": "sha256:…"}}, cut at {@code
 * split_bytes}, from the values of a cache, {@code {"cache": "name"}}, read where its partitions
 * are, or from {@code {"lines": […]}}.
 */
public final class TextJobs {

  private static final Pattern WORD = Pattern.compile("[\\p{L}\\p{N}']+");
  private static final int LINE_BYTES_MAX = 1 << 20;
  private static final int WORD_CHARACTERS_MAX = 128;
  private static final int PARTITIONS_PER_TASK = 8;
  private static final int LINES_PER_TASK = 1000;

  private TextJobs() {}

  public static List<JobDefinition> all() {
    return List.of(new CountWords(), new Deduplicate(), new NodeReport());
  }

  /** How often each word occurs. */
  private static final class CountWords extends OverText {
    @Override
    public String name() {
      return "count_words";
    }

    @Override
    public String description() {
      return "How often each word occurs; input: blob, cache or lines.";
    }

    @Override
    void line(String place, String line, BiConsumer<String, JsonNode> emit) {
      Map<String, Long> counts = new HashMap<>();
      Matcher words = WORD.matcher(line);
      while (words.find()) {
        String word = words.group().toLowerCase(Locale.ROOT);
        if (word.length() <= WORD_CHARACTERS_MAX) {
          counts.merge(word, 1L, Long::sum);
        }
      }
      counts.forEach(
          (word, count) -> emit.accept(word, Json.MAPPER.getNodeFactory().numberNode(count)));
    }

    @Override
    public JsonNode merge(JsonNode first, JsonNode second) {
      return Json.MAPPER.getNodeFactory().numberNode(first.asLong() + second.asLong());
    }
  }

  /** Each line once, with how often it was there and where first. */
  private static final class Deduplicate extends OverText {
    @Override
    public String name() {
      return "deduplicate";
    }

    @Override
    public String description() {
      return "Each line once, by SHA-256, with its first place and count; input: blob, cache,"
          + " lines.";
    }

    @Override
    void line(String place, String line, BiConsumer<String, JsonNode> emit) {
      emit.accept(
          hash(line),
          Json.MAPPER.createObjectNode().put("line", line).put("first", place).put("count", 1));
    }

    private static String hash(String line) {
      try {
        return HexFormat.of()
            .formatHex(
                MessageDigest.getInstance("SHA-256").digest(line.getBytes(StandardCharsets.UTF_8)));
      } catch (NoSuchAlgorithmException e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public JsonNode merge(JsonNode first, JsonNode second) {
      boolean earlier = first.path("first").asText().compareTo(second.path("first").asText()) <= 0;
      ObjectNode kept = (earlier ? first : second).deepCopy();
      return kept.put("count", first.path("count").asLong() + second.path("count").asLong());
    }
  }

  /** Asks every node about itself, on that node. */
  private static final class NodeReport implements JobDefinition {
    @Override
    public String name() {
      return "node_report";
    }

    @Override
    public String description() {
      return "What every node that is up says of itself: cores, memory, free disk.";
    }

    @Override
    public List<Task> plan(Context context, JsonNode input) {
      return context.cluster().nodes().stream()
          .filter(node -> node.state() == NodeInfo.State.UP)
          .map(
              node ->
                  new Task(
                      "node-" + node.id(),
                      Json.MAPPER.createObjectNode(),
                      List.of(node.id()),
                      true))
          .toList();
    }

    @Override
    public void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit) {
      Runtime runtime = Runtime.getRuntime();
      emit.accept(
          context.cluster().self(),
          Json.MAPPER
              .createObjectNode()
              .put("cores", runtime.availableProcessors())
              .put("heap_bytes_used", runtime.totalMemory() - runtime.freeMemory())
              .put("heap_bytes_max", runtime.maxMemory())
              .put("java", Runtime.version().toString())
              .put("has_majority", context.grid().hasMajority()));
    }

    @Override
    public JsonNode merge(JsonNode first, JsonNode second) {
      return first;
    }
  }

  /** Line by line over a text. */
  private abstract static class OverText implements JobDefinition {

    /**
     * @param place sorts as the lines stand in the text
     */
    abstract void line(String place, String line, BiConsumer<String, JsonNode> emit);

    @Override
    public List<Task> plan(Context context, JsonNode input) {
      if (input.hasNonNull("blob")) {
        return blobTasks(context, input);
      }
      if (input.hasNonNull("cache")) {
        return cacheTasks(context, input.path("cache").asText());
      }
      if (input.path("lines").isArray()) {
        return lineTasks(input.path("lines"));
      }
      throw new FlotillaException(
          Code.INVALID,
          "the job's input names no text",
          "Give {\"blob\": \"sha256:…\"}, {\"cache\": \"name\"} or {\"lines\": […]}.");
    }

    private static List<Task> blobTasks(Context context, JsonNode input) {
      String digest = input.path("blob").asText();
      long size =
          context
              .blobs()
              .find(digest)
              .orElseThrow(
                  () ->
                      new FlotillaException(
                          Code.INVALID, "there is no blob " + digest, "Put it first."))
              .size();
      long split = Math.clamp(input.path("split_bytes").asLong(1 << 20), 1 << 10, 64 << 20);
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
      return context
          .grid()
          .read(
              "planning over cache " + name,
              ignite -> {
                String engineName = "flotilla.cache." + name;
                if (ignite.cache(engineName) == null) {
                  throw new FlotillaException(
                      Code.INVALID,
                      "there is no cache " + name,
                      "`flotilla cache list` shows all.");
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
                        ObjectNode payload = Json.MAPPER.createObjectNode().put("cache", name);
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

    @Override
    public void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
        throws InterruptedException {
      if (payload.has("blob")) {
        blobLines(context, payload, emit);
      } else if (payload.has("cache")) {
        cacheLines(context, payload, emit);
      } else {
        long number = payload.path("from").asLong();
        for (JsonNode line : payload.path("lines")) {
          line(place(number++), line.asText(), emit);
        }
      }
    }

    private static String place(long number) {
      return String.format("%016d", number);
    }

    private void cacheLines(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
        throws InterruptedException {
      String name = payload.path("cache").asText();
      for (JsonNode partition : payload.path("partitions")) {
        checkInterrupt();
        Map<String, byte[]> found =
            context
                .grid()
                .read(
                    "reading cache " + name,
                    ignite -> {
                      Map<String, byte[]> entries = new HashMap<>();
                      try (QueryCursor<Cache.Entry<String, byte[]>> cursor =
                          ignite
                              .<String, byte[]>cache("flotilla.cache." + name)
                              .query(
                                  new ScanQuery<String, byte[]>()
                                      .setPartition(partition.asInt()))) {
                        cursor.forEach(e -> entries.put(e.getKey(), e.getValue()));
                      }
                      return entries;
                    });
        found.forEach(
            (key, value) ->
                new String(CacheValue.decode(value).bytes(), StandardCharsets.UTF_8)
                    .lines()
                    .forEach(line -> line(key, line, emit)));
      }
    }

    /** The lines that begin in the range; the last may end behind it. */
    private void blobLines(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
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
          line(place(began), line.toString(StandardCharsets.UTF_8), emit);
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
}
