package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Learns a byte-level BPE vocabulary (Sennrich et al. 2016, Radford et al. 2019).
 *
 * <p>The text is cut into words by GPT-2's regular expression; a word is a sequence of bytes with
 * the number of times it occurs. Then, again and again, the most frequent pair of neighbouring
 * tokens becomes a token; of equally frequent pairs the one with the lowest ids does, so the result
 * depends on the text alone.
 *
 * <p>A merge touches only the words that hold its pair, so an index leads from each pair to those
 * words, and a heap orders the pairs. Both are lazy: the index may name words that have lost the
 * pair, and a heap entry whose count is no longer the pair's is skipped, for each change of a count
 * has pushed a new entry. The cost is that of reading the text once, plus, for each merge, the
 * length of the words it touches.
 */
public final class BpeTrainer {

  static final Pattern GPT2_WORDS =
      Pattern.compile(
          "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
          Pattern.UNICODE_CHARACTER_CLASS);

  /** A pair that occurs once compresses nothing that will come again. */
  private static final int COUNT_MIN = 2;

  /**
   * Longer words are cut for training only, so that one megabyte without a space does not cost a
   * megabyte per merge; no useful token is that long.
   */
  private static final int WORD_BYTES_MAX = 512;

  private record Candidate(long count, long pair) implements Comparable<Candidate> {
    @Override
    public int compareTo(Candidate other) {
      int byCount = Long.compare(other.count, count);
      return byCount != 0 ? byCount : Long.compare(pair, other.pair);
    }
  }

  /** How often a pair occurs, and in which words (with repeats, and some that have lost it). */
  private static final class Occurrences {
    long count;
    int[] words = new int[4];
    int size;

    void add(int word) {
      if (size > 0 && words[size - 1] == word) {
        return;
      }
      if (size == words.length) {
        words = Arrays.copyOf(words, size * 2);
      }
      words[size++] = word;
    }
  }

  private final List<int[]> words = new ArrayList<>();
  private final long[] wordCounts;
  private final Map<Long, Occurrences> pairs = new HashMap<>();
  private final PriorityQueue<Candidate> heap = new PriorityQueue<>();

  private BpeTrainer(String text, int firstByteId) {
    Map<String, Integer> counts = new LinkedHashMap<>();
    Matcher matcher = GPT2_WORDS.matcher(text);
    while (matcher.find()) {
      counts.merge(matcher.group(), 1, Integer::sum);
    }
    List<Integer> countList = new ArrayList<>();
    counts.forEach(
        (word, count) -> {
          byte[] bytes = word.getBytes(StandardCharsets.UTF_8);
          for (int from = 0; from < bytes.length; from += WORD_BYTES_MAX) {
            int[] ids = new int[Math.min(WORD_BYTES_MAX, bytes.length - from)];
            for (int i = 0; i < ids.length; i++) {
              ids[i] = firstByteId + (bytes[from + i] & 0xFF);
            }
            words.add(ids);
            countList.add(count);
          }
        });
    wordCounts = countList.stream().mapToLong(Integer::longValue).toArray();
    Set<Long> touched = new HashSet<>();
    for (int word = 0; word < words.size(); word++) {
      count(word, 1, touched);
    }
    offer(touched);
  }

  /**
   * Learns a vocabulary.
   *
   * @param text what to learn from
   * @param vocabularySize tokens in all: special ones, the 256 bytes, and merges. Fewer result if
   *     the text has no pair left that occurs twice
   * @param specialTokens get the first ids; they are never produced from plain text
   * @throws FlotillaException {@code INVALID} if the text is empty, the vocabulary cannot hold the
   *     256 bytes and the special tokens, or a special token is empty or given twice
   */
  public static BpeVocabulary train(String text, int vocabularySize, List<String> specialTokens) {
    check(text, vocabularySize, specialTokens);
    List<String> tokens = new ArrayList<>(specialTokens);
    for (int b = 0; b < 256; b++) {
      tokens.add(String.valueOf(ByteAlphabet.characterOf(b)));
    }
    // Two splits can spell the same token; a vocabulary has each string once, and never a special
    // one, which would otherwise come out of plain text.
    Set<String> taken = new HashSet<>(tokens);
    List<BpeVocabulary.Merge> merges = new ArrayList<>();
    BpeTrainer trainer = new BpeTrainer(text, specialTokens.size());
    while (tokens.size() < vocabularySize) {
      Candidate best = trainer.heap.poll();
      if (best == null || best.count < COUNT_MIN) {
        break;
      }
      Occurrences occurrences = trainer.pairs.get(best.pair);
      if (occurrences == null || occurrences.count != best.count) {
        continue;
      }
      int left = (int) (best.pair >>> 32);
      int right = (int) best.pair;
      String token = tokens.get(left) + tokens.get(right);
      if (!taken.add(token)) {
        trainer.pairs.remove(best.pair);
        continue;
      }
      merges.add(new BpeVocabulary.Merge(tokens.get(left), tokens.get(right)));
      trainer.merge(best.pair, occurrences, tokens.size());
      tokens.add(token);
    }
    return new BpeVocabulary(specialTokens, tokens, merges);
  }

  private static void check(String text, int vocabularySize, List<String> specialTokens) {
    if (text.isEmpty()) {
      throw new FlotillaException(
          Code.INVALID, "the text to train a tokenizer on is empty", "Give it some text.");
    }
    int smallest = 256 + specialTokens.size();
    if (vocabularySize < smallest) {
      throw new FlotillaException(
          Code.INVALID,
          "a vocabulary of "
              + vocabularySize
              + " tokens cannot hold the 256 bytes and "
              + specialTokens.size()
              + " special tokens",
          "Ask for " + smallest + " or more.");
    }
    Set<String> seen = new HashSet<>();
    for (String token : specialTokens) {
      boolean isByte = token.length() == 1 && ByteAlphabet.spells(token);
      if (token.isEmpty() || isByte || !seen.add(token)) {
        throw new FlotillaException(
            Code.INVALID,
            "the special token '" + token + "' is empty, a single byte, or given twice",
            "Give each special token once.");
      }
    }
  }

  /** Replaces the pair by the new token in every word that holds it. */
  private void merge(long pair, Occurrences occurrences, int token) {
    int left = (int) (pair >>> 32);
    int right = (int) pair;
    Set<Long> touched = new HashSet<>();
    int[] holders = Arrays.copyOf(occurrences.words, occurrences.size);
    Arrays.sort(holders);
    int previous = -1;
    for (int word : holders) {
      if (word == previous) {
        continue;
      }
      previous = word;
      int[] old = words.get(word);
      int[] merged = merged(old, left, right, token);
      if (merged.length < old.length) {
        count(word, -1, touched);
        words.set(word, merged);
        count(word, 1, touched);
      }
    }
    offer(touched);
  }

  private static int[] merged(int[] word, int left, int right, int token) {
    int[] result = new int[word.length];
    int length = 0;
    for (int i = 0; i < word.length; i++) {
      if (word[i] == left && i + 1 < word.length && word[i + 1] == right) {
        result[length++] = token;
        i++;
      } else {
        result[length++] = word[i];
      }
    }
    return Arrays.copyOf(result, length);
  }

  /** Adds (sign 1) or removes (sign -1) the pairs of a word. */
  private void count(int word, int sign, Set<Long> touched) {
    int[] ids = words.get(word);
    for (int i = 0; i + 1 < ids.length; i++) {
      long pair = ((long) ids[i] << 32) | ids[i + 1];
      Occurrences occurrences = pairs.get(pair);
      if (occurrences == null) {
        if (sign < 0) {
          continue; // a pair given up because its token's spelling was taken
        }
        occurrences = new Occurrences();
        pairs.put(pair, occurrences);
      }
      occurrences.count += sign * wordCounts[word];
      if (sign > 0) {
        occurrences.add(word);
      }
      touched.add(pair);
    }
  }

  private void offer(Set<Long> touched) {
    for (long pair : touched) {
      Occurrences occurrences = pairs.get(pair);
      if (occurrences == null) {
        continue;
      }
      if (occurrences.count <= 0) {
        pairs.remove(pair);
      } else {
        heap.add(new Candidate(occurrences.count, pair));
      }
    }
  }
}
