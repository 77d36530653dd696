package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;

import com.code_intelligence.jazzer.junit.FuzzTest;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** As {@code ModelFilesFuzzTest}, for the grammars and schemas that come with requests. */
class GrammarFuzzTest {

  private static final TokenTrie BYTES = bytes();

  private static TokenTrie bytes() {
    List<byte[]> tokens = new ArrayList<>();
    for (int b = 0; b < 256; b++) {
      tokens.add(new byte[] {(byte) b});
    }
    tokens.add(new byte[0]);
    return new TokenTrie(tokens);
  }

  /** Whatever is taken for a grammar can be followed; a mask is never empty. */
  private static void follow(Grammar grammar) {
    TokenConstraint constraint = new TokenConstraint(grammar, BYTES, 256);
    TokenConstraint.State state = constraint.start();
    for (int step = 0; step < 100 && !constraint.mayEnd(state); step++) {
      TokenMask mask = constraint.allowed(state);
      int token = (step * 37) & 0xFF;
      while (!mask.contains(token)) {
        token = (token + 1) & 0xFF;
      }
      state = constraint.after(state, token);
    }
  }

  @FuzzTest(maxDuration = "60s")
  void gbnf(byte[] file) {
    try {
      follow(Grammar.parse(new String(file, StandardCharsets.UTF_8)));
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(Code.INVALID);
      assertThat(e).hasMessageNotContaining("no token with which");
    }
  }

  @FuzzTest(maxDuration = "60s")
  void schema(byte[] file) {
    JsonNode schema;
    try {
      schema = Json.MAPPER.readTree(new String(file, StandardCharsets.UTF_8));
    } catch (JsonProcessingException e) {
      return;
    }
    try {
      follow(JsonSchema.grammar(schema));
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(Code.INVALID);
      assertThat(e).hasMessageNotContainingAny("the grammar is malformed", "no token with which");
    }
  }
}
