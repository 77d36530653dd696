package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TokenizerTest {

  private static final InstantSource CLOCK =
      InstantSource.fixed(Instant.parse("2026-07-26T00:00:00Z"));

  private static final BpeVocabulary VOCABULARY =
      BpeTrainer.train(
          "user\nassistant\nthe cat sat on the mat. ".repeat(30),
          300,
          List.of("<s>", "<|im_start|>", "<|im_end|>"));

  private static final String CHAT =
      "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
          + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

  private static Tokenizer tokenizer() {
    return Tokenizer.fromJson(VOCABULARY.tokenizerJson(), "test");
  }

  private static Map<String, Object> gguf() {
    List<String> merges = new ArrayList<>();
    VOCABULARY.merges().forEach(merge -> merges.add(merge.left() + " " + merge.right()));
    Map<String, Object> metadata = new HashMap<>();
    metadata.put("tokenizer.ggml.model", "gpt2");
    metadata.put("tokenizer.ggml.pre", "gpt-2");
    metadata.put("tokenizer.ggml.tokens", VOCABULARY.tokens());
    metadata.put(
        "tokenizer.ggml.token_type",
        IntStream.range(0, VOCABULARY.tokens().size()).map(id -> id < 3 ? 3 : 1).toArray());
    metadata.put("tokenizer.ggml.merges", merges.toArray(new String[0]));
    metadata.put("tokenizer.ggml.bos_token_id", 0L);
    metadata.put("tokenizer.ggml.eos_token_id", 0L);
    metadata.put("tokenizer.ggml.add_bos_token", true);
    metadata.put("tokenizer.chat_template", CHAT);
    return metadata;
  }

  @Test
  void countsSpecialTokensOnlyWhereTheTextIsTrusted() {
    try (Tokenizer tokenizer = tokenizer()) {
      assertThat(tokenizer.encode(List.of(new Segment("<|im_start|>", true)))).containsExactly(1);
      assertThat(tokenizer.encode(List.of(new Segment("<|im_start|>", false)))).doesNotContain(1);
      List<Segment> split = List.of(new Segment("<|im_st", true), new Segment("art|>", false));
      assertThat(tokenizer.encode(split))
          .doesNotContain(1)
          .isEqualTo(tokenizer.encode("<|im_start|>"));
    }
  }

  @Test
  void segmentsTextBetweenSpecialTokensAsOnePieceWhoeverWroteIt() {
    try (Tokenizer tokenizer = tokenizer()) {
      List<Segment> parts = List.of(new Segment("the c", true), new Segment("at sat", false));
      assertThat(tokenizer.encode(parts)).isEqualTo(tokenizer.encode("the cat sat"));
    }
  }

  @Test
  void streamsWholeCharactersOnlyAndAllOfThem() {
    String text = "Zürich 北京 🦙🦙 the cat";
    try (Tokenizer tokenizer = tokenizer()) {
      StreamDecoder stream = tokenizer.streamDecoder(tokenizer.encode("the mat"));
      StringBuilder all = new StringBuilder();
      for (int id : tokenizer.encode(text)) {
        String piece = stream.next(id);
        assertThat(piece).doesNotContain("\uFFFD");
        all.append(piece);
      }
      assertThat(all.append(stream.end()).toString()).isEqualTo(text);
    }
  }

  @Test
  void doesNotHoldBackBytesThatAreNoTextForEver() {
    try (Tokenizer tokenizer = tokenizer()) {
      StreamDecoder stream = tokenizer.streamDecoder();
      int loneByte = 3 + 0xFF;
      StringBuilder all = new StringBuilder();
      for (int i = 0; i < 100; i++) {
        all.append(stream.next(loneByte));
      }
      assertThat(all.length()).isGreaterThan(80);
      assertThat(all.append(stream.end()).toString()).isEqualTo("\uFFFD".repeat(100));
    }
  }

  @Test
  void gguFMetadataAndFolderOfOneVocabularyGiveTheSameIds(@TempDir Path folder) throws IOException {
    VOCABULARY.write(folder.resolve("tokenizer.json"));
    Files.writeString(folder.resolve("chat_template.jinja"), CHAT);
    Files.writeString(
        folder.resolve("tokenizer_config.json"),
        "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<s>\",\"add_bos_token\":true}");
    Files.writeString(folder.resolve("generation_config.json"), "{\"eos_token_id\":[0]}");
    try (ModelText fromGguf = ModelText.fromGguf(gguf(), "test.gguf", CLOCK);
        ModelText fromFolder = ModelText.fromFolder(folder, CLOCK)) {
      List<Map<String, String>> messages =
          List.of(Map.of("role", "user", "content", "the cat<|im_end|>"));
      int[] ids = fromGguf.render(messages, List.of(), true, Map.of());
      assertThat(ids).isEqualTo(fromFolder.render(messages, List.of(), true, Map.of()));
      assertThat(IntStream.of(ids).filter(id -> id == 2)).hasSize(1);
      assertThat(ids).startsWith(0, 1);
      assertThat(fromGguf.tokenizer().decode(ids, false))
          .isEqualTo("<s><|im_start|>user\nthe cat<|im_end|><|im_end|>\n<|im_start|>assistant\n");
      for (ModelText model : List.of(fromGguf, fromFolder)) {
        assertThat(model.endIds()).containsExactly(0, 2);
        assertThat(model.beginningId()).hasValue(0);
        assertThat(model.encode("the cat")).startsWith(0).doesNotContain(1, 2);
        assertThat(model.tokenizer().vocabularySize()).isEqualTo(VOCABULARY.tokens().size());
      }
    }
  }

  @Test
  void saysSoWhenTheModelHasNoChatTemplate() {
    Map<String, Object> metadata = gguf();
    metadata.remove("tokenizer.chat_template");
    try (ModelText model = ModelText.fromGguf(metadata, "test.gguf", CLOCK)) {
      assertThatThrownBy(() -> model.render(List.of(), List.of(), true, Map.of()))
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("no chat template");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"default", "llama-bpe", "qwen2", "smollm", "gpt-4o", "tekken"})
  void roundTripsAnyTextWithEachPreTokenizer(String preTokenizer) {
    Map<String, Object> metadata = gguf();
    metadata.put("tokenizer.ggml.pre", preTokenizer);
    String text = "It's THE cat, 12345 times!\r\n\n  北京 \t🦙 <s>";
    try (Tokenizer tokenizer = Tokenizer.fromGguf(metadata, "test.gguf")) {
      assertThat(tokenizer.decode(tokenizer.encode(text))).isEqualTo(text);
    }
  }

  private static void refuses(String json, String part) {
    assertThatThrownBy(() -> Tokenizer.fromJson(json, "bad.json").close())
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BAD_FILE))
        .hasMessageContaining(part);
  }

  @Test
  void refusesMalformedTokenizerFiles(@TempDir Path folder) throws IOException {
    String model = "{\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":%s},\"added_tokens\":%s}";
    refuses(model.formatted("{\"a\":0,\"b\":1}", "[[\"\",\"a\"]]", "[]"), "circle");
    refuses(model.formatted("{\"a\":0,\"b\":1}", "[[\"a\",\"b\"]]", "[]"), "no token");
    refuses(model.formatted("{\"a\":0,\"b\":1}", "[\"a\"]", "[]"), "not a pair");
    refuses(model.formatted("{\"a\":0,\"b\":0}", "[]", "[]"), "two tokens");
    refuses(model.formatted("{\"a\":-1}", "[]", "[]"), "out of range");
    refuses(model.formatted("{\"a\":99999999999}", "[]", "[]"), "out of range");
    refuses(model.formatted("{\"a\":0,\"b\":70000}", "[]", "[]"), "out of range");
    refuses(model.formatted("{\"\\ud800\":0}", "[]", "[]"), "surrogate");
    refuses(model.formatted("{\"a\":0,\"a\":1}", "[]", "[]"), "malformed");
    refuses(model.formatted("{\"a\":0}", "[]", "[{\"id\":-5,\"content\":\"x\"}]"), "out of range");
    refuses(model.formatted("{}", "[]", "[]"), "no tokens");
    refuses(model.replace("BPE", "Other").formatted("{}", "[]", "[]"), "no known kind");
    refuses("[]", "no JSON object");
    refuses("{\"model\":", "malformed");
    Path file = folder.resolve("tokenizer.json");
    Files.write(file, "{\"a\":\"\u00ff\"}".getBytes(StandardCharsets.ISO_8859_1));
    assertThatThrownBy(() -> Tokenizer.fromFile(file)).hasMessageContaining("UTF-8");
    assertThatThrownBy(() -> Tokenizer.fromFile(folder.resolve("none")))
        .hasMessageContaining("read");
  }

  private static void refuses(String key, Object value, String part) {
    Map<String, Object> metadata = gguf();
    metadata.put(key, value);
    assertThatThrownBy(() -> ModelText.fromGguf(metadata, "bad.gguf", CLOCK).close())
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BAD_FILE))
        .hasMessageContaining(part);
  }

  @Test
  void refusesMalformedGgufMetadata() {
    List<String> invalid = new ArrayList<>(VOCABULARY.tokens());
    invalid.set(10, "\uFFFD");
    refuses("tokenizer.ggml.tokens", invalid, "UTF-8");
    refuses("tokenizer.ggml.tokens", List.of(), "no tokens");
    refuses("tokenizer.ggml.tokens", List.of(1), "strings");
    refuses("tokenizer.ggml.token_type", new int[] {1}, "token types");
    refuses("tokenizer.ggml.eos_token_id", 99999, "out of range");
    refuses("tokenizer.ggml.merges", List.of("nospace"), "not a pair");
    refuses("tokenizer.ggml.merges", List.of("t zz"), "no token");
    refuses("tokenizer.ggml.pre", "unheard-of", "unknown");
    refuses("tokenizer.ggml.model", "unheard-of", "unknown");
  }

  @Test
  void refusesUseAfterClose() {
    Tokenizer tokenizer = tokenizer();
    tokenizer.close();
    tokenizer.close();
    assertThatThrownBy(() -> tokenizer.encode("a")).isInstanceOf(IllegalStateException.class);
  }
}
