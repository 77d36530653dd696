package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TokenBytesTest {

  @ParameterizedTest
  @ValueSource(strings = {"gpt-2", "llama-spm"})
  void theBytesOfATextsTokensAreTheText(String name) throws IOException {
    String text = "{\"name\": \"Zoë 😀 語\",\n\t\"n\":  [1.5e3, true]}";
    Map<String, Object> metadata =
        GgufReader.metadata(SharedData.require("vocab/" + name + ".gguf"));
    TokenTrie trie = Tokenizer.tokenTrie(metadata, name);
    try (Tokenizer tokenizer = Tokenizer.fromGguf(metadata, name)) {
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      for (int id : tokenizer.encode(text)) {
        bytes.writeBytes(trie.bytes(id));
      }
      // SentencePiece puts a space before a text.
      assertThat(bytes.toString(StandardCharsets.UTF_8).stripLeading()).isEqualTo(text);
      for (int id : tokenizer.specialIds()) {
        assertThat(trie.bytes(id)).isEmpty();
      }
      assertThat(trie.vocabularySize()).isEqualTo(tokenizer.vocabularySize());
    }
  }
}
