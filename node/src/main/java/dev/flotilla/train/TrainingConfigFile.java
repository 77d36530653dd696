package dev.flotilla.train;

import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.dataformat.yaml.YAMLFactory;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Reads the YAML file of {@code flotilla train}: flat, keys in snake case, those left out as in
 * {@link TrainingConfig#smallWorld}. Every error is found before any is reported, each with its
 * line.
 */
public final class TrainingConfigFile {

  private static final YAMLFactory YAML = new YAMLFactory();

  /**
   * What the file asks for.
   *
   * @param textFile the file to train on, as written; empty for the small world
   */
  public record Parsed(TrainingConfig config, Optional<String> textFile) {}

  private record Value(String text, JsonToken token, int line) {}

  private final Map<String, Value> values = new LinkedHashMap<>();
  private final TreeMap<Integer, List<String>> errors = new TreeMap<>();

  private TrainingConfigFile() {}

  /**
   * Parses the file's content.
   *
   * @param source what to call it in messages
   * @throws FlotillaException {@code INVALID}, naming every error with its line
   */
  public static Parsed parse(String yaml, String source) {
    TrainingConfigFile file = new TrainingConfigFile();
    file.read(yaml);
    Parsed parsed = file.build();
    if (!file.errors.isEmpty()) {
      List<String> lines = new ArrayList<>();
      file.errors.forEach(
          (line, messages) ->
              messages.forEach(
                  message -> lines.add(line == 0 ? message : "line " + line + ": " + message)));
      throw new FlotillaException(
          Code.INVALID,
          source + " has " + lines.size() + " errors:\n  " + String.join("\n  ", lines),
          "Nothing was started.");
    }
    return parsed;
  }

  /**
   * Checks a configuration that came another way.
   *
   * @throws FlotillaException {@code INVALID}, naming every error
   */
  static void check(TrainingConfig config) {
    List<String> problems = new ArrayList<>(problems(config).values());
    if (!problems.isEmpty()) {
      throw new FlotillaException(
          Code.INVALID,
          "the training configuration has "
              + problems.size()
              + " errors: "
              + String.join("; ", problems),
          "Nothing was started.");
    }
  }

  private void read(String yaml) {
    try (JsonParser parser = YAML.createParser(yaml)) {
      JsonToken first = parser.nextToken();
      if (first == null) {
        return;
      }
      if (first != JsonToken.START_OBJECT) {
        error(1, "expected lines of the form key: value");
        return;
      }
      while (parser.nextToken() == JsonToken.FIELD_NAME) {
        String key = parser.currentName();
        int line = parser.currentTokenLocation().getLineNr();
        JsonToken token = parser.nextToken();
        if (token == JsonToken.START_OBJECT || token == JsonToken.START_ARRAY) {
          error(line, key + " must be a single value");
          parser.skipChildren();
        } else if (values.containsKey(key)) {
          error(line, key + " stands here a second time");
        } else {
          values.put(key, new Value(parser.getText(), token, line));
        }
      }
    } catch (JsonProcessingException e) {
      JsonLocation location = e.getLocation();
      error(
          location == null ? 1 : location.getLineNr(),
          "not YAML: " + e.getOriginalMessage().lines().findFirst().orElse(""));
    } catch (IOException e) {
      throw new IllegalStateException("reading from memory", e);
    }
  }

  private Parsed build() {
    TrainingConfig defaults = TrainingConfig.smallWorld();
    Map<String, Integer> lines = new HashMap<>();
    values.forEach((key, value) -> lines.put(key, value.line()));
    Optional<String> textFile = text("text");
    TrainingConfig config =
        new TrainingConfig(
            text("model").orElse(defaults.model()),
            Optional.empty(),
            whole("seed", defaults.seed()),
            count("workers", defaults.workers()),
            count("vocabulary_size", defaults.vocabularySize()),
            count("width", defaults.width()),
            count("layers", defaults.layers()),
            count("heads", defaults.heads()),
            count("kv_heads", defaults.kvHeads()),
            count("feed_forward", defaults.feedForward()),
            count("context_length", defaults.contextLength()),
            count("batch", defaults.batch()),
            count("steps", defaults.steps()),
            number("learning_rate", defaults.learningRate()),
            count("warmup_steps", defaults.warmupSteps()),
            number("weight_decay", defaults.weightDecay()),
            number("gradient_clip", defaults.gradientClip()));
    values.forEach((key, value) -> error(value.line(), "unknown key " + key));
    problems(config).forEach((key, problem) -> error(lines.getOrDefault(key, 0), problem));
    return new Parsed(config, textFile);
  }

  /** What is wrong with the values themselves, by key. */
  private static Map<String, String> problems(TrainingConfig c) {
    Map<String, String> problems = new LinkedHashMap<>();
    if (!c.model().matches("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")) {
      problems.put("model", "model must be letters, digits, '.', '_' or '-', at most 100");
    }
    range(problems, "workers", c.workers(), 0, 1000);
    range(problems, "vocabulary_size", c.vocabularySize(), 300, 1 << 18);
    range(problems, "width", c.width(), 16, 1 << 15);
    range(problems, "layers", c.layers(), 1, 1000);
    range(problems, "heads", c.heads(), 1, 1000);
    range(problems, "kv_heads", c.kvHeads(), 1, 1000);
    range(problems, "feed_forward", c.feedForward(), 16, 1 << 18);
    range(problems, "context_length", c.contextLength(), 64, 1 << 17);
    range(problems, "batch", c.batch(), 1, 1 << 20);
    range(problems, "steps", c.steps(), 1, 100_000_000);
    range(problems, "warmup_steps", c.warmupSteps(), 0, 100_000_000);
    range(problems, "learning_rate", c.learningRate(), 1e-9, 1);
    range(problems, "weight_decay", c.weightDecay(), 0, 1);
    range(problems, "gradient_clip", c.gradientClip(), 1e-9, 1e9);
    if (c.steps() >= 1 && c.warmupSteps() > c.steps()) {
      problems.put("warmup_steps", "warmup_steps is more than steps");
    }
    if (problems.isEmpty()) {
      if (c.width() % c.heads() != 0 || c.width() / c.heads() % 2 != 0) {
        problems.put("heads", "width / heads must be a whole even number");
      }
      if (c.heads() % c.kvHeads() != 0) {
        problems.put("kv_heads", "kv_heads must divide heads");
      }
    }
    return problems;
  }

  private static void range(
      Map<String, String> problems, String key, double value, double min, double max) {
    if (!(value >= min && value <= max)) {
      problems.put(
          key,
          "%s is %s, must be from %s to %s".formatted(key, plain(value), plain(min), plain(max)));
    }
  }

  private static String plain(double value) {
    return value == Math.rint(value) && Math.abs(value) < 1e15
        ? String.valueOf((long) value)
        : String.valueOf(value);
  }

  private Optional<String> text(String key) {
    Value value = values.remove(key);
    if (value == null) {
      return Optional.empty();
    }
    if (value.token() != JsonToken.VALUE_STRING || value.text().isBlank()) {
      error(value.line(), key + " must be a text");
      return Optional.empty();
    }
    return Optional.of(value.text());
  }

  private int count(String key, int otherwise) {
    long value = whole(key, otherwise);
    if (value != (int) value) {
      error(0, key + " is too large");
      return otherwise;
    }
    return (int) value;
  }

  private long whole(String key, long otherwise) {
    Value value = values.remove(key);
    if (value == null) {
      return otherwise;
    }
    try {
      if (value.token() == JsonToken.VALUE_NUMBER_INT) {
        return Long.parseLong(value.text().replace("_", ""));
      }
    } catch (NumberFormatException e) {
      // Reported below, as any other value of the wrong form.
    }
    error(value.line(), key + " must be a whole number, not " + value.text());
    return otherwise;
  }

  private double number(String key, double otherwise) {
    Value value = values.remove(key);
    if (value == null) {
      return otherwise;
    }
    try {
      return Double.parseDouble(value.text());
    } catch (NumberFormatException e) {
      error(value.line(), key + " must be a number, not " + value.text());
      return otherwise;
    }
  }

  private void error(int line, String message) {
    errors.computeIfAbsent(line, ignored -> new ArrayList<>()).add(message);
  }
}
