package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * Tensors in Hugging Face's safetensors format: one file, or shards under an index; mapped, so what
 * is not read takes no memory.
 */
public final class Safetensors implements AutoCloseable {

  private static final long MAX_HEADER_BYTES = 100_000_000;
  private static final int MAX_DIMENSIONS = 8;
  private static final String SINGLE = "model.safetensors";
  private static final String INDEX = "model.safetensors.index.json";

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfLong LONG =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** How elements are stored. */
  public enum ElementType {
    F32(4),
    F16(2),
    BF16(2);

    private final int bytes;

    ElementType(int bytes) {
      this.bytes = bytes;
    }

    /** Bytes of an element. */
    public int bytes() {
      return bytes;
    }
  }

  /**
   * A tensor.
   *
   * @param shape slowest dimension first: a matrix {@code [out, in]} has shape {@code (out, in)}
   * @param data little-endian elements
   */
  public record Tensor(String name, ElementType type, List<Integer> shape, MemorySegment data) {

    /** A tensor of floats on the heap. */
    public static Tensor of(String name, List<Integer> shape, float[] values) {
      MemorySegment data = Arena.ofAuto().allocate(4L * values.length, 64);
      for (int i = 0; i < values.length; i++) {
        data.set(FLOAT, 4L * i, values[i]);
      }
      return new Tensor(name, ElementType.F32, shape, data);
    }

    /** Elements of a row: the last dimension. */
    public int columns() {
      return shape.isEmpty() ? 1 : shape.getLast();
    }

    /** Reads one row in full precision, the leading dimensions taken together. */
    public void read(int row, float[] values) {
      long first = (long) row * columns() * type.bytes();
      for (int i = 0; i < columns(); i++) {
        values[i] =
            switch (type) {
              case F32 -> data.get(FLOAT, first + 4L * i);
              case F16 -> Float.float16ToFloat(data.get(SHORT, first + 2L * i));
              case BF16 -> Float.intBitsToFloat(data.get(SHORT, first + 2L * i) << 16);
            };
      }
    }
  }

  private final String where;
  private final Arena arena;
  private final Map<String, Tensor> tensors;

  private Safetensors(String where, Arena arena, Map<String, Tensor> tensors) {
    this.where = where;
    this.arena = arena;
    this.tensors = Collections.unmodifiableMap(tensors);
  }

  /**
   * Opens one file, or a folder with {@code model.safetensors} or shards and their index.
   *
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  @SuppressWarnings("MustBeClosedChecker") // what is returned owns the arena
  public static Safetensors open(Path path) {
    Arena arena = Arena.ofShared();
    try {
      Map<String, Tensor> tensors =
          Files.isDirectory(path) ? folder(path, arena) : file(path, arena);
      return new Safetensors(path.toString(), arena, tensors);
    } catch (IOException e) {
      arena.close();
      throw WeightFiles.failure("read", path, e);
    } catch (RuntimeException e) {
      arena.close();
      throw e;
    }
  }

  /** The names of all tensors. */
  public Set<String> names() {
    return tensors.keySet();
  }

  /** One tensor. */
  public Optional<Tensor> find(String name) {
    return Optional.ofNullable(tensors.get(name));
  }

  /**
   * One tensor that must be there, in this shape.
   *
   * @throws FlotillaException {@code BAD_FILE}
   */
  public Tensor tensor(String name, List<Integer> shape) {
    Tensor tensor =
        find(name).orElseThrow(() -> WeightFiles.bad(where, "there is no tensor " + name));
    if (!tensor.shape().equals(shape)) {
      throw WeightFiles.bad(
          where, "tensor " + name + " has shape " + tensor.shape() + ", not " + shape);
    }
    return tensor;
  }

  /** Unmaps the files; the tensors' data are invalid then. */
  @Override
  public void close() {
    arena.close();
  }

  /**
   * Writes one file, whole or not at all.
   *
   * @param metadata free text, such as {@code format: pt}, which other programs want to see
   * @throws FlotillaException {@code STORAGE}
   */
  public static void write(Path file, Map<String, String> metadata, List<Tensor> tensors) {
    ObjectNode header = Json.MAPPER.createObjectNode();
    ObjectNode free = header.putObject("__metadata__");
    metadata.forEach(free::put);
    long offset = 0;
    for (Tensor tensor : tensors) {
      ObjectNode entry = header.putObject(tensor.name()).put("dtype", tensor.type().name());
      tensor.shape().forEach(entry.putArray("shape")::add);
      long end = offset + tensor.data().byteSize();
      entry.putArray("data_offsets").add(offset).add(end);
      offset = end;
    }
    String json = new String(Json.write(header), StandardCharsets.UTF_8);
    // Readers map the data as floats, so it begins at a multiple of 8.
    byte[] padded = (json + " ".repeat(7)).getBytes(StandardCharsets.UTF_8);
    int length = padded.length / 8 * 8;
    WeightFiles.writeAtomically(
        file,
        channel -> {
          ByteBuffer start = ByteBuffer.allocate(8 + length).order(ByteOrder.LITTLE_ENDIAN);
          WeightFiles.writeFully(channel, start.putLong(length).put(padded, 0, length).flip());
          for (Tensor tensor : tensors) {
            long size = tensor.data().byteSize();
            for (long at = 0; at < size; at += 1 << 24) {
              MemorySegment part = tensor.data().asSlice(at, Math.min(1 << 24, size - at));
              WeightFiles.writeFully(channel, part.asByteBuffer());
            }
          }
        });
  }

  private static Map<String, Tensor> folder(Path folder, Arena arena) throws IOException {
    Path single = folder.resolve(SINGLE);
    if (Files.exists(single)) {
      return file(single, arena);
    }
    Path index = folder.resolve(INDEX);
    if (!Files.exists(index)) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "neither " + SINGLE + " nor " + INDEX + " is in " + folder,
          "Give a Hugging Face folder with safetensors; pickled weights are never read");
    }
    JsonNode weights = JsonFiles.read(index).path("weight_map");
    if (!weights.isObject()) {
      throw WeightFiles.bad(index.toString(), "weight_map is missing or not an object");
    }
    Map<String, String> shardOf = new TreeMap<>();
    weights.properties().forEach(entry -> shardOf.put(entry.getKey(), entry.getValue().asText()));
    Map<String, Map<String, Tensor>> shards = new TreeMap<>();
    for (String shard : new TreeSet<>(shardOf.values())) {
      if (!shard.matches("[A-Za-z0-9._-]+\\.safetensors")) {
        throw WeightFiles.bad(index.toString(), "weight_map names the file \"" + shard + "\"");
      }
      shards.put(shard, file(folder.resolve(shard), arena));
    }
    Map<String, Tensor> all = new TreeMap<>();
    shardOf.forEach(
        (name, shard) -> {
          Tensor tensor = shards.getOrDefault(shard, Map.of()).get(name);
          if (tensor == null) {
            throw WeightFiles.bad(shard, "tensor " + name + " is in the index but not here");
          }
          all.put(name, tensor);
        });
    return all;
  }

  private static Map<String, Tensor> file(Path file, Arena arena) throws IOException {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      MemorySegment bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      return parse(file.toString(), bytes);
    }
  }

  /** Parses a whole file; checks as strictly as the format's reference implementation. */
  static Map<String, Tensor> parse(String where, MemorySegment bytes) {
    refuseOtherKinds(where, bytes);
    if (bytes.byteSize() < 8) {
      throw WeightFiles.bad(where, "ends in the header's length: the file is cut short");
    }
    long length = bytes.get(LONG, 0);
    if (length < 2 || length > MAX_HEADER_BYTES) {
      throw WeightFiles.bad(
          where, "the header's length is " + Long.toUnsignedString(length) + " bytes");
    }
    if (length > bytes.byteSize() - 8) {
      throw WeightFiles.bad(
          where, "the header's length is " + length + " bytes, beyond the file: it is cut short");
    }
    JsonNode header;
    try {
      header = Json.MAPPER.readTree(bytes.asSlice(8, length).toArray(ValueLayout.JAVA_BYTE));
    } catch (IOException e) {
      throw WeightFiles.bad(where, "the header is not JSON: " + JsonFiles.reason(e));
    }
    if (!header.isObject()) {
      throw WeightFiles.bad(where, "the header is not a JSON object");
    }
    return tensors(where, header, bytes.asSlice(8 + length));
  }

  private record Extent(long begin, long end, String name) {}

  private static Map<String, Tensor> tensors(String where, JsonNode header, MemorySegment data) {
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    List<Extent> extents = new ArrayList<>();
    for (Map.Entry<String, JsonNode> entry : header.properties()) {
      if (entry.getKey().equals("__metadata__")) {
        continue;
      }
      String field = "tensor \"" + entry.getKey() + "\"";
      ElementType type = elementType(where, field, entry.getValue().path("dtype").asText());
      List<Integer> shape = new ArrayList<>();
      long size = elements(where, field, entry.getValue().path("shape"), shape) * type.bytes();
      JsonNode offsets = entry.getValue().path("data_offsets");
      long begin = offset(where, field, offsets, 0);
      long end = offset(where, field, offsets, 1);
      if (offsets.size() != 2 || end < begin || end > data.byteSize()) {
        throw WeightFiles.bad(
            where,
            "data_offsets "
                + offsets
                + " of "
                + field
                + " are not within the "
                + data.byteSize()
                + " bytes of data: the file is cut short or damaged");
      }
      if (end - begin != size) {
        throw WeightFiles.bad(
            where,
            "data_offsets " + offsets + " of " + field + " are not the " + size + " bytes it has");
      }
      extents.add(new Extent(begin, end, field));
      tensors.put(
          entry.getKey(),
          new Tensor(entry.getKey(), type, List.copyOf(shape), data.asSlice(begin, size)));
    }
    requireContiguous(where, extents, data.byteSize());
    return tensors;
  }

  private static void requireContiguous(String where, List<Extent> extents, long dataBytes) {
    extents.sort(Comparator.comparingLong(Extent::begin).thenComparingLong(Extent::end));
    long expected = 0;
    for (Extent extent : extents) {
      if (extent.begin() != expected) {
        throw WeightFiles.bad(
            where,
            "data_offsets of "
                + extent.name()
                + " begin at "
                + extent.begin()
                + ", not at "
                + expected
                + " where the one before ends");
      }
      expected = extent.end();
    }
    if (expected != dataBytes) {
      throw WeightFiles.bad(
          where, "holds " + dataBytes + " bytes of data, but the tensors take " + expected);
    }
  }

  private static ElementType elementType(String where, String field, String name) {
    return switch (name) {
      case "F32" -> ElementType.F32;
      case "F16" -> ElementType.F16;
      case "BF16" -> ElementType.BF16;
      default ->
          throw WeightFiles.bad(
              where,
              "dtype of " + field + " is \"" + name + "\"",
              "F32, F16 and BF16 are read here; convert the model to one of them");
    };
  }

  private static long elements(String where, String field, JsonNode shape, List<Integer> sizes) {
    if (!shape.isArray() || shape.size() > MAX_DIMENSIONS) {
      throw WeightFiles.bad(where, "shape of " + field + " is not a list of at most 8 sizes");
    }
    long elements = 1;
    for (JsonNode size : shape) {
      if (!size.isIntegralNumber() || !size.canConvertToInt() || size.asInt() < 0) {
        throw WeightFiles.bad(where, "shape of " + field + " has the size " + size);
      }
      sizes.add(size.asInt());
      elements *= size.asInt();
      // Sizes are below 2^31, so the product cannot have wrapped before it is refused here.
      if (elements > 1L << 32) {
        throw WeightFiles.bad(where, "shape of " + field + " has too many elements");
      }
    }
    return elements;
  }

  private static long offset(String where, String field, JsonNode offsets, int index) {
    JsonNode value = offsets.path(index);
    if (!value.isIntegralNumber() || !value.canConvertToLong() || value.asLong() < 0) {
      throw WeightFiles.bad(where, "data_offsets of " + field + " are " + offsets);
    }
    return value.asLong();
  }

  private static void refuseOtherKinds(String where, MemorySegment bytes) {
    if (bytes.byteSize() > 8 && bytes.get(ValueLayout.JAVA_BYTE, 8) == '{') {
      // The length before the header may have any bytes, those of a pickle's start too.
      return;
    }
    byte[] start = bytes.asSlice(0, Math.min(16, bytes.byteSize())).toArray(ValueLayout.JAVA_BYTE);
    String text = new String(start, StandardCharsets.ISO_8859_1);
    String kind = null;
    if (text.startsWith("PK")) {
      kind = "a zip archive (such as torch.save writes, with a pickle inside)";
    } else if (text.matches("(?s)\u0080[\u0002-\u0005].*")) {
      kind = "a Python pickle";
    } else if (text.startsWith("GGUF")) {
      kind = "a GGUF file";
    } else if (text.startsWith("version https:")) {
      kind = "a Git LFS pointer, not the file it stands for";
    } else if (text.startsWith("<")) {
      kind = "a web page";
    }
    if (kind != null) {
      throw WeightFiles.bad(
          where,
          "not safetensors but " + kind,
          "Give a real .safetensors file; pickles are never read, since they can run code");
    }
  }
}
