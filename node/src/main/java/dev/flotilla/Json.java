package dev.flotilla;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.datatype.jdk8.Jdk8Module;
import java.io.IOException;
import java.util.regex.Pattern;

/**
 * The one JSON reader and writer: strict on input (bounded depth, no duplicate keys, nothing after
 * the end).
 */
public final class Json {

  /** Shared; safe on all threads. */
  public static final ObjectMapper MAPPER =
      JsonMapper.builder(
              JsonFactory.builder()
                  .streamReadConstraints(
                      StreamReadConstraints.builder().maxNestingDepth(200).build())
                  .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
                  .build())
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
          .addModule(new Jdk8Module())
          .build();

  /** What the library says of itself, rather than of the text. */
  private static final Pattern INSIDES =
      Pattern.compile(
          " \\(start marker at .*|: was expecting \\(.*|,? from `.*|: not allowed as per `.*"
              + "| \\(bound as .*|\\[Source.*|`.*",
          Pattern.DOTALL);

  private Json() {}

  /** What is wrong with a text that is not JSON, and where, as people would say it. */
  public static String problem(IOException e) {
    if (!(e instanceof JsonProcessingException wrong)) {
      return String.valueOf(e.getMessage());
    }
    JsonLocation at = wrong.getLocation();
    String place = at == null ? "" : " at line " + at.getLineNr() + ", column " + at.getColumnNr();
    String said = String.valueOf(wrong.getOriginalMessage()).lines().findFirst().orElse("");
    if (said.startsWith("Trailing token")) {
      said = "There is something behind its end";
    } else if (said.startsWith("No content")) {
      said = "It is empty";
    }
    return INSIDES.matcher(said).replaceFirst("") + place;
  }

  /**
   * A record of ours as JSON bytes, for the registry and for messages between our own processes.
   */
  public static byte[] write(Object value) {
    try {
      return MAPPER.writeValueAsBytes(value);
    } catch (IOException e) {
      throw new IllegalStateException("cannot write " + value.getClass() + " as JSON", e);
    }
  }

  /**
   * The inverse of {@link #write}.
   *
   * @throws FlotillaException {@code INVALID} if the bytes are not such a record
   */
  public static <T> T read(byte[] json, Class<T> type) {
    try {
      return MAPPER.readValue(json, type);
    } catch (IOException e) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          (JsonNode.class.isAssignableFrom(type)
                  ? "this is not JSON: "
                  : "this is not a " + type.getSimpleName() + ": ")
              + problem(e),
          "It was written by another version or is damaged.",
          e);
    }
  }
}
