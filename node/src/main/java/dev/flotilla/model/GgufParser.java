package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.tensor.WeightType;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;

/**
 * Parses one GGUF head. Files come from strangers, so every count is held against what the bytes
 * that follow could contain before anything is allocated for it, and every error names the field.
 */
final class GgufParser {

  /** The key of what tensors' offsets are multiples of. */
  static final String ALIGNMENT = "general.alignment";

  static final int MAGIC = 0x46554747;

  /** GGUF's numbers of value types. */
  static final int UINT8 = 0;

  static final int INT8 = 1;
  static final int UINT16 = 2;
  static final int INT16 = 3;
  static final int UINT32 = 4;
  static final int INT32 = 5;
  static final int FLOAT32 = 6;
  static final int BOOL = 7;
  static final int STRING = 8;
  static final int ARRAY = 9;
  static final int UINT64 = 10;
  static final int INT64 = 11;
  static final int FLOAT64 = 12;

  private static final int MAX_KEYS = 10_000;
  private static final int MAX_TENSORS = 100_000;
  private static final int MAX_DIMENSIONS = 4;
  private static final int MAX_NAME_BYTES = 64 * 1024;
  private static final int MAX_STRING_BYTES = 64 * 1024 * 1024;
  private static final int MAX_ARRAY_ELEMENTS = 4_000_000;
  private static final int MAX_ALIGNMENT = 1 << 20;

  /** Over all strings and arrays: the heap that a hostile head can take. */
  private static final long MAX_HEAD_BYTES = 256L * 1024 * 1024;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfLong LONG =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final String where;
  private final MemorySegment head;
  private final long fileBytes;
  private long position;
  private long arrayElements;
  private final Map<String, Extent> extents = new LinkedHashMap<>();

  GgufParser(String where, MemorySegment head, long fileBytes) {
    this.where = where;
    this.head = head.asSlice(0, Math.min(head.byteSize(), MAX_HEAD_BYTES)).asReadOnly();
    this.fileBytes = fileBytes;
  }

  /** Which bytes of the head a key and its value take. */
  private record Extent(long begin, long end) {}

  GgufHeader parse() {
    if (head.byteSize() < 4 || head.get(INT, 0) != MAGIC) {
      throw WeightFiles.bad(
          where, "not a GGUF file: it does not begin with \"GGUF\"", "Give a GGUF file");
    }
    position = 4;
    int version = int32("version");
    if (version != 2 && version != 3) {
      throw WeightFiles.bad(
          where,
          "GGUF version " + Integer.toUnsignedString(version) + " is not read here",
          "Versions 2 and 3 in little-endian order are; convert it again with current tools");
    }
    int tensorCount = count("tensor count", MAX_TENSORS, 24);
    int keyCount = count("metadata count", MAX_KEYS, 12);
    Map<String, Object> metadata = metadata(keyCount);
    int alignment = alignment(metadata);
    List<TensorInfo> relative = tensorInfos(tensorCount, alignment);
    long headBytes = Math.ceilDiv(position, (long) alignment) * alignment;
    return new GgufHeader(
        version, alignment, headBytes, fileBytes, metadata, place(relative, headBytes));
  }

  /**
   * The keys and values chosen, in the bytes that the head has for them.
   *
   * @param keys after {@link #parse}
   */
  byte[] metadataBytes(Predicate<String> keys) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    extents.forEach(
        (key, extent) -> {
          if (keys.test(key)) {
            MemorySegment part = head.asSlice(extent.begin(), extent.end() - extent.begin());
            bytes.writeBytes(part.toArray(ValueLayout.JAVA_BYTE));
          }
        });
    return bytes.toByteArray();
  }

  private Map<String, Object> metadata(int keyCount) {
    Map<String, Object> metadata = new LinkedHashMap<>();
    for (int i = 0; i < keyCount; i++) {
      long from = position;
      String key = string("key " + i, MAX_NAME_BYTES);
      String field = "metadata " + quote(key);
      int type = int32("type of " + field);
      Object value = type == ARRAY ? array(field) : scalar(type, field);
      if (metadata.put(key, value) != null) {
        throw bad(field + " is there twice");
      }
      extents.put(key, new Extent(from, position));
    }
    return metadata;
  }

  private int alignment(Map<String, Object> metadata) {
    Object value = metadata.getOrDefault(ALIGNMENT, (long) GgufWriter.ALIGNMENT);
    if (!(value instanceof Long bytes)
        || bytes < 1
        || bytes > MAX_ALIGNMENT
        || Long.bitCount(bytes) != 1) {
      throw bad("metadata \"general.alignment\" is " + value + ", not a power of two");
    }
    return bytes.intValue();
  }

  private List<TensorInfo> tensorInfos(int tensorCount, int alignment) {
    List<TensorInfo> infos = new ArrayList<>(tensorCount);
    for (int i = 0; i < tensorCount; i++) {
      String name = string("name of tensor " + i, MAX_NAME_BYTES);
      String field = "tensor " + quote(name);
      int dimensions = int32("dimension count of " + field);
      if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
        throw bad(
            field + " has " + Integer.toUnsignedString(dimensions) + " dimensions, not 1 to 4");
      }
      List<Integer> shape = new ArrayList<>(dimensions);
      long elements = 1;
      for (int d = 0; d < dimensions; d++) {
        long size = int64("dimension " + d + " of " + field);
        if (size < 1 || size > Integer.MAX_VALUE) {
          throw bad("dimension " + d + " of " + field + " is " + Long.toUnsignedString(size));
        }
        shape.add((int) size);
        elements = product(elements, size, field);
      }
      if (elements / shape.getFirst() > Integer.MAX_VALUE) {
        throw bad("the dimensions " + shape + " of " + field + " multiply to too many rows");
      }
      WeightType type = weightType(int32("type of " + field), field);
      if (shape.getFirst() % type.blockElements() != 0) {
        throw bad(field + " has rows of " + shape.getFirst() + ", which " + type + " cannot hold");
      }
      long offset = int64("offset of " + field);
      if (offset < 0 || offset % alignment != 0) {
        throw bad(
            "offset "
                + Long.toUnsignedString(offset)
                + " of "
                + field
                + " is not a multiple of the alignment "
                + alignment);
      }
      infos.add(
          new TensorInfo(name, List.copyOf(shape), type, offset, bytes(type, elements, field)));
    }
    return infos;
  }

  private Map<String, TensorInfo> place(List<TensorInfo> relative, long headBytes) {
    Map<String, TensorInfo> placed = new LinkedHashMap<>();
    for (TensorInfo info : relative) {
      long room = fileBytes - headBytes - info.bytes();
      if (info.offset() > room) {
        throw bad(
            "tensor "
                + quote(info.name())
                + " ("
                + info.bytes()
                + " bytes at "
                + info.offset()
                + " of the data) ends beyond the file's "
                + fileBytes
                + " bytes: the file is cut short");
      }
      TensorInfo absolute =
          new TensorInfo(
              info.name(), info.shape(), info.type(), headBytes + info.offset(), info.bytes());
      if (placed.put(info.name(), absolute) != null) {
        throw bad("tensor " + quote(info.name()) + " is there twice");
      }
    }
    List<TensorInfo> ordered = new ArrayList<>(placed.values());
    ordered.sort(Comparator.comparingLong(TensorInfo::offset));
    for (int i = 1; i < ordered.size(); i++) {
      TensorInfo before = ordered.get(i - 1);
      if (before.offset() + before.bytes() > ordered.get(i).offset()) {
        throw bad(
            "tensors "
                + quote(before.name())
                + " and "
                + quote(ordered.get(i).name())
                + " overlap");
      }
    }
    return placed;
  }

  private WeightType weightType(int number, String field) {
    return GgufTypes.ofNumber(number)
        .orElseThrow(
            () ->
                WeightFiles.bad(
                    where,
                    field + " is of type " + GgufTypes.name(number) + ", which does not run here",
                    "Convert the model to one of " + Arrays.toString(WeightType.values())));
  }

  private Object scalar(int type, String field) {
    return switch (type) {
      case UINT8 -> (long) Byte.toUnsignedInt(int8(field));
      case INT8 -> (long) int8(field);
      case UINT16 -> (long) Short.toUnsignedInt(int16(field));
      case INT16 -> (long) int16(field);
      case UINT32 -> Integer.toUnsignedLong(int32(field));
      case INT32 -> (long) int32(field);
      case FLOAT32 -> (double) Float.intBitsToFloat(int32(field));
      case BOOL -> bool(field);
      case STRING -> string(field, MAX_STRING_BYTES);
      case UINT64 -> {
        long value = int64(field);
        if (value < 0) {
          throw bad(field + " is " + Long.toUnsignedString(value) + ", beyond 2^63");
        }
        yield value;
      }
      case INT64 -> int64(field);
      case FLOAT64 -> Double.longBitsToDouble(int64(field));
      default -> throw bad(field + " is of unknown type " + Integer.toUnsignedString(type));
    };
  }

  private List<Object> array(String field) {
    int type = int32("element type of " + field);
    int smallest =
        switch (type) {
          case UINT8, INT8, BOOL -> 1;
          case UINT16, INT16 -> 2;
          case UINT32, INT32, FLOAT32 -> 4;
          case STRING, UINT64, INT64, FLOAT64 -> 8;
          case ARRAY -> throw bad(field + " is an array of arrays");
          default ->
              throw bad(field + " has elements of unknown type " + Integer.toUnsignedString(type));
        };
    int length = count("length of " + field, MAX_ARRAY_ELEMENTS, smallest);
    arrayElements += length;
    if (arrayElements > MAX_ARRAY_ELEMENTS) {
      throw bad(field + " brings the arrays to more than " + MAX_ARRAY_ELEMENTS + " elements");
    }
    List<Object> values = new ArrayList<>(length);
    for (int i = 0; i < length; i++) {
      values.add(scalar(type, field));
    }
    return Collections.unmodifiableList(values);
  }

  /** A count of things that take at least so many bytes each. */
  private int count(String field, int most, int bytesEach) {
    long count = int64(field);
    if (count < 0 || count > most) {
      throw bad(field + " is " + Long.toUnsignedString(count) + ", more than " + most);
    }
    if (count * bytesEach > head.byteSize() - position) {
      throw bad(
          field
              + " is "
              + count
              + ", but only "
              + (head.byteSize() - position)
              + " bytes follow: the file is cut short or damaged");
    }
    return (int) count;
  }

  private String string(String field, int mostBytes) {
    int length = count("length of " + field, mostBytes, 1);
    ByteBuffer bytes = head.asSlice(position, length).asByteBuffer();
    position += length;
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(bytes).toString();
    } catch (CharacterCodingException e) {
      throw bad(field + " is not UTF-8");
    }
  }

  private boolean bool(String field) {
    byte value = int8(field);
    if (value != 0 && value != 1) {
      throw bad(field + " is " + value + ", not a truth value");
    }
    return value == 1;
  }

  private byte int8(String field) {
    return head.get(ValueLayout.JAVA_BYTE, advance(1, field));
  }

  private short int16(String field) {
    return head.get(SHORT, advance(2, field));
  }

  private int int32(String field) {
    return head.get(INT, advance(4, field));
  }

  private long int64(String field) {
    return head.get(LONG, advance(8, field));
  }

  private long advance(int bytes, String field) {
    if (head.byteSize() - position < bytes) {
      throw bad("ends in " + field + ": the file is cut short");
    }
    long at = position;
    position += bytes;
    return at;
  }

  private long product(long elements, long size, String field) {
    try {
      return Math.multiplyExact(elements, size);
    } catch (ArithmeticException e) {
      throw bad("the dimensions of " + field + " multiply to more than 2^63");
    }
  }

  private long bytes(WeightType type, long elements, String field) {
    try {
      return type.bytes(elements);
    } catch (ArithmeticException e) {
      throw bad("the dimensions of " + field + " multiply to more than 2^63 bytes");
    }
  }

  private static String quote(String name) {
    String printable = name.replaceAll("\\p{Cntrl}", "?");
    return '"' + (printable.length() > 80 ? printable.substring(0, 80) + "…" : printable) + '"';
  }

  private FlotillaException bad(String what) {
    return WeightFiles.bad(where, what);
  }
}
