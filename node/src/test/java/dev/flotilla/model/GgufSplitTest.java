package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GgufSplitTest {

  private static final int PARTS = 3;

  @TempDir Path folder;

  /** Deals the tensors of a model out to three parts. */
  private Path split(Path whole) {
    try (GgufFile source = GgufFile.open(whole)) {
      List<TensorInfo> tensors = source.header().tensors();
      for (int part = 0; part < PARTS; part++) {
        Map<String, Object> metadata =
            part == 0
                ? GgufConfig.metadata("split", TestModels.TIED, WeightType.Q8_0)
                : new LinkedHashMap<>();
        metadata.put("split.no", part);
        metadata.put("split.count", PARTS);
        metadata.put("split.tensors.count", tensors.size());
        List<GgufWriter.Tensor> written = new ArrayList<>();
        for (int i = part; i < tensors.size(); i += PARTS) {
          written.add(copy(source, tensors.get(i)));
        }
        GgufWriter.write(part(part + 1), metadata, written);
      }
    }
    return part(2);
  }

  private Path part(int number) {
    return folder.resolve("model-%05d-of-%05d.gguf".formatted(number, PARTS));
  }

  private static GgufWriter.Tensor copy(GgufFile source, TensorInfo info) {
    long rowBytes = info.type().bytes(info.columns());
    return new GgufWriter.Tensor(
        info.name(),
        info.shape(),
        info.type(),
        (row, values) ->
            Blocks.decode(
                info.type(), source.tensor(info.name()), row * rowBytes, values, 0, values.length));
  }

  private Path whole() {
    Path whole = folder.resolve("whole.gguf");
    RandomModel.write(whole, TestModels.TIED, WeightType.F32, 5);
    return whole;
  }

  @Test
  void partsJoinedAreTheWholeModel() {
    Path whole = whole();
    Path part = split(whole);
    assertThat(GgufSplit.isPart(part)).isTrue();
    assertThat(GgufSplit.isPart(whole)).isFalse();
    assertThat(GgufSplit.nameOf(part)).isEqualTo("model");
    Path joined = folder.resolve("joined.gguf");
    GgufSplit.join(part, joined);
    try (GgufFile before = GgufFile.open(whole);
        GgufFile after = GgufFile.open(joined)) {
      assertThat(after.header().modelConfig()).isEqualTo(before.header().modelConfig());
      assertThat(after.header().metadata())
          .doesNotContainKey("split.count")
          .containsEntry("general.name", "split");
      for (TensorInfo info : before.header().tensors()) {
        assertThat(after.tensor(info.name()).mismatch(before.tensor(info.name()))).isEqualTo(-1);
      }
    }
  }

  @Test
  void aPartAloneIsRefused() {
    split(whole());
    assertBad(Code.BAD_FILE, "one of 3 parts", () -> GgufHeader.read(part(1)).modelConfig());
  }

  @Test
  void missingAndForeignPartsAreNamed() throws IOException {
    Path joined = folder.resolve("joined.gguf");
    split(whole());
    byte[] second = Files.readAllBytes(part(2));
    Files.delete(part(2));
    assertBad(Code.NOT_FOUND, "part 2 of 3", () -> GgufSplit.join(part(1), joined));
    Files.copy(part(3), part(2));
    assertBad(Code.BAD_FILE, "split.no is 2, not 1", () -> GgufSplit.join(part(1), joined));
    Files.write(part(2), Arrays.copyOf(second, second.length - 40));
    assertBad(Code.BAD_FILE, "cut short", () -> GgufSplit.join(part(1), joined));
    GgufWriter.write(
        part(2),
        Map.of("split.no", 1, "split.count", PARTS, "split.tensors.count", 1),
        List.of(
            new GgufWriter.Tensor(
                ModelTensors.EMBEDDING, List.of(4), WeightType.F32, (row, values) -> {})));
    assertBad(Code.BAD_FILE, "is in two parts", () -> GgufSplit.join(part(1), joined));
    GgufWriter.write(
        part(2), Map.of("split.no", 1, "split.count", PARTS, "split.tensors.count", 1), List.of());
    assertBad(Code.BAD_FILE, "split.tensors.count is", () -> GgufSplit.join(part(1), joined));
    assertThat(joined).doesNotExist();
  }

  private static void assertBad(Code code, String message, Runnable action) {
    assertThatThrownBy(action::run)
        .isInstanceOfSatisfying(FlotillaException.class, e -> assertThat(e.code()).isEqualTo(code))
        .hasMessageContaining(message);
  }
}
