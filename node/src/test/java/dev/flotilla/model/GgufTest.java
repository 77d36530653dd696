package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GgufTest {

  @TempDir Path folder;

  @Test
  void whatIsWrittenIsReadBack() {
    Map<String, Object> metadata = new LinkedHashMap<>();
    metadata.put("general.architecture", "llama");
    metadata.put("an.int", -1);
    metadata.put("a.long", 1L << 40);
    metadata.put("a.float", 0.5f);
    metadata.put("a.truth", true);
    metadata.put("a.text", "naïve ✓ 🚢");
    metadata.put("some.texts", List.of("a", "", "ĠĊ"));
    metadata.put("some.ints", new int[] {1, -2});
    metadata.put("some.floats", new float[] {1, -2.5f});
    Path file = folder.resolve("m.gguf");
    GgufWriter.write(
        file,
        metadata,
        List.of(
            new GgufWriter.Tensor(
                "a", List.of(3, 5), WeightType.F32, (row, values) -> Arrays.fill(values, row)),
            new GgufWriter.Tensor(
                "b", List.of(64, 2), WeightType.Q8_0, (row, values) -> Arrays.fill(values, row))));
    try (GgufFile read = GgufFile.open(file)) {
      assertThat(read.header().metadata())
          .containsExactly(
              Map.entry("general.architecture", "llama"),
              Map.entry("an.int", 0xffffffffL),
              Map.entry("a.long", 1L << 40),
              Map.entry("a.float", 0.5),
              Map.entry("a.truth", true),
              Map.entry("a.text", "naïve ✓ 🚢"),
              Map.entry("some.texts", List.of("a", "", "ĠĊ")),
              Map.entry("some.ints", List.of(1L, -2L)),
              Map.entry("some.floats", List.of(1.0, -2.5)));
      float[] values = new float[15];
      Blocks.decode(WeightType.F32, read.tensor("a"), 0, values, 0, 15);
      assertThat(values).containsExactly(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4);
      assertThat(read.header().tensor("b").orElseThrow().bytes()).isEqualTo(136);
      assertThat(read.header().tensor("b").orElseThrow().offset() % 32).isZero();
      GgufHeader fromHead =
          GgufHeader.parse(
              "head",
              read.head().toArray(java.lang.foreign.ValueLayout.JAVA_BYTE),
              read.header().fileBytes());
      assertThat(fromHead.tensors()).isEqualTo(read.header().tensors());
    }
  }

  @Test
  void aModelsShapeIsReadBack() {
    for (ModelConfig config : List.of(TestModels.TIED, TestModels.UNTIED)) {
      Path file = folder.resolve("m.gguf");
      RandomModel.write(file, config, WeightType.Q8_0, 1);
      assertThat(GgufHeader.read(file).modelConfig()).isEqualTo(config);
    }
  }

  @Test
  void aFileCutAtAnyByteIsRefused() throws IOException {
    byte[] whole = small();
    GgufHeader.parse("whole", whole, whole.length).modelConfig();
    for (int length = 0; length < whole.length; length++) {
      byte[] cut = Arrays.copyOf(whole, length);
      assertBad(() -> GgufHeader.parse("cut", cut, cut.length), "");
    }
  }

  @Test
  void anyByteChangedIsReadOrRefusedButNeverAnotherError() throws IOException {
    byte[] whole = small();
    Random random = new Random(99);
    for (int i = 0; i < 20_000; i++) {
      byte[] damaged = whole.clone();
      for (int j = 0; j <= i % 3; j++) {
        damaged[random.nextInt(damaged.length)] = (byte) random.nextInt();
      }
      try {
        GgufHeader.parse("damaged", damaged, damaged.length).modelConfig();
      } catch (FlotillaException e) {
        assertThat(e.code()).isEqualTo(Code.BAD_FILE);
      }
    }
  }

  private byte[] small() throws IOException {
    ModelConfig config = new ModelConfig(4, 32, 1, 1, 1, 32, 32, 8, 10000f, 1e-5f, true);
    Path file = folder.resolve("small.gguf");
    RandomModel.write(file, config, WeightType.Q8_0, 1);
    return Files.readAllBytes(file);
  }

  @Test
  void absurdCountsAreRefusedBeforeAllocation() {
    assertBad(head(Long.MAX_VALUE, 0), "tensor count is 9223372036854775807");
    assertBad(head(-1, 0), "tensor count is 18446744073709551615");
    assertBad(head(0, 1L << 62), "metadata count");
    assertBad(head(50_000, 0), "tensor count is 50000, but only");
    assertBad(
        head(0, 1, b -> text(b, "k").putInt(8).putLong(1L << 40)), "length of metadata \"k\"");
    assertBad(
        head(0, 1, b -> text(b, "k").putInt(9).putInt(4).putLong(1L << 60)),
        "length of metadata \"k\"");
    assertBad(head(0, 1, b -> b.putLong(1L << 40)), "length of key 0");
  }

  @Test
  void nestedArraysUnknownTypesAndBadValuesAreRefused() {
    assertBad(
        head(0, 1, b -> text(b, "k").putInt(9).putInt(9).putLong(1)),
        "metadata \"k\" is an array of arrays");
    assertBad(head(0, 1, b -> text(b, "k").putInt(77)), "metadata \"k\" is of unknown type 77");
    assertBad(
        head(0, 1, b -> text(b, "k").putInt(9).putInt(13).putLong(1)), "elements of unknown type");
    assertBad(head(0, 1, b -> text(b, "k").putInt(7).put((byte) 2)), "not a truth value");
    assertBad(head(0, 1, b -> text(b, "k").putInt(8).putLong(1).put((byte) 0xff)), "is not UTF-8");
    assertBad(
        head(0, 2, b -> text(text(b, "k").putInt(4).putInt(1), "k").putInt(4).putInt(1)),
        "metadata \"k\" is there twice");
    for (int alignment : new int[] {0, 3, 1 << 30}) {
      assertBad(
          head(0, 1, b -> text(b, "general.alignment").putInt(4).putInt(alignment)),
          "general.alignment");
    }
  }

  @Test
  void tensorsThatCannotBeAreRefused() {
    assertBad(tensor(5, new long[] {1, 1, 1, 1, 1}, 0, 0), "5 dimensions");
    assertBad(tensor(0, new long[] {}, 0, 0), "0 dimensions");
    assertBad(tensor(2, new long[] {1L << 31, 1}, 0, 0), "dimension 0");
    assertBad(tensor(2, new long[] {0, 1}, 0, 0), "dimension 0");
    long large = Integer.MAX_VALUE;
    assertBad(tensor(4, new long[] {large, large, large, large}, 0, 0), "multiply to more");
    assertBad(tensor(2, new long[] {large, large}, 0, 0), "multiply to more than 2^63 bytes");
    assertBad(tensor(2, new long[] {large, 1 << 20}, 0, 0), "ends beyond the file");
    assertBad(tensor(2, new long[] {33, 1}, 8, 0), "rows of 33");
    assertBad(tensor(1, new long[] {4}, 10, 0), "Q2_K");
    assertBad(tensor(1, new long[] {4}, 4711, 0), "number 4711");
    assertBad(tensor(1, new long[] {4}, 0, 1), "not a multiple of the alignment");
    assertBad(tensor(1, new long[] {4}, 0, Long.MAX_VALUE - 31), "ends beyond the file");
    assertBad(tensor(1, new long[] {4}, 0, -32), "not a multiple");
  }

  @Test
  void otherFilesAndVersionsAreNamed() {
    assertBad(
        () -> GgufHeader.parse("f", "PK\u0003\u0004....".getBytes(StandardCharsets.US_ASCII), 8),
        "not a GGUF file");
    byte[] version1 = head(0, 0);
    version1[4] = 1;
    assertBad(version1, "version 1 is not read");
  }

  @Test
  void otherArchitecturesAndVariantsAreRefusedByName() {
    Map<String, Object> metadata = GgufConfig.metadata("m", TestModels.TIED, WeightType.F32);
    metadata.put("general.architecture", "mamba");
    assertBad(() -> written(metadata).modelConfig(), "\"mamba\"");
    metadata.put("general.architecture", "llama");
    assertBad(() -> written(metadata).modelConfig(), "token_embd.weight");
    metadata.put("llama.expert_count", 8);
    assertBad(() -> written(metadata).modelConfig(), "mixtures of experts");
    metadata.remove("llama.expert_count");
    metadata.put("llama.rope.scaling.type", "yarn");
    assertBad(() -> written(metadata).modelConfig(), "original_context_length is missing");
    metadata.put("llama.rope.scaling.type", "dynamic");
    assertBad(() -> written(metadata).modelConfig(), "\"dynamic\"");
    metadata.remove("llama.rope.scaling.type");
    metadata.put("llama.residual_scale", 2f);
    assertBad(() -> written(metadata).modelConfig(), "llama.residual_scale is 2.0");
  }

  private GgufHeader written(Map<String, Object> metadata) {
    Path file = folder.resolve("variant.gguf");
    GgufWriter.write(file, metadata, List.of());
    return GgufHeader.read(file);
  }

  @Test
  void aMissingFileIsNotFound() {
    assertThatThrownBy(() -> GgufFile.open(folder.resolve("none.gguf")))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.NOT_FOUND));
  }

  @Test
  void aWriteThatFailsLeavesNothingBehind() throws IOException {
    Path file = folder.resolve("broken.gguf");
    assertThatThrownBy(
            () ->
                GgufWriter.write(
                    file,
                    Map.of(),
                    List.of(
                        new GgufWriter.Tensor(
                            "a",
                            List.of(4, 4),
                            WeightType.F32,
                            (row, values) -> {
                              if (row == 2) {
                                throw new IllegalStateException("source failed");
                              }
                            }))))
        .hasMessage("source failed");
    try (var files = Files.list(folder)) {
      assertThat(files).isEmpty();
    }
  }

  private static byte[] head(long tensors, long keys) {
    return head(tensors, keys, b -> {});
  }

  private static byte[] head(long tensors, long keys, Consumer<ByteBuffer> rest) {
    ByteBuffer b = ByteBuffer.allocate(4096).order(ByteOrder.LITTLE_ENDIAN);
    b.putInt(GgufParser.MAGIC).putInt(3).putLong(tensors).putLong(keys);
    rest.accept(b);
    return Arrays.copyOf(b.array(), Math.max(b.position(), 512));
  }

  private static byte[] tensor(int dimensions, long[] shape, int type, long offset) {
    return head(
        1,
        0,
        b -> {
          text(b, "t").putInt(dimensions);
          for (long size : shape) {
            b.putLong(size);
          }
          b.putInt(type).putLong(offset);
        });
  }

  private static ByteBuffer text(ByteBuffer b, String text) {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    return b.putLong(utf8.length).put(utf8);
  }

  private static void assertBad(byte[] file, String message) {
    assertBad(() -> GgufHeader.parse("f", MemorySegment.ofArray(file), file.length), message);
  }

  private static void assertBad(Runnable action, String message) {
    assertThatThrownBy(action::run)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BAD_FILE))
        .hasMessageContaining(message);
  }
}
