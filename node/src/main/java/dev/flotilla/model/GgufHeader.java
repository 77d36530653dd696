package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Predicate;

/**
 * The head of a GGUF file, versions 2 and 3: metadata and where each tensor lies. The format is
 * specified in ggml's {@code docs/gguf.md}.
 *
 * <p>Parsed from the head's bytes alone, so that a node which holds a few layers of a model need
 * not have the file.
 */
public final class GgufHeader {

  /**
   * A tensor.
   *
   * @param shape fastest dimension first, as in the file: a matrix {@code [out, in]} has shape
   *     {@code (in, out)}
   * @param offset of its first byte in the file
   * @param bytes its size
   */
  public record TensorInfo(
      String name, List<Integer> shape, WeightType type, long offset, long bytes) {

    /** How many rows: the product of all dimensions but the first. */
    public int rows() {
      int rows = 1;
      for (int dimension : shape.subList(1, shape.size())) {
        rows *= dimension;
      }
      return rows;
    }

    /** Elements of a row. */
    public int columns() {
      return shape.getFirst();
    }
  }

  private final int version;
  private final int alignment;
  private final long headBytes;
  private final long fileBytes;
  private final Map<String, Object> metadata;
  private final Map<String, TensorInfo> tensors;

  GgufHeader(
      int version,
      int alignment,
      long headBytes,
      long fileBytes,
      Map<String, Object> metadata,
      Map<String, TensorInfo> tensors) {
    this.version = version;
    this.alignment = alignment;
    this.headBytes = headBytes;
    this.fileBytes = fileBytes;
    this.metadata = Collections.unmodifiableMap(new LinkedHashMap<>(metadata));
    this.tensors = Collections.unmodifiableMap(new LinkedHashMap<>(tensors));
  }

  /**
   * Parses a head.
   *
   * @param where names the file in errors
   * @param head the file's first bytes, at least {@link #headBytes} of them
   * @param fileBytes the size of the whole file, which every tensor must lie within
   * @throws FlotillaException {@code BAD_FILE} naming the field, before anything of the size that
   *     it claims is allocated
   */
  public static GgufHeader parse(String where, MemorySegment head, long fileBytes) {
    return new GgufParser(where, head, fileBytes).parse();
  }

  /** As {@link #parse(String, MemorySegment, long)}. */
  public static GgufHeader parse(String where, byte[] head, long fileBytes) {
    return parse(where, MemorySegment.ofArray(head), fileBytes);
  }

  /**
   * Reads the head of a file.
   *
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  public static GgufHeader read(Path file) {
    try {
      return read(file, Files.size(file));
    } catch (IOException e) {
      throw WeightFiles.failure("read", file, e);
    }
  }

  /**
   * As {@link #read(Path)}, from a file that holds at least the head.
   *
   * @param fileBytes the size of the whole file
   */
  public static GgufHeader read(Path file, long fileBytes) {
    try (Arena arena = Arena.ofConfined();
        FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      MemorySegment bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      return parse(file.toString(), bytes, fileBytes);
    } catch (IOException e) {
      throw WeightFiles.failure("read", file, e);
    }
  }

  /** Some keys and values of a file, in the bytes that it has for them. */
  static byte[] metadataBytes(Path file, Predicate<String> keys) {
    try (Arena arena = Arena.ofConfined();
        FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      MemorySegment bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      GgufParser parser = new GgufParser(file.toString(), bytes, bytes.byteSize());
      parser.parse();
      return parser.metadataBytes(keys);
    } catch (IOException e) {
      throw WeightFiles.failure("read", file, e);
    }
  }

  /** The format's version, 2 or 3. */
  public int version() {
    return version;
  }

  /** What tensors' offsets are multiples of. */
  public int alignment() {
    return alignment;
  }

  /** Bytes from the start of the file that hold the head; tensors begin here. */
  public long headBytes() {
    return headBytes;
  }

  /** Bytes of the whole file. */
  public long fileBytes() {
    return fileBytes;
  }

  /**
   * All metadata, in the file's order. Integers of every width are {@link Long}, floats {@link
   * Double}, arrays unmodifiable lists of one of these, of {@link Boolean} or of {@link String}.
   */
  public Map<String, Object> metadata() {
    return metadata;
  }

  /** All tensors, in the file's order. */
  public List<TensorInfo> tensors() {
    return List.copyOf(tensors.values());
  }

  /** Bytes of the tensors whose names are wanted, by the label of their type, such as q8_0. */
  public Map<String, Long> bytesByType(Predicate<String> names) {
    Map<String, Long> bytes = new TreeMap<>();
    for (TensorInfo tensor : tensors.values()) {
      if (names.test(tensor.name())) {
        bytes.merge(LayerSpeeds.label(tensor.type()), tensor.bytes(), Long::sum);
      }
    }
    return bytes;
  }

  /** One tensor. */
  public Optional<TensorInfo> tensor(String name) {
    return Optional.ofNullable(tensors.get(name));
  }

  /**
   * The model's shape, after checking that the file is of a kind that runs here and has every
   * tensor, in its right shape.
   *
   * @throws FlotillaException {@code BAD_FILE} naming the architecture, key or tensor
   */
  public ModelConfig modelConfig() {
    return GgufConfig.read(this);
  }

  /** The tensors that a slice of this model needs, embedding and output included where due. */
  public List<TensorInfo> sliceTensors(LayerRange range) {
    return ModelTensors.names(modelConfig(), range).stream()
        .map(name -> tensor(name).orElseThrow())
        .toList();
  }
}
