package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;

import com.code_intelligence.jazzer.junit.FuzzTest;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.charset.StandardCharsets;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.List;
import java.util.Map;

/** As {@code ModelFilesFuzzTest}, for the files of a model's text. */
class TextFilesFuzzTest {

  @FuzzTest(maxDuration = "60s")
  void tokenizerJson(byte[] file) {
    try (Tokenizer tokenizer =
        Tokenizer.fromJson(new String(file, StandardCharsets.UTF_8), "fuzzed")) {
      tokenizer.decode(tokenizer.encode("Alice's lamp <|end|>  17"));
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(Code.BAD_FILE);
    }
  }

  @FuzzTest(maxDuration = "60s")
  void chatTemplate(byte[] file) {
    try {
      ChatTemplate.parse(new String(file, StandardCharsets.UTF_8))
          .render(
              Map.of(
                  "messages", List.of(Map.of("role", "user", "content", "Hi")), "tools", List.of()),
              Map.of("bos_token", "<s>"),
              ZonedDateTime.of(2026, 7, 26, 0, 0, 0, 0, ZoneOffset.UTC));
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(Code.INVALID);
    }
  }
}
