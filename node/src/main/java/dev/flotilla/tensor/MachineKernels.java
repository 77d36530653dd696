package dev.flotilla.tensor;

import static dev.flotilla.tensor.Assembler.R10;
import static dev.flotilla.tensor.Assembler.R11;
import static dev.flotilla.tensor.Assembler.R8;
import static dev.flotilla.tensor.Assembler.R9;
import static dev.flotilla.tensor.Assembler.RAX;
import static dev.flotilla.tensor.Assembler.RCX;
import static dev.flotilla.tensor.Assembler.RDI;
import static dev.flotilla.tensor.Assembler.RDX;
import static dev.flotilla.tensor.Assembler.RSI;
import static dev.flotilla.tensor.Assembler.at;
import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * The products of {@link IntegerKernels} in machine code, for processors whose instructions Java
 * has no way to: products of bytes (AVX-512 VNNI), prefetching, which is what a single row is bound
 * by, and the matrix unit (AMX). The bits are the same; where something is missing, {@link
 * #AVAILABLE} is false and the vector kernels do the work.
 *
 * <p>Code is written once, by {@link Assembler}, into memory that is executable and no longer
 * writable. {@code -Dflotilla.machine-code=false} leaves it out, {@code -Dflotilla.matrix-unit=false}
 * only the matrix unit.
 */
final class MachineKernels {

  /** Rows that the kernels for few take at most: so many sums have a register each. */
  static final int FEW = 8;

  /** Rows that the kernel for many takes at a time. */
  static final int MANY = 16;

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
  static final int TILES = 128;

  /** Bytes of it. */
  static final int PARAMETERS = 192;

  /** Two tiles of sums. */
  static final int SCRATCH_BYTES = 2048;

  /** How far ahead of their use weights are fetched, in bytes. */
  private static final int AHEAD = Integer.getInteger("flotilla.ahead", 4096);

  private static final int HALF_BITS = 0x8fffe000;

  private static final @Nullable Code CODE = write();

  /** Whether they can be used here. */
  static final boolean AVAILABLE = CODE != null;

  /** Whether {@link #many} can. */
  static final boolean MATRIX_UNIT = CODE != null && CODE.many != null;

  private static final MethodHandle CALL = call();

  /**
   * @param bytes functions for 1 to {@link #FEW} rows and weights of 8 bits
   * @param nibbles of 4 bits
   */
  private record Code(
      List<MemorySegment> bytes, List<MemorySegment> nibbles, @Nullable MemorySegment many) {}

  private MachineKernels() {}

  /**
   * Fills a block of parameters with what stays the same.
   *
   * @param scratch of {@link #SCRATCH_BYTES}, aligned to as many
   */
  static void prepare(MemorySegment parameters, MemorySegment scratch, MemorySegment sums) {
    parameters.fill((byte) 0);
    parameters.set(ValueLayout.JAVA_LONG, SCRATCH, scratch.address());
    parameters.set(ValueLayout.JAVA_LONG, SUMS, sums.address());
    parameters.set(ValueLayout.JAVA_INT, HALF_MASK, HALF_BITS);
    // Palette 1; bytes of a row and rows: sums, left and right of 32 columns.
    parameters.set(ValueLayout.JAVA_BYTE, TILES, (byte) 1);
    int[] rowBytes = {64, 32, 64};
    int[] rows = {MANY, MANY, QuantisedRows.BLOCK / 4};
    for (int tile = 0; tile < rows.length; tile++) {
      parameters.set(ValueLayout.JAVA_SHORT, TILES + 16 + 2 * tile, (short) rowBytes[tile]);
      parameters.set(ValueLayout.JAVA_BYTE, TILES + 48 + tile, (byte) rows[tile]);
    }
  }

  /** Room for so many rows. */
  static int allotted(int rows) {
    return byMatrixUnit(rows) ? (rows + MANY - 1) / MANY * MANY : rows;
  }

  /** Whether so many rows are worth it. */
  static boolean byMatrixUnit(int rows) {
    return MATRIX_UNIT && rows > FEW;
  }

  /** Sets what the products with one matrix have in common. */
  static void set(MemorySegment parameters, PackedMatrix weights, QuantisedRows x) {
    parameters.set(ValueLayout.JAVA_LONG, BLOCKS, x.blocks());
    parameters.set(ValueLayout.JAVA_LONG, ROWS_STRIDE, (long) QuantisedRows.BLOCK * x.allotted());
    parameters.set(ValueLayout.JAVA_LONG, SCALES_STRIDE, 4L * x.allotted());
    boolean bytes = weights.type() == WeightType.Q8_0;
    parameters.set(ValueLayout.JAVA_INT, MASK, bytes ? 0x80808080 : 0x0f0f0f0f);
    parameters.set(ValueLayout.JAVA_FLOAT, UNIT, weights.unit());
  }

  /**
   * Rows by a tile: writes {@code [count, 32]} sums.
   *
   * @param tile its address
   * @param first row
   * @param count at most {@link #FEW}
   */
  static void few(
      MemorySegment parameters, WeightType type, long tile, QuantisedRows x, int first, int count) {
    Code code = code();
    List<MemorySegment> functions = type == WeightType.Q8_0 ? code.bytes : code.nibbles;
    point(parameters, tile, x, first);
    run(functions.get(count - 1), parameters);
  }

  /**
   * {@link #MANY} rows by a tile of bytes: writes as many times 32 sums.
   *
   * @param tile its address
   */
  static void many(MemorySegment parameters, long tile, QuantisedRows x, int first) {
    MemorySegment function = code().many;
    if (function == null) {
      throw new IllegalStateException("no matrix unit");
    }
    point(parameters, tile, x, first);
    run(function, parameters);
  }

  private static void point(MemorySegment parameters, long tile, QuantisedRows x, int first) {
    parameters.set(ValueLayout.JAVA_LONG, WEIGHTS, tile);
    parameters.set(ValueLayout.JAVA_LONG, ROWS, x.bytesAddress() + QuantisedRows.BLOCK * first);
    parameters.set(ValueLayout.JAVA_LONG, ROW_SCALES, x.scalesAddress() + 4L * first);
    parameters.set(ValueLayout.JAVA_LONG, STARTS, x.startsAddress() + 4L * first);
  }

  private static Code code() {
    if (CODE == null) {
      throw new IllegalStateException("no machine code");
    }
    return CODE;
  }

  private static void run(MemorySegment function, MemorySegment parameters) {
    try {
      CALL.invokeExact(function, parameters.address());
    } catch (Throwable e) {
      throw new IllegalStateException("a kernel failed", e);
    }
  }

  // ------------------------------------------------------------------ the code

  /**
   * As many rows by a tile, in one pass over its memory. Of products of unsigned and signed bytes
   * the weights are the unsigned side: bytes with 128 added, nibbles as they are; what that adds to
   * a sum, 128 or 8 times the total of the row's numbers, is taken off where the sum starts.
   */
  private static byte[] few(WeightType type, int rows) {
    boolean bytes = type == WeightType.Q8_0;
    Assembler a = new Assembler();
    int ints = 16;
    int low = 24;
    int high = 25;
    int scale = 26;
    int both = 27;
    int unit = 29;
    int halfBits = 30;
    int mask = 31;
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R10, at(RDI, BLOCKS));
    a.load(RSI, at(RDI, ROWS));
    a.load(RDX, at(RDI, ROW_SCALES));
    a.load(RCX, at(RDI, STARTS));
    a.load(R8, at(RDI, ROWS_STRIDE));
    a.load(R9, at(RDI, SCALES_STRIDE));
    a.broadcast(mask, at(RDI, MASK));
    a.broadcast(halfBits, at(RDI, HALF_MASK));
    a.broadcast(unit, at(RDI, UNIT));
    for (int sum = 0; sum < 2 * rows; sum++) {
      a.zero(sum);
    }
    int blockBytes = TILE * type.blockBytes();
    int block = a.here();
    for (int line = 0; line < blockBytes; line += 64) {
      a.prefetch(at(RAX, AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      for (int row = 0; row < rows; row++) {
        a.broadcast(ints + row, at(RCX, 4 * row));
      }
      for (int at = 2 * TILE + 64 * half; at < blockBytes; at += 4 * TILE) {
        int column = (at - 2 * TILE) / (4 * TILE) * 4;
        if (bytes) {
          a.xor(low, mask, at(RAX, at));
        } else {
          a.and(low, mask, at(RAX, at));
          a.loadVector(high, at(RAX, at));
          a.shiftRight(high, high, 4);
          a.and(high, high, mask);
        }
        for (int row = 0; row < rows; row++) {
          a.addProducts(ints + row, low, at(RSI, QuantisedRows.BLOCK * row + column));
        }
        for (int row = 0; row < rows && !bytes; row++) {
          a.addProducts(ints + row, high, at(RSI, QuantisedRows.BLOCK * row + column + 16));
        }
      }
      scale(a, scale, at(RAX, 32 * half), halfBits, unit);
      for (int row = 0; row < rows; row++) {
        a.intsToFloats(ints + row, ints + row);
        a.multiplyByOne(both, scale, at(RDX, 4 * row));
        a.addProduct(2 * row + half, ints + row, both);
      }
    }
    a.addConstant(RAX, blockBytes);
    a.add(RSI, R8);
    a.add(RDX, R9);
    a.add(RCX, R9);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    a.load(RAX, at(RDI, SUMS));
    for (int sum = 0; sum < 2 * rows; sum++) {
      a.storeVector(at(RAX, 64 * sum), sum);
    }
    a.leave();
    return a.code();
  }

  /** 16 weights' scales, from halves. */
  private static void scale(
      Assembler a, int scale, Assembler.Address halves, int halfBits, int unit) {
    a.loadShorts(scale, halves);
    a.shiftLeft(scale, scale, 13);
    a.and(scale, scale, halfBits);
    a.multiply(scale, scale, unit);
  }

  /**
   * 16 rows by a tile of bytes, 16 of its rows after the other 16. While the vector unit adds one
   * block's sums, the matrix unit multiplies the next.
   */
  private static byte[] many() {
    Assembler a = new Assembler();
    int unit = 30;
    int halfBits = 31;
    a.configureTiles(at(RDI, TILES));
    a.broadcast(halfBits, at(RDI, HALF_MASK));
    a.broadcast(unit, at(RDI, UNIT));
    a.loadConstant(R9, QuantisedRows.BLOCK);
    a.load(R11, at(RDI, SCRATCH));
    for (int half = 0; half < 2; half++) {
      a.load(RAX, at(RDI, WEIGHTS));
      a.move(RCX, RAX);
      a.load(R10, at(RDI, BLOCKS));
      a.load(RSI, at(RDI, ROWS));
      a.load(RDX, at(RDI, ROW_SCALES));
      for (int row = 0; row < MANY; row++) {
        a.zero(row);
      }
      multiplyBlock(a, half);
      a.addConstant(R10, -1);
      int last = a.jumpForwardIfZero();
      int block = a.here();
      a.xorConstant(R11, SCRATCH_BYTES / 2);
      multiplyBlock(a, half);
      a.xorConstant(R11, SCRATCH_BYTES / 2);
      addBlock(a, half, halfBits, unit);
      a.xorConstant(R11, SCRATCH_BYTES / 2);
      a.addConstant(R10, -1);
      a.jumpIfNotZero(block);
      a.land(last);
      addBlock(a, half, halfBits, unit);
      a.load(R8, at(RDI, SUMS));
      for (int row = 0; row < MANY; row++) {
        a.storeVector(at(R8, 4 * TILE * row + 64 * half), row);
      }
    }
    a.releaseTiles();
    a.leave();
    return a.code();
  }

  private static void multiplyBlock(Assembler a, int half) {
    a.zeroTile(0);
    a.loadTile(1, at(RSI, 0), R9, 1);
    a.loadTile(2, at(RAX, 2 * TILE + 64 * half), R9, 4);
    a.addTileProducts(0, 1, 2);
    a.storeTile(at(R11, 0), R9, 2, 0);
    a.add(RSI, at(RDI, ROWS_STRIDE));
    a.addConstant(RAX, TILE * WeightType.Q8_0.blockBytes());
  }

  private static void addBlock(Assembler a, int half, int halfBits, int unit) {
    int scale = 16;
    scale(a, scale, at(RCX, 32 * half), halfBits, unit);
    for (int row = 0; row < MANY; row++) {
      int sum = 17 + row % 4;
      int both = 21 + row % 4;
      a.intsToFloats(sum, at(R11, 64 * row));
      a.multiplyByOne(both, scale, at(RDX, 4 * row));
      a.addProduct(row, sum, both);
    }
    a.add(RDX, at(RDI, SCALES_STRIDE));
    a.addConstant(RCX, TILE * WeightType.Q8_0.blockBytes());
  }

  // ------------------------------------------------------------------ putting it in place

  private static @Nullable Code write() {
    if (!Boolean.parseBoolean(System.getProperty("flotilla.machine-code", "true"))
        || Kernels.lanes() < 16
        || !System.getProperty("os.arch").equals("amd64")) {
      return null;
    }
    String processor = processor();
    if (!has(processor, "avx512f") || !has(processor, "avx512_vnni")) {
      return null;
    }
    List<byte[]> functions = new ArrayList<>();
    for (WeightType type : List.of(WeightType.Q8_0, WeightType.Q4_0)) {
      for (int rows = 1; rows <= FEW; rows++) {
        functions.add(few(type, rows));
      }
    }
    boolean matrixUnit =
        Boolean.parseBoolean(System.getProperty("flotilla.matrix-unit", "true"))
            && has(processor, "amx_int8")
            && SystemCalls.permitTiles();
    if (matrixUnit) {
      functions.add(many());
    }
    List<MemorySegment> placed = SystemCalls.executable(functions);
    return placed.isEmpty()
        ? null
        : new Code(
            placed.subList(0, FEW),
            placed.subList(FEW, 2 * FEW),
            matrixUnit ? placed.getLast() : null);
  }

  private static boolean has(String processor, String feature) {
    return Pattern.compile("^flags\\s*:.*\\b" + feature + "\\b", Pattern.MULTILINE)
        .matcher(processor)
        .find();
  }

  private static String processor() {
    try {
      return Files.readString(Path.of("/proc/cpuinfo"));
    } catch (IOException e) {
      return ""; // not Linux
    }
  }

  @SuppressWarnings("restricted") // the launcher grants native access
  private static MethodHandle call() {
    // A kernel takes microseconds: no safepoint waits for it.
    return Linker.nativeLinker()
        .downcallHandle(
            FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG), Linker.Option.critical(false));
  }
}
