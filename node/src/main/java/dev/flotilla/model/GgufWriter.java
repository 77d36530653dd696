package dev.flotilla.model;

import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.WeightType;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** Writes GGUF version 3, a few rows at a time, so that memory does not grow with the model. */
public final class GgufWriter {

  static final int ALIGNMENT = 32;
  private static final int BUFFER_BYTES = 1 << 20;

  /** Gives a tensor's rows. */
  @FunctionalInterface
  public interface Rows {
    /** Fills {@code values} with one row; rows are asked for in order. */
    void read(int row, float[] values);
  }

  /**
   * A tensor to write.
   *
   * @param shape fastest dimension first
   */
  public record Tensor(String name, List<Integer> shape, WeightType type, Rows rows) {

    int columns() {
      return shape.getFirst();
    }

    int rowCount() {
      return shape.subList(1, shape.size()).stream().reduce(1, Math::multiplyExact);
    }

    long bytes() {
      return type.bytes(columns()) * rowCount();
    }
  }

  private GgufWriter() {}

  /**
   * Writes a file, whole or not at all.
   *
   * @param metadata in this order; {@link Integer} is written as UINT32, {@link Long} as UINT64,
   *     {@link Float} as FLOAT32, then {@link Boolean}, {@link String}, lists of strings, {@code
   *     int[]} as INT32 and {@code float[]} as FLOAT32 arrays
   * @throws dev.flotilla.FlotillaException {@code STORAGE}
   */
  public static void write(Path file, Map<String, Object> metadata, List<Tensor> tensors) {
    write(file, metadata.size(), encode(metadata), tensors);
  }

  /**
   * The same, with metadata that are encoded already.
   *
   * @param keys how many there are
   */
  static void write(Path file, int keys, byte[] metadata, List<Tensor> tensors) {
    List<TensorInfo> infos =
        tensors.stream()
            .map(t -> new TensorInfo(t.name(), t.shape(), t.type(), 0, t.bytes()))
            .toList();
    byte[] head = head(keys, metadata, infos);
    WeightFiles.writeAtomically(
        file,
        channel -> {
          WeightFiles.writeFully(channel, ByteBuffer.wrap(head));
          for (Tensor tensor : tensors) {
            writeRows(channel, tensor);
            int padding = (int) (padded(tensor.bytes()) - tensor.bytes());
            WeightFiles.writeFully(channel, ByteBuffer.allocate(padding));
          }
        });
  }

  static long padded(long bytes) {
    return Math.ceilDiv(bytes, (long) ALIGNMENT) * ALIGNMENT;
  }

  private static void writeRows(FileChannel channel, Tensor tensor) throws IOException {
    float[] values = new float[tensor.columns()];
    long rowBytes = tensor.type().bytes(values.length);
    int rowsAtOnce = Math.clamp(BUFFER_BYTES / rowBytes, 1, tensor.rowCount());
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(rowBytes * rowsAtOnce);
      int held = 0;
      for (int row = 0; row < tensor.rowCount(); row++) {
        tensor.rows().read(row, values);
        Blocks.encode(tensor.type(), values, 0, values.length, buffer, held * rowBytes);
        held++;
        if (held == rowsAtOnce || row == tensor.rowCount() - 1) {
          WeightFiles.writeFully(channel, buffer.asSlice(0, held * rowBytes).asByteBuffer());
          held = 0;
        }
      }
    }
  }

  /** Keys and values as a file has them. */
  static byte[] encode(Map<String, Object> metadata) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (DataOutputStream out = new DataOutputStream(bytes)) {
      for (Map.Entry<String, Object> entry : metadata.entrySet()) {
        string(out, entry.getKey());
        value(out, entry.getValue());
      }
    } catch (IOException e) {
      throw new IllegalStateException("writing to memory failed", e);
    }
    return bytes.toByteArray();
  }

  /**
   * The head of a file whose tensors follow one another in this order.
   *
   * @param metadata so many keys and values, encoded
   */
  static byte[] head(int keys, byte[] metadata, List<TensorInfo> tensors) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (DataOutputStream out = new DataOutputStream(bytes)) {
      int32(out, GgufParser.MAGIC);
      int32(out, 3);
      int64(out, tensors.size());
      int64(out, keys);
      out.write(metadata);
      long offset = 0;
      for (TensorInfo tensor : tensors) {
        string(out, tensor.name());
        int32(out, tensor.shape().size());
        for (int dimension : tensor.shape()) {
          int64(out, dimension);
        }
        int32(out, GgufTypes.number(tensor.type()));
        int64(out, offset);
        offset += padded(tensor.bytes());
      }
      out.write(new byte[(int) (padded(out.size()) - out.size())]);
    } catch (IOException e) {
      throw new IllegalStateException("writing to memory failed", e);
    }
    return bytes.toByteArray();
  }

  private static void value(DataOutputStream out, Object value) throws IOException {
    switch (value) {
      case Integer number -> {
        int32(out, GgufParser.UINT32);
        int32(out, number);
      }
      case Long number -> {
        int32(out, GgufParser.UINT64);
        int64(out, number);
      }
      case Float number -> {
        int32(out, GgufParser.FLOAT32);
        int32(out, Float.floatToRawIntBits(number));
      }
      case Boolean truth -> {
        int32(out, GgufParser.BOOL);
        out.writeByte(truth ? 1 : 0);
      }
      case String text -> {
        int32(out, GgufParser.STRING);
        string(out, text);
      }
      case int[] numbers -> {
        array(out, GgufParser.INT32, numbers.length);
        for (int number : numbers) {
          int32(out, number);
        }
      }
      case float[] numbers -> {
        array(out, GgufParser.FLOAT32, numbers.length);
        for (float number : numbers) {
          int32(out, Float.floatToRawIntBits(number));
        }
      }
      case List<?> texts -> {
        array(out, GgufParser.STRING, texts.size());
        for (Object text : texts) {
          string(out, (String) text);
        }
      }
      default -> throw new IllegalArgumentException("cannot write a " + value.getClass());
    }
  }

  private static void array(DataOutputStream out, int type, int length) throws IOException {
    int32(out, GgufParser.ARRAY);
    int32(out, type);
    int64(out, length);
  }

  private static void string(DataOutputStream out, String text) throws IOException {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    int64(out, utf8.length);
    out.write(utf8);
  }

  private static void int32(DataOutputStream out, int value) throws IOException {
    out.writeInt(Integer.reverseBytes(value));
  }

  private static void int64(DataOutputStream out, long value) throws IOException {
    out.writeLong(Long.reverseBytes(value));
  }
}
