package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
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

  @ParameterizedTest
  @ValueSource(strings = {"gpt-2", "llama-spm"})
  void theBytesOfATokenAreWhatAStreamGivesForItBehindAText(String name) throws IOException {
    Map<String, Object> metadata =
        GgufReader.metadata(SharedData.require("vocab/" + name + ".gguf"));
    streamsGiveTheBytes(metadata, "a b", 7);
  }

  private static void streamsGiveTheBytes(Map<String, Object> metadata, String before, int step) {
    TokenTrie trie = Tokenizer.tokenTrie(metadata, "test");
    try (Tokenizer tokenizer = Tokenizer.fromGguf(metadata, "test")) {
      int[] prompt = tokenizer.encode(before);
      for (int id = 0; id < trie.vocabularySize(); id += step) {
        StreamDecoder stream = tokenizer.streamDecoder(prompt);
        assertThat(stream.next(id) + stream.end())
            .as("token %d", id)
            .isEqualTo(new String(trie.bytes(id), StandardCharsets.UTF_8));
      }
    }
  }

  @Test
  void addedTokensGoThroughTheDecoderAsOthersDo() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.set("decoder", TokenizerJson.byteLevel(true));
    ObjectNode model = json.putObject("model").put("type", "BPE");
    ObjectNode vocabulary = model.putObject("vocab");
    for (int b = 0; b < 256; b++) {
      vocabulary.put(Character.toString(ByteAlphabet.characterOf(b)), b);
    }
    model.putArray("merges");
    added(json, 256, "<x>", "a b", "\u00e9!", "\u0120y", "語");
    streamsGiveTheBytes(Map.of(Tokenizer.GGUF_JSON, json.toString()), "a b", 1);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void whatSpellsAByteIsOneOnlyToADecoderThatTakesItForOne(boolean fallback) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    ArrayNode steps = json.putObject("decoder").put("type", "Sequence").putArray("decoders");
    if (fallback) {
      steps.addObject().put("type", "ByteFallback");
    }
    steps
        .addObject()
        .put("type", "Metaspace")
        .put("replacement", "▁")
        .put("prepend_scheme", "always")
        .put("split", true);
    ObjectNode model = json.putObject("model").put("type", "Unigram");
    model.put("unk_id", 0).put("byte_fallback", true);
    ArrayNode vocabulary = model.putArray("vocab");
    for (String token : List.of("?", "a", "b", "▁a", "<0x0A>", "<0x0a>", "<0x41>", "▁", "語▁")) {
      vocabulary.addArray().add(token).add(-1.5);
    }
    added(json, 9, "<0x42>", "▁▁", "x y");
    streamsGiveTheBytes(Map.of(Tokenizer.GGUF_JSON, json.toString()), "a", 1);
  }

  private static void added(ObjectNode json, int firstId, String... contents) {
    ArrayNode tokens = json.putArray("added_tokens");
    for (int i = 0; i < contents.length; i++) {
      tokens
          .addObject()
          .put("id", firstId + i)
          .put("content", contents[i])
          .put("single_word", false)
          .put("lstrip", false)
          .put("rstrip", false)
          .put("normalized", false)
          .put("special", false);
    }
  }
}
