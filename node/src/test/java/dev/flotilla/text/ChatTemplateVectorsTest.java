package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Renders published templates and compares with what Jinja2 rendered. */
class ChatTemplateVectorsTest {

  private static final ZonedDateTime DATE =
      ZonedDateTime.of(2026, 7, 26, 0, 0, 0, 0, ZoneOffset.UTC);

  static Stream<String> cases() throws IOException {
    if (!SharedData.has("templates/expected.json")) {
      return Stream.of("");
    }
    List<String> names = new ArrayList<>();
    read("expected.json").fieldNames().forEachRemaining(names::add);
    return names.stream();
  }

  private static JsonNode read(String name) throws IOException {
    return Json.MAPPER.readTree(SharedData.require("templates/" + name).toFile());
  }

  @ParameterizedTest
  @MethodSource("cases")
  void rendersAsJinja2Does(String name) throws IOException {
    JsonNode expected = read("expected.json").path(name);
    Path file = SharedData.require("templates/" + name.split("\\|")[0]);
    Map<String, Object> variables =
        Json.MAPPER.convertValue(
            read("cases.json").path(name.split("\\|")[1]), new TypeReference<>() {});
    if (expected.has("ok")) {
      MarkedText text =
          ChatTemplate.parse(Files.readString(file)).renderMarked(variables, Map.of(), DATE);
      assertThat(text.value()).isEqualTo(expected.get("ok").asText());
    } else {
      assertThatThrownBy(
              () -> ChatTemplate.parse(Files.readString(file)).render(variables, Map.of(), DATE))
          .isInstanceOf(FlotillaException.class)
          .hasMessage(expected.get("err").asText());
    }
  }
}
