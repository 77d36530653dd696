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
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Products of a prompt's rows on the matrix unit (AMX) in bf16: weights and activations are rounded
 * to it, sums are of single precision, over the columns in order. A tile of weights is decoded once
 * for many rows. A row's bits do not depend on the rows beside it, but they are not those of {@link
 * IntegerKernels}, so whoever takes this route must always take it.
 */
final class PromptKernels {

  /** Rows that are multiplied at once. */
  static final int ROWS = 32;

  /** Columns of a block. */
  static final int BLOCK = 32;

  /** Bytes of a block of rows, and of a decoded block of a tile of weights. */
  static final int BLOCK_BYTES = 2 * ROWS * BLOCK;

  /** Bytes of a block of rows' sums with a tile. */
  static final int SUMS_BYTES = 4 * ROWS * TILE;

  // What a kernel is given: a block of memory.
  private static final int WEIGHTS = 0;
  private static final int BLOCKS = 8;
  private static final int CHUNK = 16;
  private static final int LEFT = 24;
  private static final int LEFT_STEP = 32;
  private static final int ROW_BLOCKS = 40;
  private static final int SUMS = 48;
  private static final int MASK = 56;
  private static final int ZEROS = 64;
  private static final int TILES = 128;
  private static final int ORDER = 192;
  private static final int HALF_MASK = 256;
  private static final int UNIT = 260;
  private static final int LESS = 264;
  private static final int HIGH_MASK = 268;
  private static final int HEADS = 320;

  /** Bytes of it. */
  static final int PARAMETERS = HEADS + 4 * 64;

  /** The types that are decoded to bf16: all but F32, whose precision is what it is taken for. */
  private static final Set<WeightType> TYPES = EnumSet.complementOf(EnumSet.of(WeightType.F32));

  private static final int UNIT_ROWS = 16;

  private static final @Nullable Code CODE = write();

  /** Whether they can be used here. */
  static final boolean AVAILABLE = CODE != null;

  private static final MethodHandle CALL = call();

  /**
   * @param multiply for new sums
   * @param goOn to go on with those that are there
   */
  private record Code(
      Map<WeightType, MemorySegment> decode, MemorySegment multiply, MemorySegment goOn) {}

  private PromptKernels() {}

  /** Whether products with such weights are done here. */
  static boolean take(PackedMatrix weights) {
    return AVAILABLE && TYPES.contains(weights.type()) && weights.in() % BLOCK == 0;
  }

  /** Fills a block of parameters with what stays the same. */
  static void prepare(MemorySegment parameters) {
    parameters.fill((byte) 0);
    parameters.set(ValueLayout.JAVA_INT, MASK, 0x0f0f0f0f);
    parameters.set(ValueLayout.JAVA_INT, HALF_MASK, MachineKernels.HALF_BITS);
    parameters.set(ValueLayout.JAVA_BYTE, TILES, (byte) 1); // palette
    for (int tile = 0; tile < 8; tile++) {
      parameters.set(ValueLayout.JAVA_SHORT, TILES + 16 + 2L * tile, (short) 64);
      parameters.set(ValueLayout.JAVA_BYTE, TILES + 48L + tile, (byte) UNIT_ROWS);
    }
    for (int i = 0; i < ROWS; i++) {
      int from = i / 2 + i % 2 * UNIT_ROWS;
      parameters.set(ValueLayout.JAVA_SHORT, ORDER + 2L * i, (short) from);
    }
  }

  /**
   * Decodes blocks of a tile: {@code [blocks, 16, 32, 2]} bf16, two columns of a row side by side.
   *
   * @param tile address
   * @param first block; of K-quants the first of a super-block
   * @param blocks how many; of K-quants whole super-blocks
   * @param chunk address
   */
  static void decode(
      MemorySegment parameters,
      PackedMatrix weights,
      long tile,
      int first,
      int blocks,
      long chunk) {
    WeightType type = weights.type();
    int unit = Math.max(1, type.blockElements() / BLOCK);
    parameters.set(
        ValueLayout.JAVA_LONG, WEIGHTS, tile + PackedMatrix.tileBytes(type, BLOCK * first));
    parameters.set(ValueLayout.JAVA_LONG, BLOCKS, blocks / unit);
    parameters.set(ValueLayout.JAVA_LONG, CHUNK, chunk);
    parameters.set(ValueLayout.JAVA_FLOAT, UNIT, weights.unit());
    parameters.set(ValueLayout.JAVA_INT, LESS, type == WeightType.Q4_0 ? 0x08080808 : 0x20202020);
    parameters.set(
        ValueLayout.JAVA_INT, HIGH_MASK, type == WeightType.Q6_K ? 0x30303030 : 0x10101010);
    run(Objects.requireNonNull(code().decode.get(type)), parameters);
  }

  /**
   * Multiplies rows with decoded blocks.
   *
   * @param left address of the first 32 rows' {@code [blocks, 32, 32]} bf16
   * @param leftStep bytes to the next 32 rows
   * @param rowBlocks how many times 32 rows
   * @param chunk address of decoded blocks
   * @param goOn whether to add to the sums that are there
   * @param sums address of {@code [rowBlocks, 32, 32]} floats
   */
  static void multiply(
      MemorySegment parameters,
      long left,
      long leftStep,
      int rowBlocks,
      int blocks,
      long chunk,
      boolean goOn,
      long sums) {
    parameters.set(ValueLayout.JAVA_LONG, LEFT, left);
    parameters.set(ValueLayout.JAVA_LONG, LEFT_STEP, leftStep);
    parameters.set(ValueLayout.JAVA_LONG, ROW_BLOCKS, rowBlocks);
    parameters.set(ValueLayout.JAVA_LONG, BLOCKS, blocks);
    parameters.set(ValueLayout.JAVA_LONG, CHUNK, chunk);
    parameters.set(ValueLayout.JAVA_LONG, SUMS, sums);
    run(goOn ? code().goOn : code().multiply, parameters);
  }

  private static void run(MemorySegment function, MemorySegment parameters) {
    try {
      CALL.invokeExact(function, parameters.address());
    } catch (Throwable e) {
      throw new IllegalStateException("a kernel failed", e);
    }
  }

  private static Code code() {
    if (CODE == null) {
      throw new IllegalStateException("no machine code");
    }
    return CODE;
  }

  // ------------------------------------------------------------------ the code

  private static byte[] decode(WeightType type) {
    return switch (type) {
      case F32, F16, BF16 -> decodePlain(type);
      case Q8_0, Q4_0 -> decodeBlocks(type);
      case Q4_K, Q5_K, Q6_K -> decodeSuperBlocks(type);
    };
  }

  private static byte[] decodePlain(WeightType type) {
    int columnBytes = TILE * type.blockBytes();
    int order = 27;
    Assembler a = new Assembler();
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R10, at(RDI, BLOCKS));
    a.load(RCX, at(RDI, CHUNK));
    a.loadVector(order, at(RDI, ORDER));
    int block = a.here();
    for (int column = 0; column < BLOCK; column += 2) {
      a.prefetch(at(RAX, MachineKernels.AHEAD + column * columnBytes));
      a.prefetch(at(RAX, MachineKernels.AHEAD + (column + 1) * columnBytes));
      for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 2; i++) {
          Assembler.Address from = at(RAX, (column + i) * columnBytes + columnBytes / 2 * half);
          if (type == WeightType.F16) {
            a.loadHalves(i, from);
          } else {
            a.loadUnsignedShorts(i, from);
            a.shiftLeft(i, i, 16);
          }
        }
        storePair(a, 0, 1, column, half, order);
      }
    }
    a.addConstant(RAX, BLOCK * columnBytes);
    a.addConstant(RCX, BLOCK_BYTES);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    a.leave();
    return a.code();
  }

  private static byte[] decodeBlocks(WeightType type) {
    boolean nibbles = type == WeightType.Q4_0;
    int blockBytes = TILE * type.blockBytes();
    int scale = 24;
    int four = 25;
    int upper = 26;
    int order = 27;
    int eights = 28;
    int mask = 29;
    int unit = 30;
    int halfBits = 31;
    Assembler a = new Assembler();
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R10, at(RDI, BLOCKS));
    a.load(RCX, at(RDI, CHUNK));
    a.broadcast(halfBits, at(RDI, HALF_MASK));
    a.broadcast(unit, at(RDI, UNIT));
    a.broadcast(mask, at(RDI, MASK));
    a.broadcast(eights, at(RDI, LESS));
    a.loadVector(order, at(RDI, ORDER));
    int block = a.here();
    for (int line = 0; line < blockBytes; line += 64) {
      a.prefetch(at(RAX, MachineKernels.AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      VectorCode.scale(a, scale, at(RAX, 32 * half), halfBits, unit);
      for (int at = 2 * TILE + 64 * half; at < blockBytes; at += 4 * TILE) {
        int column = (at - 2 * TILE) / (4 * TILE) * 4;
        a.loadVector(four, at(RAX, at));
        if (nibbles) {
          a.shiftRight(upper, four, 4);
          a.and(four, four, mask);
          a.and(upper, upper, mask);
          a.subtractBytes(four, four, eights);
          a.subtractBytes(upper, upper, eights);
          decodeFour(a, upper, column + 16, half, scale, 0, order);
        }
        decodeFour(a, four, column, half, scale, 0, order);
      }
    }
    a.addConstant(RAX, blockBytes);
    a.addConstant(RCX, BLOCK_BYTES);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    a.leave();
    return a.code();
  }

  private static byte[] decodeSuperBlocks(WeightType type) {
    boolean six = type == WeightType.Q6_K;
    int bits = 22;
    int shifted = 23;
    int scale = 24;
    int four = 25;
    int minimum = 26;
    int order = 27;
    int less = 28;
    int mask = 29;
    int highMask = 30;
    int unit = 31;
    Assembler a = new Assembler();
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R10, at(RDI, BLOCKS));
    a.load(RCX, at(RDI, CHUNK));
    a.broadcast(unit, at(RDI, UNIT));
    a.broadcast(mask, at(RDI, MASK));
    a.broadcast(highMask, at(RDI, HIGH_MASK));
    a.broadcast(less, at(RDI, LESS));
    a.loadVector(order, at(RDI, ORDER));
    int block = a.here();
    a.broadcast(bits, at(RDI, HALF_MASK));
    int headBytes = PackedMatrix.headBytes(type);
    for (int vector = 0; vector < headBytes / 32; vector++) {
      VectorCode.scale(a, scale, at(RAX, 32 * vector), bits, unit);
      a.storeVector(at(RDI, HEADS + 64 * vector), scale);
    }
    a.addConstant(RAX, headBytes);
    a.loadConstant(R8, SuperBlocks.SUB_BLOCKS);
    int sub = a.here();
    int subBytes = PackedMatrix.subBytes(type);
    for (int line = 0; line < subBytes; line += 64) {
      a.prefetch(at(RAX, MachineKernels.AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      if (!six) {
        loadSubScale(a, minimum, TILE, half, 2);
      }
      for (int upper = 0; upper < 2; upper++) {
        if (six || upper == 0) {
          loadSubScale(a, scale, TILE * upper, half, 0);
        }
        if (six || (type == WeightType.Q5_K && upper == 0)) {
          a.loadVector(bits, at(RAX, 18 * TILE + 4 * TILE * upper + 64 * half));
        }
        for (int group = 0; group < 4; group++) {
          a.loadVector(four, at(RAX, 2 * TILE + 4 * TILE * group + 64 * half));
          if (upper == 1) {
            a.shiftRight(four, four, 4);
          }
          a.and(four, four, mask);
          int from = six ? 2 * group : 4 * upper + group;
          VectorCode.setHighBits(a, type, four, bits, shifted, highMask, from);
          if (six) {
            a.subtractBytes(four, four, less);
          }
          decodeFour(a, four, 16 * upper + 4 * group, half, scale, six ? 0 : minimum, order);
        }
      }
    }
    a.addConstant(RAX, subBytes);
    a.addConstant(RCX, BLOCK_BYTES);
    a.addConstant(R8, -1);
    a.jumpIfNotZero(sub);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    a.leave();
    return a.code();
  }

  /** A sub-block's scales or minima of 16 rows. */
  private static void loadSubScale(Assembler a, int to, int from, int half, int head) {
    a.loadBytes(to, at(RAX, from + 16 * half));
    a.intsToFloats(to, to);
    a.multiply(to, to, at(RDI, HEADS + 64 * (head + half)));
  }

  /**
   * Four columns of 16 rows of weights, a byte each.
   *
   * @param minimum register of what is taken off, or 0
   */
  private static void decodeFour(
      Assembler a, int four, int column, int half, int scale, int minimum, int order) {
    for (int i = 0; i < 4; i++) {
      int from = four;
      if (i < 3) {
        a.shiftLeft(i, four, 24 - 8 * i);
        from = i;
      }
      a.shiftRightSigned(i, from, 24);
      a.intsToFloats(i, i);
      a.multiply(i, i, scale);
      if (minimum != 0) {
        a.subtract(i, i, minimum);
      }
    }
    storePair(a, 0, 1, column, half, order);
    storePair(a, 2, 3, column + 2, half, order);
  }

  /** Two columns of 16 rows, side by side. */
  private static void storePair(
      Assembler a, int first, int second, int column, int half, int order) {
    int pair = 4 + first;
    a.floatsToBf16(pair, first, second);
    a.permuteShorts(pair, order, pair);
    a.storeVector(at(RCX, 2 * TILE * column + 64 * half), pair);
  }

  private static byte[] multiply(boolean goOn) {
    Assembler a = new Assembler();
    a.configureTiles(at(RDI, TILES));
    a.load(R11, at(RDI, LEFT));
    a.load(RDX, at(RDI, ROW_BLOCKS));
    a.load(RSI, at(RDI, SUMS));
    a.loadConstant(R8, 4 * TILE);
    a.loadConstant(R9, 64);
    int rows = a.here();
    for (int sum = 0; sum < 4; sum++) {
      if (goOn) {
        a.loadTile(sum, sums(sum), R8, 1);
      } else {
        a.repeatIntoTile(sum, at(RDI, ZEROS));
      }
    }
    a.move(RAX, R11);
    a.load(RCX, at(RDI, CHUNK));
    a.load(R10, at(RDI, BLOCKS));
    int left = 4;
    int right = 6;
    int block = a.here();
    a.loadTile(right, at(RCX, 0), R9, 2);
    a.loadTile(left, at(RAX, 0), R9, 1);
    a.addTileBf16(0, left, right);
    a.loadTile(right + 1, at(RCX, 64), R9, 2);
    a.addTileBf16(1, left, right + 1);
    a.loadTile(left + 1, at(RAX, 64 * UNIT_ROWS), R9, 1);
    a.addTileBf16(2, left + 1, right);
    a.addTileBf16(3, left + 1, right + 1);
    a.addConstant(RAX, BLOCK_BYTES);
    a.addConstant(RCX, BLOCK_BYTES);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    for (int sum = 0; sum < 4; sum++) {
      a.storeTile(sums(sum), R8, 1, sum);
    }
    a.addConstant(RSI, SUMS_BYTES);
    a.add(R11, at(RDI, LEFT_STEP));
    a.addConstant(RDX, -1);
    a.jumpIfNotZero(rows);
    a.releaseTiles();
    a.leave();
    return a.code();
  }

  /** Two tiles of 16 rows side by side, then the next 16 rows' two. */
  private static Assembler.Address sums(int tile) {
    return at(RSI, tile / 2 * UNIT_ROWS * 4 * TILE + tile % 2 * 64);
  }

  private static @Nullable Code write() {
    if (!Processor.has("avx512bw")
        || !Processor.has("avx512_bf16")
        || !Processor.hasMatrixUnit("amx_bf16")) {
      return null;
    }
    List<byte[]> functions = new ArrayList<>(List.of(multiply(false), multiply(true)));
    TYPES.forEach(type -> functions.add(decode(type)));
    List<MemorySegment> placed = SystemCalls.executable(functions);
    if (placed.isEmpty()) {
      return null;
    }
    Map<WeightType, MemorySegment> decode = new EnumMap<>(WeightType.class);
    TYPES.forEach(type -> decode.put(type, placed.get(2 + decode.size())));
    return new Code(decode, placed.get(0), placed.get(1));
  }

  @SuppressWarnings("restricted") // the launcher grants native access
  private static MethodHandle call() {
    // A kernel takes microseconds: no safepoint waits for it.
    return Linker.nativeLinker()
        .downcallHandle(
            FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG), Linker.Option.critical(false));
  }
}
