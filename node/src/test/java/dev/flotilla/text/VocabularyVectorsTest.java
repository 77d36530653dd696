package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Encodes published test texts and compares with the published ids. */
class VocabularyVectorsTest {

  @ParameterizedTest
  @ValueSource(strings = {"gpt-2", "llama-spm"})
  void encodesEveryVectorToTheSameIdsAndDecodesThemAgain(String name) throws IOException {
    Path gguf = SharedData.require("vocab/" + name + ".gguf");
    String[] texts =
        Files.readString(gguf.resolveSibling(name + ".gguf.inp"))
            .split("\n__ggml_vocab_test__\n", -1);
    String[] ids = Files.readString(gguf.resolveSibling(name + ".gguf.out")).split("\n", -1);
    assertThat(texts.length).isGreaterThan(40);
    try (Tokenizer tokenizer = Tokenizer.fromGguf(GgufReader.metadata(gguf), name)) {
      for (int i = 0; i < texts.length; i++) {
        int[] expected =
            Arrays.stream(ids[i].trim().split(" "))
                .filter(id -> !id.isEmpty())
                .mapToInt(Integer::parseInt)
                .toArray();
        assertThat(tokenizer.encode(texts[i])).as("'%s'", texts[i]).isEqualTo(expected);
        assertThat(tokenizer.decode(expected)).isEqualTo(texts[i]);
        StringBuilder streamed = new StringBuilder();
        StreamDecoder stream = tokenizer.streamDecoder();
        for (int id : expected) {
          streamed.append(stream.next(id));
        }
        assertThat(streamed.append(stream.end()).toString()).isEqualTo(texts[i]);
      }
    }
  }
}
