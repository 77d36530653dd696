package dev.flotilla.tensor;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.Map;

/**
 * Writes the few x86-64 instructions that {@link MachineKernels} are made of; encodings by Intel's
 * Software Developer's Manual, volume 2. General registers have their numbers there (rax 0, rcx 1,
 * rdx 2, rsi 6, rdi 7, r8 to r11); vector registers are zmm0 to zmm31, of 512 bits each; tiles tmm0
 * to tmm7.
 */
final class Assembler {

  static final int RAX = 0;
  static final int RCX = 1;
  static final int RDX = 2;
  static final int RSI = 6;
  static final int RDI = 7;
  static final int R8 = 8;
  static final int R9 = 9;
  static final int R10 = 10;
  static final int R11 = 11;

  /** Opcode maps. */
  private static final int MAP_0F = 1;

  private static final int MAP_0F38 = 2;
  private static final int MAP_0F3A = 3;

  /** Prefixes that are part of an opcode. */
  private static final int NONE = 0;

  private static final int P66 = 1;
  private static final int PF3 = 2;
  private static final int PF2 = 3;

  /** As an index register: none. */
  private static final int NO_INDEX = 4;

  private static final int FULL = 64;
  private static final int HALF = 32;
  private static final int QUARTER = 16;
  private static final int ELEMENT = 4;

  private final ByteArrayOutputStream code = new ByteArrayOutputStream();
  private final Map<Integer, Integer> landings = new HashMap<>();

  /** A place in memory: the base register's content and a displacement. */
  record Address(int base, int displacement) {
    Address {
      if ((base & 7) == 4 || (base & 7) == 5) {
        throw new IllegalArgumentException("register " + base + " has another encoding as a base");
      }
    }
  }

  static Address at(int base, int displacement) {
    return new Address(base, displacement);
  }

  byte[] code() {
    byte[] bytes = code.toByteArray();
    landings.forEach(
        (jump, place) ->
            ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putInt(jump - 4, place - jump));
    return bytes;
  }

  /** Where the next instruction will be, for {@link #jumpIfNotZero}. */
  int here() {
    return code.size();
  }

  // General registers, 64 bits.

  void load(int to, Address from) {
    rex(to, from.base);
    bytes(0x8b);
    memory(to, from, 1);
  }

  void move(int to, int from) {
    rex(from, to);
    bytes(0x89, 0xc0 | ((from & 7) << 3) | (to & 7));
  }

  void add(int to, int from) {
    rex(from, to);
    bytes(0x01, 0xc0 | ((from & 7) << 3) | (to & 7));
  }

  void add(int to, Address from) {
    rex(to, from.base);
    bytes(0x03);
    memory(to, from, 1);
  }

  /** Adds a constant; the flag of zero tells whether the sum is 0. */
  void addConstant(int to, int constant) {
    arithmetic(0, to, constant);
  }

  void andConstant(int to, int constant) {
    arithmetic(4, to, constant);
  }

  void xorConstant(int to, int constant) {
    arithmetic(6, to, constant);
  }

  private void arithmetic(int operation, int to, int constant) {
    rex(0, to);
    bytes(0x81, 0xc0 | (operation << 3) | (to & 7));
    fourBytes(constant);
  }

  void loadConstant(int to, int constant) {
    rex(0, to);
    bytes(0xc7, 0xc0 | (to & 7));
    fourBytes(constant);
  }

  /** Jumps back to a place when the last sum was not 0. */
  void jumpIfNotZero(int place) {
    bytes(0x0f, 0x85);
    fourBytes(place - (code.size() + 4));
  }

  /** Compares, for {@link #jumpAheadIfLess} and {@link #jumpAheadUnlessLess}. */
  void compareConstant(int register, int constant) {
    arithmetic(7, register, constant);
  }

  void compare(int register, Address with) {
    rex(register, with.base);
    bytes(0x3b);
    memory(register, with, 1);
  }

  /**
   * Jumps ahead.
   *
   * @return what {@link #land} takes
   */
  int jumpAheadIfLess() {
    return jumpAhead(0x8c);
  }

  int jumpAheadUnlessLess() {
    return jumpAhead(0x8d);
  }

  /** Jumps back to a place. */
  void jumpIfLess(int place) {
    bytes(0x0f, 0x8c);
    fourBytes(place - (code.size() + 4));
  }

  private int jumpAhead(int condition) {
    bytes(0x0f, condition);
    fourBytes(0);
    return code.size();
  }

  /** Makes this the place where a jump ahead goes. */
  void land(int jump) {
    landings.put(jump, code.size());
  }

  /** Into the second-level cache: there, more of them may be on their way than to the first. */
  void prefetch(Address from) {
    if (from.base >= 8) {
      bytes(0x41);
    }
    bytes(0x0f, 0x18);
    memory(2, from, 1);
  }

  /** Leaves the vector registers as compiled code expects them, and returns. */
  void leave() {
    bytes(0xc5, 0xf8, 0x77, 0xc3);
  }

  // Vectors of 512 bits.

  void loadVector(int to, Address from) {
    evex(NONE, MAP_0F, 0x10, to, 0, from, FULL, false);
  }

  void storeVector(Address to, int from) {
    evex(NONE, MAP_0F, 0x11, from, 0, to, FULL, false);
  }

  /** 32 bits from memory to all elements. */
  void broadcast(int to, Address from) {
    evex(P66, MAP_0F38, 0x58, to, 0, from, ELEMENT, false);
  }

  void subtractBytes(int to, int a, int b) {
    evex(P66, MAP_0F, 0xf8, to, a, b);
  }

  void addInts(int to, int a, int b) {
    evex(P66, MAP_0F, 0xfe, to, a, b);
  }

  void zero(int to) {
    evex(P66, MAP_0F, 0xef, to, to, to);
  }

  void xor(int to, int a, Address b) {
    evex(P66, MAP_0F, 0xef, to, a, b, FULL, false);
  }

  void and(int to, int a, Address b) {
    evex(P66, MAP_0F, 0xdb, to, a, b, FULL, false);
  }

  void and(int to, int a, int b) {
    evex(P66, MAP_0F, 0xdb, to, a, b);
  }

  void shiftLeft(int to, int from, int bits) {
    evex(P66, MAP_0F, 0x72, 6, to, from);
    bytes(bits);
  }

  void shiftRight(int to, int from, int bits) {
    evex(P66, MAP_0F, 0x72, 2, to, from);
    bytes(bits);
  }

  /** 16 shorts from memory, as ints. */
  void loadShorts(int to, Address from) {
    evex(P66, MAP_0F38, 0x23, to, 0, from, HALF, false);
  }

  /** 16 signed bytes from memory, as ints. */
  void loadBytes(int to, Address from) {
    evex(P66, MAP_0F38, 0x21, to, 0, from, QUARTER, false);
  }

  /** 16 unsigned shorts from memory, as ints. */
  void loadUnsignedShorts(int to, Address from) {
    evex(P66, MAP_0F38, 0x33, to, 0, from, HALF, false);
  }

  /** 16 halves from memory, as floats. */
  void loadHalves(int to, Address from) {
    evex(P66, MAP_0F38, 0x13, to, 0, from, HALF, false);
  }

  /** Sets bits of {@code to} where both {@code a} and {@code b} have them. */
  void orBoth(int to, int a, int b) {
    evex(P66, MAP_0F3A, 0x25, to, a, b);
    bytes(0xf8);
  }

  /**
   * Adds, in each element, the products of four unsigned bytes with four signed ones, the same four
   * for all elements.
   */
  void addProducts(int sums, int unsigned, Address signed) {
    evex(P66, MAP_0F38, 0x50, sums, unsigned, signed, ELEMENT, true);
  }

  /** Keeps the sign. */
  void shiftRightSigned(int to, int from, int bits) {
    evex(P66, MAP_0F, 0x72, 4, to, from);
    bytes(bits);
  }

  /** 32 floats, of two vectors, as halves of single precision (bf16), rounded to nearest even. */
  void floatsToBf16(int to, int low, int high) {
    evex(PF2, MAP_0F38, 0x72, to, high, low);
  }

  /** 16-bit elements of {@code from} in the order that {@code order} gives. */
  void permuteShorts(int to, int order, int from) {
    evexPrefix(P66, MAP_0F38, to, order, (from & 16) == 0, (from & 8) == 0, false, true);
    bytes(0x8d, 0xc0 | ((to & 7) << 3) | (from & 7));
  }

  void intsToFloats(int to, int from) {
    evex(NONE, MAP_0F, 0x5b, to, 0, from);
  }

  void intsToFloats(int to, Address from) {
    evex(NONE, MAP_0F, 0x5b, to, 0, from, FULL, false);
  }

  void multiply(int to, int a, int b) {
    evex(NONE, MAP_0F, 0x59, to, a, b);
  }

  void multiply(int to, int a, Address b) {
    evex(NONE, MAP_0F, 0x59, to, a, b, FULL, false);
  }

  void subtract(int to, int a, int b) {
    evex(NONE, MAP_0F, 0x5c, to, a, b);
  }

  /** All elements by the same float. */
  void multiplyByOne(int to, int a, Address b) {
    evex(NONE, MAP_0F, 0x59, to, a, b, ELEMENT, true);
  }

  /** {@code sums = a · b + sums}, rounded once. */
  void addProduct(int sums, int a, int b) {
    evex(P66, MAP_0F38, 0xb8, sums, a, b);
  }

  /** The same with one float for all elements. */
  void addProductByOne(int sums, int a, Address b) {
    evex(P66, MAP_0F38, 0xb8, sums, a, b, ELEMENT, true);
  }

  // Tiles.

  void configureTiles(Address from) {
    vex(NONE, 0x49, from.base, 0);
    memory(0, from, 1);
  }

  void releaseTiles() {
    vex(NONE, 0x49, 0, 0);
    bytes(0xc0);
  }

  /** The same bytes of memory for every row. */
  void repeatIntoTile(int tile, Address from) {
    tileMemory(PF2, tile, from, NO_INDEX, 1);
  }

  /**
   * @param stride a register: rows lie its content times {@code factor} apart
   * @param factor 1, 2, 4 or 8
   */
  void loadTile(int tile, Address from, int stride, int factor) {
    tileMemory(PF2, tile, from, stride, factor);
  }

  void storeTile(Address to, int stride, int factor, int tile) {
    tileMemory(PF3, tile, to, stride, factor);
  }

  /** Adds {@code [rows, k] · [k / 4, columns, 4]}, both of signed bytes. */
  void addTileProducts(int sums, int left, int right) {
    vex(PF2, 0x5e, 0, right);
    bytes(0xc0 | sums << 3 | left);
  }

  /** Adds {@code [rows, k] · [k / 2, columns, 2]}, both of bf16. */
  void addTileBf16(int sums, int left, int right) {
    vex(PF3, 0x5c, 0, right);
    bytes(0xc0 | (sums << 3) | left);
  }

  private void tileMemory(int prefix, int tile, Address at, int stride, int factor) {
    int inverted = 0x80 | (stride < 8 ? 0x40 : 0) | (at.base < 8 ? 0x20 : 0) | MAP_0F38;
    bytes(0xc4, inverted, 0x78 | prefix, 0x4b, 0x84 | tile << 3);
    bytes((Integer.numberOfTrailingZeros(factor) << 6) | ((stride & 7) << 3) | (at.base & 7));
    fourBytes(at.displacement);
  }

  private void vex(int prefix, int opcode, int base, int second) {
    int inverted = 0xc0 | (base < 8 ? 0x20 : 0) | MAP_0F38;
    bytes(0xc4, inverted, (~second & 15) << 3 | prefix, opcode);
  }

  private void evex(int prefix, int map, int opcode, int register, int second, int third) {
    evexPrefix(prefix, map, register, second, (third & 16) == 0, (third & 8) == 0, false, false);
    bytes(opcode, 0xc0 | ((register & 7) << 3) | (third & 7));
  }

  /**
   * @param unit what short displacements count in: the bytes of the operand
   * @param repeated whether one element of memory is taken for all
   */
  private void evex(
      int prefix,
      int map,
      int opcode,
      int register,
      int second,
      Address memory,
      int unit,
      boolean repeated) {
    evexPrefix(prefix, map, register, second, true, memory.base < 8, repeated, false);
    bytes(opcode);
    memory(register, memory, unit);
  }

  private void evexPrefix(
      int prefix,
      int map,
      int register,
      int second,
      boolean x,
      boolean b,
      boolean repeated,
      boolean wide) {
    int first =
        ((register & 8) == 0 ? 0x80 : 0)
            | (x ? 0x40 : 0)
            | (b ? 0x20 : 0)
            | ((register & 16) == 0 ? 0x10 : 0)
            | map;
    int next = (wide ? 0x80 : 0) | ((~second & 15) << 3) | 0x04 | prefix;
    int last = 0x40 | (repeated ? 0x10 : 0) | ((second & 16) == 0 ? 0x08 : 0);
    bytes(0x62, first, next, last);
  }

  private void memory(int register, Address address, int unit) {
    int fields = ((register & 7) << 3) | (address.base & 7);
    int units = address.displacement / unit;
    if (address.displacement == 0) {
      bytes(fields);
    } else if (units * unit == address.displacement && units == (byte) units) {
      bytes(0x40 | fields, units);
    } else {
      bytes(0x80 | fields);
      fourBytes(address.displacement);
    }
  }

  private void rex(int register, int base) {
    bytes(0x48 | (register < 8 ? 0 : 4) | (base < 8 ? 0 : 1));
  }

  private void bytes(int... values) {
    for (int value : values) {
      code.write(value);
    }
  }

  private void fourBytes(int value) {
    bytes(value, value >> 8, value >> 16, value >> 24);
  }
}
