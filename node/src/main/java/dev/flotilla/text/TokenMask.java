package dev.flotilla.text;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.nio.ByteBuffer;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** A set of token ids, of those below the size of a vocabulary. Immutable. */
public final class TokenMask {

  private final long[] words;

  /**
   * @param words bit {@code id & 63} of word {@code id >> 6} stands for the id; not copied
   */
  TokenMask(long[] words) {
    this.words = words;
  }

  /** One that {@link #toByteArray} wrote. */
  public static TokenMask of(byte[] bits) {
    ByteBuffer padded = ByteBuffer.allocate((bits.length + 7) / 8 * 8).order(LITTLE_ENDIAN);
    padded.put(bits).clear();
    long[] words = new long[padded.capacity() / 8];
    padded.asLongBuffer().get(words);
    return new TokenMask(words);
  }

  /** Whether the id is in it. */
  public boolean contains(int id) {
    return id >= 0 && id >> 6 < words.length && (words[id >> 6] >> id & 1) != 0;
  }

  /** How many ids are in it. */
  public int count() {
    int count = 0;
    for (long word : words) {
      count += Long.bitCount(word);
    }
    return count;
  }

  /** Bit {@code id & 7} of byte {@code id >> 3} stands for the id. */
  public byte[] toByteArray() {
    ByteBuffer bits = ByteBuffer.allocate(8 * words.length).order(LITTLE_ENDIAN);
    bits.asLongBuffer().put(words);
    return bits.array();
  }

  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof TokenMask mask && Arrays.equals(words, mask.words);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(words);
  }
}
