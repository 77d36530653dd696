package dev.flotilla.tensor;

/** How weights are stored. Blocks run along a row and have the same bytes as in GGUF. */
public enum WeightType {
  /** IEEE 754 single precision. */
  F32(1, 4),
  /** IEEE 754 half precision. */
  F16(1, 2),
  /** The upper half of single precision. */
  BF16(1, 2),
  /** Blocks of 32: one half-precision scale, then 32 signed bytes. */
  Q8_0(32, 34),
  /** Blocks of 32: one half-precision scale, then 32 numbers of 4 bits, less 8. */
  Q4_0(32, 18),
  /** Blocks of 256: 8 scales and minima of 6 bits each, then numbers of 4 bits. */
  Q4_K(256, 144),
  /** As Q4_K with numbers of 5 bits. */
  Q5_K(256, 176),
  /** Blocks of 256: 16 scales of 8 bits, and numbers of 6 bits, less 32. */
  Q6_K(256, 210);

  private final int blockElements;
  private final int blockBytes;

  WeightType(int blockElements, int blockBytes) {
    this.blockElements = blockElements;
    this.blockBytes = blockBytes;
  }

  /** Elements that share a block; a row is a whole number of blocks. */
  public int blockElements() {
    return blockElements;
  }

  /** Whether products are those of integers, with activations rounded to 8 bits. */
  public boolean integers() {
    return blockElements > 1;
  }

  /** Bytes of a block. */
  public int blockBytes() {
    return blockBytes;
  }

  /**
   * Bytes of so many elements.
   *
   * @throws ArithmeticException if that overflows
   */
  public long bytes(long elements) {
    return Math.multiplyExact(elements / blockElements, (long) blockBytes);
  }
}
