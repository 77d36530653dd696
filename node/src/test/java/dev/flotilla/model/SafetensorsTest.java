package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SafetensorsTest {

  @TempDir Path folder;

  private static Safetensors.Tensor tensor(String name, int rows, int columns) {
    float[] values = new float[rows * columns];
    for (int i = 0; i < values.length; i++) {
      values[i] = i + 0.25f;
    }
    return Safetensors.Tensor.of(name, List.of(rows, columns), values);
  }

  @Test
  void whatIsWrittenIsReadBack() {
    Path file = folder.resolve("a.safetensors");
    Safetensors.write(file, Map.of("format", "pt"), List.of(tensor("x", 2, 3), tensor("y", 1, 5)));
    try (Safetensors read = Safetensors.open(file)) {
      assertThat(read.names()).containsExactly("x", "y");
      float[] row = new float[3];
      read.tensor("x", List.of(2, 3)).read(1, row);
      assertThat(row).containsExactly(3.25f, 4.25f, 5.25f);
      assertBad(() -> read.tensor("x", List.of(3, 2)), "has shape [2, 3], not [3, 2]");
      assertBad(() -> read.tensor("z", List.of(1)), "there is no tensor z");
    }
  }

  @Test
  void halfAndBfloatAreWidenedExactly() {
    ByteBuffer data = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    data.putShort(Float.floatToFloat16(1.5f)).putShort(Float.floatToFloat16(-0.125f));
    data.putShort((short) (Float.floatToRawIntBits(-2.5f) >>> 16)).putShort((short) 0x3f80);
    byte[] file =
        file(
            "{'h':{'dtype':'F16','shape':[2],'data_offsets':[0,4]},"
                + "'b':{'dtype':'BF16','shape':[1,2],'data_offsets':[4,8]}}",
            data.array());
    Map<String, Safetensors.Tensor> tensors = parse(file);
    float[] row = new float[2];
    at(tensors, "h").read(0, row);
    assertThat(row).containsExactly(1.5f, -0.125f);
    at(tensors, "b").read(0, row);
    assertThat(row).containsExactly(-2.5f, 1);
  }

  private static Safetensors.Tensor at(Map<String, Safetensors.Tensor> tensors, String name) {
    return Optional.ofNullable(tensors.get(name)).orElseThrow();
  }

  @Test
  void shardsAreReadThroughTheirIndex() throws IOException {
    Safetensors.write(folder.resolve("m-1.safetensors"), Map.of(), List.of(tensor("x", 2, 3)));
    Safetensors.write(folder.resolve("m-2.safetensors"), Map.of(), List.of(tensor("y", 1, 1)));
    index("{\"weight_map\":{\"x\":\"m-1.safetensors\",\"y\":\"m-2.safetensors\"}}");
    try (Safetensors read = Safetensors.open(folder)) {
      assertThat(read.names()).containsExactlyInAnyOrder("x", "y");
    }
    index("{\"weight_map\":{\"x\":\"m-2.safetensors\"}}");
    assertBad(() -> Safetensors.open(folder), "tensor x is in the index but not here");
    index("{\"weight_map\":{\"x\":\"../m-2.safetensors\"}}");
    assertBad(() -> Safetensors.open(folder), "weight_map names the file");
    index("{\"weight_map\":[1]}");
    assertBad(() -> Safetensors.open(folder), "weight_map");
    index("{");
    assertBad(() -> Safetensors.open(folder), "not JSON");
  }

  private void index(String json) throws IOException {
    Files.writeString(folder.resolve("model.safetensors.index.json"), json);
  }

  @Test
  void aFileCutAtAnyByteIsRefused() throws IOException {
    Path file = folder.resolve("a.safetensors");
    Safetensors.write(file, Map.of("format", "pt"), List.of(tensor("x", 2, 3)));
    byte[] whole = Files.readAllBytes(file);
    parse(whole);
    for (int length = 0; length < whole.length; length++) {
      byte[] cut = Arrays.copyOf(whole, length);
      assertBad(() -> parse(cut), "");
    }
  }

  @Test
  void headersThatCannotBeAreRefused() {
    for (long length : new long[] {-1, Long.MAX_VALUE, 0, 1L << 40, 60}) {
      byte[] file = file("{}", new byte[0]);
      ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).putLong(0, length);
      assertBad(() -> parse(file), "header's length is " + Long.toUnsignedString(length));
    }
    assertBad(() -> parse(file("not json at all", new byte[4])), "not JSON");
    assertBad(() -> parse(file("[1,2]", new byte[4])), "not a JSON object");
    assertBad(() -> parse(file("[".repeat(100_000), new byte[4])), "not JSON");
    assertBad(() -> parse(file("{'x':{},'x':{}}", new byte[4])), "not JSON");
  }

  @Test
  void aHeaderWhoseLengthLooksLikeAnotherKindIsRead() {
    for (int length : new int[] {0x280, '<', 'P' + 256 * 'K'}) {
      assertThat(parse(file("{}" + " ".repeat(length - 2), new byte[0]))).isEmpty();
    }
  }

  @Test
  void tensorsThatCannotBeAreRefused() {
    assertBad(() -> parse(one("'I8'", "[4]", "[0,4]")), "dtype of tensor \"x\" is \"I8\"");
    assertBad(() -> parse(one("'F32'", "[2]", "[0,4]")), "are not the 8 bytes");
    assertBad(() -> parse(one("'F32'", "[1]", "[4,0]")), "data_offsets");
    assertBad(() -> parse(one("'F32'", "[1]", "[0,4,8]")), "data_offsets");
    assertBad(() -> parse(one("'F32'", "[1]", "[-4,0]")), "data_offsets");
    assertBad(() -> parse(one("'F32'", "[1]", "[0,1e400]")), "data_offsets");
    assertBad(() -> parse(one("'F32'", "[2]", "[4,12]")), "are not within");
    assertBad(() -> parse(one("'F32'", "[-1]", "[0,4]")), "size -1");
    assertBad(() -> parse(one("'F32'", "[99999999999]", "[0,4]")), "size 99999999999");
    assertBad(() -> parse(one("'F32'", "[2000000000,2000000000]", "[0,4]")), "too many elements");
    assertBad(() -> parse(one("'F32'", "7", "[0,4]")), "not a list");
    assertBad(() -> parse(one("'F32'", "[0]", "[0,0]")), "holds 4 bytes");
    assertBad(() -> parse(file("{'x':3}", new byte[4])), "dtype");
  }

  @Test
  void tensorsThatOverlapOrLeaveHolesAreRefused() {
    String entry = "{'dtype':'F32','shape':[1],'data_offsets':[%d,%d]}";
    for (int second : new int[] {0, 8}) {
      String header = ("{'a':" + entry + ",'b':" + entry + "}").formatted(0, 4, second, second + 4);
      assertBad(() -> parse(file(header, new byte[12])), "not at 4");
    }
  }

  @Test
  void otherKindsOfFileAreNamed() {
    assertBad(() -> parse("PK\u0003\u0004 torch".getBytes(StandardCharsets.ISO_8859_1)), "zip");
    assertBad(() -> parse(new byte[] {(byte) 0x80, 2, 'c', 'o', 's', '\n', 0, 0, 0}), "pickle");
    assertBad(() -> parse("GGUF....".getBytes(StandardCharsets.ISO_8859_1)), "GGUF");
    assertBad(() -> parse("<!DOCTYPE html>".getBytes(StandardCharsets.ISO_8859_1)), "web page");
    assertBad(() -> parse("version https://git-lfs".getBytes(StandardCharsets.ISO_8859_1)), "LFS");
  }

  private static byte[] one(String type, String shape, String offsets) {
    return file(
        "{'x':{'dtype':%s,'shape':%s,'data_offsets':%s}}".formatted(type, shape, offsets),
        new byte[4]);
  }

  private static byte[] file(String header, byte[] data) {
    byte[] json = header.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + json.length + data.length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(json.length)
        .put(json)
        .put(data)
        .array();
  }

  private static Map<String, Safetensors.Tensor> parse(byte[] file) {
    return Safetensors.parse("f", MemorySegment.ofArray(file));
  }

  private static void assertBad(Runnable action, String message) {
    assertThatThrownBy(action::run)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BAD_FILE))
        .hasMessageContaining(message);
  }
}
