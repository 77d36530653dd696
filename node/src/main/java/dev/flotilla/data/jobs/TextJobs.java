package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeInfo;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The jobs that come with every node; those over texts take the input of {@link TextLines}. */
public final class TextJobs {

  private static final Pattern WORD = Pattern.compile("[\\p{L}\\p{N}']+");
  private static final int WORD_CHARACTERS_MAX = 128;

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
      TextLines.only(input, List.of());
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
      TextLines.only(input, TextLines.FIELDS);
      return TextLines.plan(context, input);
    }

    @Override
    public void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
        throws InterruptedException {
      TextLines.read(context, payload, (place, line) -> line(place, line, emit));
    }
  }
}
