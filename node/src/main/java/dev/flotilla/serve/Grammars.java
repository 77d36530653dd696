package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenTrie;
import java.lang.ref.SoftReference;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * The grammars that answers on this node are held to, with the vocabularies of the models: both
 * take a while to prepare, and some MB, so those used last are kept while there is memory.
 */
final class Grammars {

  private static final int VOCABULARIES = 4;
  private static final int CONSTRAINTS = 32;

  private record Key(String digest, String grammar, List<Integer> endTokens) {}

  private final Function<String, TokenTrie> vocabulary;
  private final Map<String, SoftReference<TokenTrie>> vocabularies = lastUsed(VOCABULARIES);
  private final Map<Key, SoftReference<TokenConstraint>> constraints = lastUsed(CONSTRAINTS);

  /**
   * @param vocabulary of a model, by its name
   */
  Grammars(Function<String, TokenTrie> vocabulary) {
    this.vocabulary = vocabulary;
  }

  private static <K, V> Map<K, V> lastUsed(int most) {
    return new LinkedHashMap<>(16, 0.75f, true) {
      private static final long serialVersionUID = 1L;

      @Override
      protected boolean removeEldestEntry(Map.Entry<K, V> eldest) {
        return size() > most;
      }
    };
  }

  /**
   * Where an answer of a replica's model has got to. One at a time, for this is long work on
   * threads that answer other nodes, too.
   *
   * @param tokens the answer's are those from {@code prompt} on
   * @throws FlotillaException {@code INVALID} if the grammar is malformed or cannot be followed,
   *     the model's tokens have no bytes of their own, or nothing ends an answer
   */
  synchronized GrammarState state(
      Placement placement, String grammar, int[] endTokens, int[] tokens, int prompt) {
    if (endTokens.length == 0) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "an answer that no token ends cannot be held to a grammar",
          "Leave out the grammar, or let the answer end.");
    }
    String digest = placement.digest();
    TokenTrie words = kept(vocabularies, digest, () -> vocabulary.apply(placement.model()));
    Key key = new Key(digest, grammar, Arrays.stream(endTokens).boxed().toList());
    TokenConstraint constraint =
        kept(constraints, key, () -> new TokenConstraint(Grammar.parse(grammar), words, endTokens));
    return GrammarState.of(constraint, tokens, prompt);
  }

  private static <K, V> V kept(Map<K, SoftReference<V>> all, K key, Supplier<V> maker) {
    SoftReference<V> known = all.get(key);
    V value = known == null ? null : known.get();
    if (value == null) {
      value = maker.get();
      all.put(key, new SoftReference<>(value));
    }
    return value;
  }
}
