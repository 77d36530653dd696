package dev.flotilla.text;

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

  /** Bit {@code id & 63} of word {@code id >> 6} stands for the id. */
  public long[] toLongArray() {
    return words.clone();
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
