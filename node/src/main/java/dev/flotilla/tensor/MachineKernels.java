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

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The products of {@link IntegerKernels} in machine code, for processors whose instructions Java
 * has no way to: products of bytes (AVX-512 VNNI), prefetching, which is what a single row is bound
 * by, and the matrix unit (AMX). The bits are the same; where something is missing, {@link
 * #AVAILABLE} is false and the vector kernels do the work.
 *
 * <p>Code is written once, by {@link Assembler}, into memory that is executable and no longer
 * writable. {@link Processor} says how to leave it out.
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
  static final int ZEROS = 128;
  static final int TILES = 192;

  /** Bytes of it. */
  static final int PARAMETERS = TILES + 4 * 64;

  /** How many blocks lie between two stages. */
  private static final int DISTANCE = 4;

  /** What a stage leaves of a block for the next one: at most 12 rows twice. */
  private static final int SLOT = 2048;

  private static final int RING = 2 * DISTANCE * SLOT;

  /** A ring of sums, and one of bytes. */
  static final int SCRATCH_BYTES = 2 * RING;

  private static final int EIGHTS_REGISTER = 28;
  private static final int MASK_REGISTER = 29;
  private static final int UNIT_REGISTER = 30;
  private static final int HALF_BITS_REGISTER = 31;

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
   * @param bytes functions for 1 to {@link #FEW} rows and weights of 8 bits
   * @param nibbles the same for 4 bits
   * @param unitBytes for {@link #STEP} to {@link #MANY} rows, or none
   * @param unitNibbles to {@link #UNPACKED_ONCE}
   */
  private record Code(
      List<MemorySegment> bytes,
      List<MemorySegment> nibbles,
      List<MemorySegment> unitBytes,
      List<MemorySegment> unitNibbles) {}

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

  /** Room for so many rows. */
  static int allotted(int rows) {
    return byMatrixUnit(rows) ? (rows + STEP - 1) / STEP * STEP : rows;
  }

  static boolean byMatrixUnit(int rows) {
    return MATRIX_UNIT && rows >= WORTH_A_MATRIX;
  }

  /** Whether weights of 4 bits must have been brought to bytes for so many rows. */
  static boolean wantsBytes(int rows) {
    return byMatrixUnit(rows) && rows > UNPACKED_ONCE;
  }

  /** How many rows {@link #multiply} takes at most, of so many. */
  static int atOnce(int rows) {
    return byMatrixUnit(rows) ? MANY : FEW;
  }

  /** Sets what the products with one matrix have in common. */
  static void set(MemorySegment parameters, PackedMatrix weights, QuantisedRows x) {
    parameters.set(ValueLayout.JAVA_LONG, BLOCKS, x.blocks());
    parameters.set(ValueLayout.JAVA_LONG, LAST_PRODUCT, x.blocks() + DISTANCE);
    parameters.set(ValueLayout.JAVA_LONG, LAST_NIBBLES, x.blocks() + 2 * DISTANCE);
    parameters.set(ValueLayout.JAVA_LONG, ROWS_STRIDE, (long) QuantisedRows.BLOCK * x.allotted());
    parameters.set(ValueLayout.JAVA_LONG, SCALES_STRIDE, 4L * x.allotted());
    boolean bytes = weights.type() == WeightType.Q8_0;
    parameters.set(ValueLayout.JAVA_INT, MASK, bytes ? 0x80808080 : 0x0f0f0f0f);
    parameters.set(ValueLayout.JAVA_FLOAT, UNIT, weights.unit());
  }

  /**
   * Rows by tiles that follow one another: writes {@code [tiles, count, 32]} sums.
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
    if (CODE == null) {
      throw new IllegalStateException("no machine code");
    }
    parameters.set(ValueLayout.JAVA_LONG, WEIGHTS, from);
    long sums = parameters.get(ValueLayout.JAVA_LONG, SUMS);
    parameters.set(ValueLayout.JAVA_LONG, SUMS_END, sums + 4L * TILE * tiles * count);
    parameters.set(
        ValueLayout.JAVA_LONG, ROWS, x.bytesAddress() + (long) QuantisedRows.BLOCK * first);
    parameters.set(ValueLayout.JAVA_LONG, ROW_SCALES, x.scalesAddress() + 4L * first);
    parameters.set(ValueLayout.JAVA_LONG, STARTS, x.startsAddress() + 4L * first);
    boolean bytes = type == WeightType.Q8_0;
    if (byMatrixUnit(x.rows())) {
      List<MemorySegment> functions = bytes ? CODE.unitBytes : CODE.unitNibbles;
      run(functions.get((count - 1) / STEP), parameters);
    } else {
      run((bytes ? CODE.bytes : CODE.nibbles).get(count - 1), parameters);
    }
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
   * As many rows by some tiles, in one pass over their memory. Of products of unsigned and signed
   * bytes the weights are the unsigned side: bytes with 128 added, nibbles as they are; what that
   * adds to a sum, 128 or 8 times the total of the row's numbers, is taken off where the sum
   * starts. Upper nibbles are multiplied where they are, 16 times too large, and have a sum of
   * their own while there are registers for it.
   */
  private static byte[] few(WeightType type, int rows) {
    boolean bytes = type == WeightType.Q8_0;
    boolean apart = !bytes && rows <= FEW / 2;
    Assembler a = new Assembler();
    int ints = 16;
    int upper = apart ? ints + FEW / 2 : ints;
    int low = 24;
    int high = 25;
    int scale = 26;
    int both = 27;
    int upperMask = 28;
    int unit = 29;
    int halfBits = 30;
    int mask = 31;
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R8, at(RDI, ROWS_STRIDE));
    a.load(R9, at(RDI, SCALES_STRIDE));
    a.load(R11, at(RDI, SUMS));
    a.broadcast(mask, at(RDI, MASK));
    a.broadcast(halfBits, at(RDI, HALF_MASK));
    a.broadcast(unit, at(RDI, UNIT));
    if (apart) {
      a.shiftLeft(upperMask, mask, 4);
    }
    int blockBytes = TILE * type.blockBytes();
    int tile = a.here();
    a.load(R10, at(RDI, BLOCKS));
    a.load(RSI, at(RDI, ROWS));
    a.load(RDX, at(RDI, ROW_SCALES));
    a.load(RCX, at(RDI, STARTS));
    for (int sum = 0; sum < 2 * rows; sum++) {
      a.zero(sum);
    }
    int block = a.here();
    for (int line = 0; line < blockBytes; line += 64) {
      a.prefetch(at(RAX, AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      for (int row = 0; row < rows; row++) {
        a.broadcast(ints + row, at(RCX, 4 * row));
        if (apart) {
          a.zero(upper + row);
        }
      }
      for (int at = 2 * TILE + 64 * half; at < blockBytes; at += 4 * TILE) {
        int column = (at - 2 * TILE) / (4 * TILE) * 4;
        if (bytes) {
          a.xor(low, mask, at(RAX, at));
        } else {
          a.and(low, mask, at(RAX, at));
          if (apart) {
            a.and(high, upperMask, at(RAX, at));
          } else {
            a.loadVector(high, at(RAX, at));
            a.shiftRight(high, high, 4);
            a.and(high, high, mask);
          }
        }
        for (int row = 0; row < rows; row++) {
          a.addProducts(ints + row, low, at(RSI, QuantisedRows.BLOCK * row + column));
        }
        for (int row = 0; row < rows && !bytes; row++) {
          a.addProducts(upper + row, high, at(RSI, QuantisedRows.BLOCK * row + column + 16));
        }
      }
      scale(a, scale, at(RAX, 32 * half), halfBits, unit);
      for (int row = 0; row < rows; row++) {
        if (apart) {
          a.shiftRightSigned(upper + row, upper + row, 4);
          a.addInts(ints + row, ints + row, upper + row);
        }
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
    for (int sum = 0; sum < 2 * rows; sum++) {
      a.storeVector(at(R11, 64 * sum), sum);
    }
    a.addConstant(R11, 4 * TILE * rows);
    a.compare(R11, at(RDI, SUMS_END));
    a.jumpIfLess(tile);
    a.leave();
    return a.code();
  }

  /** 16 weights' scales, from halves. */
  static void scale(Assembler a, int scale, Assembler.Address halves, int halfBits, int unit) {
    a.loadShorts(scale, halves);
    a.shiftLeft(scale, scale, 13);
    a.and(scale, scale, halfBits);
    a.multiply(scale, scale, unit);
  }

  /**
   * Rows by a tile on the matrix unit. Stages follow one another at some distance in blocks, for
   * what a tile leaves in memory cannot be read at once: nibbles become bytes, the unit multiplies,
   * the vector unit adds the sums. Up to 12 rows have all their sums in registers; 16 go through
   * the tile's memory twice, 16 of its rows at a time.
   */
  private static byte[] matrix(WeightType type, int rows) {
    boolean nibbles = type == WeightType.Q4_0;
    int blockBytes = TILE * type.blockBytes();
    Assembler a = new Assembler();
    a.configureTiles(at(RDI, TILES + 64 * (rows / 4 - 1)));
    a.broadcast(HALF_BITS_REGISTER, at(RDI, HALF_MASK));
    a.broadcast(UNIT_REGISTER, at(RDI, UNIT));
    if (nibbles) {
      a.broadcast(MASK_REGISTER, at(RDI, MASK));
      a.broadcast(EIGHTS_REGISTER, at(RDI, EIGHTS));
    }
    a.loadConstant(R9, QuantisedRows.BLOCK);
    a.load(R11, at(RDI, SCRATCH));
    int[][] passes = rows <= 12 ? new int[][] {{0, 1}} : new int[][] {{0}, {1}};
    int products = nibbles ? DISTANCE : 0;
    int sums = products + DISTANCE;
    for (int[] halves : passes) {
      a.load(RAX, at(RDI, WEIGHTS));
      a.move(RCX, RAX);
      a.load(RSI, at(RDI, ROWS));
      a.load(RDX, at(RDI, ROW_SCALES));
      a.loadConstant(R8, 0);
      for (int sum = 0; sum < halves.length * rows; sum++) {
        a.zero(sum);
      }
      int block = a.here();
      a.compare(R8, at(RDI, BLOCKS));
      int none = a.jumpAheadUnlessLess();
      if (halves[0] == 0) {
        for (int line = 0; line < blockBytes; line += 64) {
          a.prefetch(at(RAX, AHEAD + line));
        }
      }
      if (nibbles) {
        unpackBlock(a);
      } else {
        multiplyBlock(a, halves, RAX, 2 * TILE);
      }
      a.addConstant(RAX, blockBytes);
      a.land(none);
      a.xorConstant(R11, RING / 2);
      if (nibbles) {
        a.compareConstant(R8, products);
        int early = a.jumpAheadIfLess();
        a.compare(R8, at(RDI, LAST_PRODUCT));
        int late = a.jumpAheadUnlessLess();
        multiplyBlock(a, halves, R11, RING);
        a.land(early);
        a.land(late);
        a.xorConstant(R11, RING / 2);
      }
      a.compareConstant(R8, sums);
      int early = a.jumpAheadIfLess();
      addBlock(a, rows, halves);
      a.addConstant(RCX, blockBytes);
      a.land(early);
      if (!nibbles) {
        a.xorConstant(R11, RING / 2);
      }
      a.addConstant(R11, SLOT);
      a.andConstant(R11, ~RING);
      a.addConstant(R8, 1);
      a.compare(R8, at(RDI, nibbles ? LAST_NIBBLES : LAST_PRODUCT));
      a.jumpIfLess(block);
      a.load(RAX, at(RDI, SUMS));
      for (int half : halves) {
        for (int row = 0; row < rows; row++) {
          a.storeVector(
              at(RAX, 4 * TILE * row + 64 * half), sum(row, half - halves[0], halves.length));
        }
      }
    }
    a.releaseTiles();
    a.leave();
    return a.code();
  }

  private static int sum(int row, int half, int halves) {
    return halves * row + half;
  }

  /** Nibbles, less 8, as bytes. */
  private static void unpackBlock(Assembler a) {
    int low = 24;
    int high = 25;
    for (int line = 0; line < 16 * TILE; line += 64) {
      a.loadVector(high, at(RAX, 2 * TILE + line));
      a.and(low, high, MASK_REGISTER);
      a.shiftRight(high, high, 4);
      a.and(high, high, MASK_REGISTER);
      a.subtractBytes(low, low, EIGHTS_REGISTER);
      a.subtractBytes(high, high, EIGHTS_REGISTER);
      a.storeVector(at(R11, RING + line), low);
      a.storeVector(at(R11, RING + 16 * TILE + line), high);
    }
  }

  private static void multiplyBlock(Assembler a, int[] halves, int base, int offset) {
    int left = 2;
    int right = 3;
    a.loadTile(left, at(RSI, 0), R9, 1);
    for (int half : halves) {
      int sums = half - halves[0];
      // To zero a tile costs the product that follows three times its time.
      a.repeatIntoTile(sums, at(RDI, ZEROS));
      a.loadTile(right + sums, at(base, offset + 64 * half), R9, 4);
      a.addTileProducts(sums, left, right + sums);
      a.storeTile(at(R11, SLOT / 2 * sums), R9, 2, sums);
    }
    a.add(RSI, at(RDI, ROWS_STRIDE));
  }

  private static void addBlock(Assembler a, int rows, int[] halves) {
    int scale = 24;
    for (int half : halves) {
      scale(a, scale, at(RCX, 32 * half), HALF_BITS_REGISTER, UNIT_REGISTER);
      for (int row = 0; row < rows; row++) {
        int ints = 25;
        int both = 26;
        a.intsToFloats(ints, at(R11, SLOT / 2 * (half - halves[0]) + 64 * row));
        a.multiplyByOne(both, scale, at(RDX, 4 * row));
        a.addProduct(sum(row, half - halves[0], halves.length), ints, both);
      }
    }
    a.add(RDX, at(RDI, SCALES_STRIDE));
  }

  // ------------------------------------------------------------------ putting it in place

  private static @Nullable Code write() {
    if (!Processor.has("avx512_vnni")) {
      return null;
    }
    List<byte[]> functions = new ArrayList<>();
    for (WeightType type : List.of(WeightType.Q8_0, WeightType.Q4_0)) {
      for (int rows = 1; rows <= FEW; rows++) {
        functions.add(few(type, rows));
      }
    }
    boolean matrixUnit = Processor.hasMatrixUnit("amx_int8");
    if (matrixUnit) {
      for (int rows = STEP; rows <= MANY; rows += STEP) {
        functions.add(matrix(WeightType.Q8_0, rows));
      }
      for (int rows = STEP; rows <= UNPACKED_ONCE; rows += STEP) {
        functions.add(matrix(WeightType.Q4_0, rows));
      }
    }
    List<MemorySegment> placed = SystemCalls.executable(functions);
    if (placed.isEmpty()) {
      return null;
    }
    int unitBytes = matrixUnit ? MANY / STEP : 0;
    return new Code(
        placed.subList(0, FEW),
        placed.subList(FEW, 2 * FEW),
        placed.subList(2 * FEW, 2 * FEW + unitBytes),
        placed.subList(2 * FEW + unitBytes, placed.size()));
  }

  @SuppressWarnings("restricted") // the launcher grants native access
  private static MethodHandle call() {
    // A kernel takes a tenth of a millisecond at most: no safepoint waits for it.
    return Linker.nativeLinker()
        .downcallHandle(
            FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG), Linker.Option.critical(false));
  }
}
