package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * The products of {@link IntegerKernels} and {@link Kernels} in machine code, for processors whose
 * instructions Java has no way to: products of bytes (AVX-512 VNNI), prefetching, which is what a
 * single row is bound by, and the matrix unit (AMX). The bits are the same; where something is
 * missing, {@link #AVAILABLE} is false and the vector kernels do the work.
 *
 * <p>Code is written once, by {@link VectorCode} and {@link MatrixCode}, into memory that is
 * executable and no longer writable. {@link Processor} says how to leave it out.
 */
final class MachineKernels {

  /** Rows that the vector unit takes at once: so many sums have a register each. */
  static final int FEW = 8;

  /** Rows that the matrix unit takes at once. */
  static final int MANY = 16;

  /** Rows that it can take as well as the vector unit does. */
  private static final int WORTH_A_MATRIX = 5;

  /** Its kernels are for multiples. */
  private static final int STEP = 4;

  /** Up to so many rows, nibbles become bytes in the kernel. */
  private static final int UNPACKED_ONCE = 8;

  /** Tiles that are multiplied in one call at most. */
  static final int TILES_AT_ONCE = 32;

  /** Bytes of tiles that are read in one call: no safepoint comes in between. */
  private static final long CALL_BYTES = 1 << 20;

  /** Runs of tiles that a thread has in turns: in a run, memory is read without a gap. */
  private static final int RUNS = 8;

  // What a kernel is given: a block of memory.
  static final int WEIGHTS = 0;
  static final int BLOCKS = 8;
  static final int ROWS = 16;
  static final int ROW_SCALES = 24;
  static final int STARTS = 32;
  static final int ROWS_STRIDE = 40;
  static final int SCALES_STRIDE = 48;
  static final int SUMS = 56;
  static final int SCRATCH = 64;
  static final int MASK = 72;
  static final int HALF_MASK = 76;
  static final int UNIT = 80;
  static final int EIGHTS = 84;
  static final int LAST_PRODUCT = 88;
  static final int LAST_NIBBLES = 96;
  static final int SUMS_END = 104;
  static final int STARTS_STRIDE = 112;
  static final int HIGH_MASK = 120;
  static final int ZEROS = 128;
  static final int TILES = 192;
  static final int HEADS = TILES + 4 * 64;

  /** Bytes of it. */
  static final int PARAMETERS = HEADS + 4 * 64;

  /** How far ahead of their use weights are fetched, in bytes. */
  static final int AHEAD = 8192;

  /** Of a half, shifted into the place of a single: all but copies of its sign. */
  static final int HALF_BITS = 0x8fffe000;

  private static final @Nullable Code CODE = write();

  /** Whether they can be used here. */
  static final boolean AVAILABLE = CODE != null;

  /** Whether the matrix unit can. */
  static final boolean MATRIX_UNIT = CODE != null && !CODE.unitBytes.isEmpty();

  private static final MethodHandle CALL = call();

  /**
   * @param few functions for 1 to {@link #FEW} rows
   * @param unitBytes of the matrix unit, for weights of 8 bits and {@link #STEP} to {@link #MANY}
   *     rows, or none
   * @param unitNibbles for 4 bits, to {@link #UNPACKED_ONCE}
   */
  private record Code(
      Map<WeightType, List<MemorySegment>> few,
      List<MemorySegment> unitBytes,
      List<MemorySegment> unitNibbles) {}

  private MachineKernels() {}

  /**
   * Fills a block of parameters with what stays the same.
   *
   * @param scratch of {@link MatrixCode#SCRATCH_BYTES}, aligned to as many
   */
  static void prepare(MemorySegment parameters, MemorySegment scratch, MemorySegment sums) {
    parameters.fill((byte) 0);
    parameters.set(ValueLayout.JAVA_LONG, SCRATCH, scratch.address());
    parameters.set(ValueLayout.JAVA_LONG, SUMS, sums.address());
    parameters.set(ValueLayout.JAVA_INT, HALF_MASK, HALF_BITS);
    parameters.set(ValueLayout.JAVA_INT, EIGHTS, 0x08080808);
    for (int rows = 4; rows <= MANY; rows += 4) {
      long to = TILES + 64L * (rows / 4 - 1);
      // Palette 1; then bytes of a row and rows: two of sums, rows, two of weights.
      parameters.set(ValueLayout.JAVA_BYTE, to, (byte) 1);
      int[] rowBytes = {64, 64, QuantisedRows.BLOCK, 64, 64};
      int[] counts = {rows, rows, rows, QuantisedRows.BLOCK / 4, QuantisedRows.BLOCK / 4};
      for (int tile = 0; tile < counts.length; tile++) {
        parameters.set(ValueLayout.JAVA_SHORT, to + 16 + 2L * tile, (short) rowBytes[tile]);
        parameters.set(ValueLayout.JAVA_BYTE, to + 48 + tile, (byte) counts[tile]);
      }
    }
  }

  /** How many tiles are one item of work. */
  static int run(int tiles, int threads) {
    return Math.max(1, tiles / (RUNS * threads));
  }

  /** How many tiles are multiplied in one call. */
  static int tilesAtOnce(PackedMatrix weights) {
    return Math.clamp(CALL_BYTES / weights.tileOffset(1), 1, TILES_AT_ONCE);
  }

  /**
   * Takes over the sums of one tile.
   *
   * @param sums {@code [tiles, count, 32]}
   * @param index of the tile in them
   * @param first row that they are of
   * @param tile of the weights
   */
  static void copySums(
      MemorySegment sums,
      int index,
      int first,
      int count,
      int tile,
      PackedMatrix weights,
      Matrix result) {
    int column = tile * TILE;
    int valid = Math.min(TILE, weights.out() - column);
    for (int row = 0; row < count; row++) {
      MemorySegment.copy(
          sums,
          ValueLayout.JAVA_FLOAT,
          4L * TILE * (index * count + row),
          result.values(),
          (first + row) * weights.out() + column,
          valid);
    }
  }

  /** Room for so many rows. */
  static int allotted(WeightType type, int rows) {
    return byMatrixUnit(type, rows) ? (rows + STEP - 1) / STEP * STEP : rows;
  }

  static boolean byMatrixUnit(WeightType type, int rows) {
    return MATRIX_UNIT
        && rows >= WORTH_A_MATRIX
        && (type == WeightType.Q8_0 || type == WeightType.Q4_0);
  }

  /** Whether weights of 4 bits must have been brought to bytes for so many rows. */
  static boolean wantsBytes(WeightType type, int rows) {
    return byMatrixUnit(type, rows) && rows > UNPACKED_ONCE;
  }

  /** How many rows {@link #multiply} takes at most, of so many. */
  static int atOnce(WeightType type, int rows) {
    return byMatrixUnit(type, rows) ? MANY : FEW;
  }

  /** Sets what the products with one matrix of quantised weights have in common. */
  static void set(MemorySegment parameters, PackedMatrix weights, QuantisedRows x) {
    WeightType type = weights.type();
    parameters.set(ValueLayout.JAVA_LONG, BLOCKS, weights.in() / type.blockElements());
    parameters.set(ValueLayout.JAVA_LONG, LAST_PRODUCT, x.blocks() + MatrixCode.DISTANCE);
    parameters.set(ValueLayout.JAVA_LONG, LAST_NIBBLES, x.blocks() + 2 * MatrixCode.DISTANCE);
    parameters.set(ValueLayout.JAVA_LONG, ROWS_STRIDE, (long) QuantisedRows.BLOCK * x.allotted());
    parameters.set(ValueLayout.JAVA_LONG, SCALES_STRIDE, 4L * x.allotted());
    parameters.set(ValueLayout.JAVA_LONG, STARTS_STRIDE, x.startsStride());
    parameters.set(ValueLayout.JAVA_INT, MASK, type == WeightType.Q8_0 ? 0x80808080 : 0x0f0f0f0f);
    parameters.set(
        ValueLayout.JAVA_INT, HIGH_MASK, type == WeightType.Q6_K ? 0x30303030 : 0x10101010);
    parameters.set(ValueLayout.JAVA_FLOAT, UNIT, weights.unit());
  }

  /**
   * Rows by tiles of quantised weights that follow one another: writes {@code [tiles, count, 32]}
   * sums.
   *
   * @param type of the tiles
   * @param from address of the first
   * @param tiles how many; one only for the matrix unit
   * @param first row, a multiple of {@link #atOnce}
   * @param count of rows, at most {@link #atOnce}
   */
  static void multiply(
      MemorySegment parameters,
      WeightType type,
      long from,
      int tiles,
      QuantisedRows x,
      int first,
      int count) {
    parameters.set(ValueLayout.JAVA_LONG, ROW_SCALES, x.scalesAddress() + 4L * first);
    parameters.set(ValueLayout.JAVA_LONG, STARTS, x.startsAddress(first));
    long rows = x.bytesAddress() + (long) QuantisedRows.BLOCK * first;
    if (byMatrixUnit(type, x.rows())) {
      Code code = code();
      List<MemorySegment> functions = type == WeightType.Q8_0 ? code.unitBytes : code.unitNibbles;
      run(functions.get((count - 1) / STEP), parameters, from, tiles, rows, count);
    } else {
      run(few(type, count), parameters, from, tiles, rows, count);
    }
  }

  /**
   * Rows by tiles of plain weights that follow one another: writes {@code [tiles, count, 32]} sums.
   *
   * @param rows address of {@code [columns, count]} floats
   * @param count of rows, at most {@link #FEW}
   */
  static void multiplyPlain(
      MemorySegment parameters, PackedMatrix weights, long from, int tiles, long rows, int count) {
    parameters.set(ValueLayout.JAVA_LONG, BLOCKS, weights.in());
    run(few(weights.type(), count), parameters, from, tiles, rows, count);
  }

  private static Code code() {
    if (CODE == null) {
      throw new IllegalStateException("no machine code");
    }
    return CODE;
  }

  private static MemorySegment few(WeightType type, int rows) {
    return Objects.requireNonNull(code().few.get(type)).get(rows - 1);
  }

  private static void run(
      MemorySegment function,
      MemorySegment parameters,
      long from,
      int tiles,
      long rows,
      int count) {
    parameters.set(ValueLayout.JAVA_LONG, WEIGHTS, from);
    parameters.set(ValueLayout.JAVA_LONG, ROWS, rows);
    long sums = parameters.get(ValueLayout.JAVA_LONG, SUMS);
    parameters.set(ValueLayout.JAVA_LONG, SUMS_END, sums + 4L * TILE * tiles * count);
    try {
      CALL.invokeExact(function, parameters.address());
    } catch (Throwable e) {
      throw new IllegalStateException("a kernel failed", e);
    }
  }

  private static @Nullable Code write() {
    if (!Processor.has("avx512_vnni") || !Processor.has("avx512bw")) {
      return null;
    }
    List<byte[]> functions = new ArrayList<>();
    for (WeightType type : WeightType.values()) {
      for (int rows = 1; rows <= FEW; rows++) {
        functions.add(VectorCode.function(type, rows));
      }
    }
    boolean matrixUnit = Processor.hasMatrixUnit("amx_int8");
    if (matrixUnit) {
      for (int rows = STEP; rows <= MANY; rows += STEP) {
        functions.add(MatrixCode.function(WeightType.Q8_0, rows));
      }
      for (int rows = STEP; rows <= UNPACKED_ONCE; rows += STEP) {
        functions.add(MatrixCode.function(WeightType.Q4_0, rows));
      }
    }
    List<MemorySegment> placed = SystemCalls.executable(functions);
    if (placed.isEmpty()) {
      return null;
    }
    Map<WeightType, List<MemorySegment>> few = new EnumMap<>(WeightType.class);
    for (WeightType type : WeightType.values()) {
      few.put(type, placed.subList(FEW * few.size(), FEW * (few.size() + 1)));
    }
    int firstOfUnit = FEW * few.size();
    int unitBytes = matrixUnit ? MANY / STEP : 0;
    return new Code(
        few,
        placed.subList(firstOfUnit, firstOfUnit + unitBytes),
        placed.subList(firstOfUnit + unitBytes, placed.size()));
  }

  @SuppressWarnings("restricted") // the launcher grants native access
  private static MethodHandle call() {
    // A kernel takes a tenth of a millisecond at most: no safepoint waits for it.
    return Linker.nativeLinker()
        .downcallHandle(
            FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG), Linker.Option.critical(false));
  }
}
