package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.text.GrammarAutomaton.Configurations;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Which tokens may come next, so that a text is one of a grammar. Safe on all threads; one at a
 * time is at work.
 *
 * <p>States and masks follow from the grammar, the vocabulary and the tokens so far alone, so a
 * text that goes on elsewhere is held to the same. Whatever tokens are allowed, the text can be
 * ended behind them, if the vocabulary has each byte as a token (as all have that can spell any
 * text).
 *
 * <p>The grammar's automaton is made deterministic as it is used: a state remembers the states that
 * the classes of bytes lead to. In a string of JSON nearly all bytes lead to the state itself, so
 * the walk over the vocabulary's {@link TokenTrie} for a mask is mostly reads of one small table.
 * Both states and masks are kept up to a bound; what is forgotten is made again, the same.
 */
public final class TokenConstraint {

  private static final int STATES_MAX = 20_000;
  private static final int MASK_BYTES_MAX = 8 << 20;

  /**
   * What a mask may cost, in ways followed over nodes of the vocabulary: a second or so. Counted as
   * if nothing was remembered, so that it does not depend on what was.
   */
  private static final long COST_MAX = 256L << 20;

  /** Where a text has got to. Equal states allow the same texts; the opposite need not hold. */
  public static final class State {
    private final Configurations at;

    /** By class of bytes; null where it is not known yet. */
    private @Nullable State[] next;

    private State(Configurations at, int classes) {
      this.at = at;
      this.next = new State[classes];
    }

    @Override
    public boolean equals(@Nullable Object other) {
      return other instanceof State state && at.equals(state.at);
    }

    @Override
    public int hashCode() {
      return at.hashCode();
    }
  }

  private final GrammarAutomaton automaton;
  private final TokenTrie vocabulary;
  private final int[] endTokens;
  private final int masksMax;
  private final State start;
  private final Map<Configurations, State> states = new HashMap<>();
  private final LinkedHashMap<State, TokenMask> masks = new LinkedHashMap<>(16, 0.75f, true);

  /**
   * @param endTokens the ids that end a text, each below the vocabulary's size
   */
  public TokenConstraint(Grammar grammar, TokenTrie vocabulary, int... endTokens) {
    if (endTokens.length == 0) {
      throw new IllegalArgumentException("no token ends a text");
    }
    for (int id : endTokens) {
      if (id < 0 || id >= vocabulary.vocabularySize()) {
        throw new IllegalArgumentException("end token " + id + " is not of the vocabulary");
      }
    }
    this.automaton = grammar.automaton();
    this.vocabulary = vocabulary;
    this.endTokens = Arrays.stream(endTokens).sorted().distinct().toArray();
    this.masksMax = Math.max(16, MASK_BYTES_MAX / Math.max(1, vocabulary.vocabularySize() / 8));
    this.start = state(automaton.start());
  }

  /** Before the first token. */
  public State start() {
    return start;
  }

  /** Whether a text may end here: then, and only then, the end tokens are allowed. */
  public boolean mayEnd(State state) {
    return state.at.mayEnd();
  }

  /**
   * The state with one token more. Behind an end token nothing but end tokens is allowed.
   *
   * @throws FlotillaException {@code INVALID} if the token is not allowed there
   */
  public synchronized State after(State state, int token) {
    if (isEnd(token)) {
      if (!state.at.mayEnd()) {
        throw notAllowed(token);
      }
      return state(GrammarAutomaton.ENDED);
    }
    byte[] bytes = vocabulary.bytes(token);
    State reached = state(state.at);
    for (byte b : bytes) {
      reached = next(reached, b);
    }
    if (bytes.length == 0 || reached.at.isDead()) {
      throw notAllowed(token);
    }
    return reached;
  }

  private static FlotillaException notAllowed(int token) {
    return new FlotillaException(
        Code.INVALID,
        "the grammar does not allow token " + token + " here",
        "Go on only with tokens that were generated with the same grammar and model.");
  }

  private boolean isEnd(int token) {
    return Arrays.binarySearch(endTokens, token) >= 0;
  }

  /**
   * The tokens that may come next.
   *
   * @throws FlotillaException {@code INVALID} if the grammar leaves too many ways open here, or the
   *     vocabulary has no token that goes on, which takes one that lacks tokens of a single byte
   */
  public synchronized TokenMask allowed(State state) {
    State from = state(state.at);
    TokenMask mask = masks.get(from);
    if (mask == null) {
      mask = walked(from);
      masks.put(from, mask);
      if (masks.size() > masksMax) {
        masks.pollFirstEntry();
      }
    }
    return mask;
  }

  private TokenMask walked(State from) {
    long[] words = new long[(vocabulary.vocabularySize() + 63) >> 6];
    State[] path = new State[vocabulary.depthMax() + 1];
    path[0] = from;
    long cost = 0;
    int nodes = from.at.count() == 0 ? 0 : vocabulary.nodes();
    for (int node = 0; node < nodes; ) {
      int depth = vocabulary.depth(node);
      State before = path[depth - 1];
      cost += before.at.count();
      State reached = next(before, vocabulary.label(node));
      if (reached.at.isDead()) {
        node = vocabulary.behind(node);
      } else {
        path[depth] = reached;
        vocabulary.collect(node, words);
        node++;
      }
      if (cost > COST_MAX) {
        throw GrammarAutomaton.tooManyWays();
      }
    }
    for (int id : endTokens) {
      words[id >> 6] &= ~(1L << id);
      if (from.at.mayEnd()) {
        words[id >> 6] |= 1L << id;
      }
    }
    TokenMask mask = new TokenMask(words);
    if (mask.count() == 0) {
      throw new FlotillaException(
          Code.INVALID,
          "the model has no token with which this text of the grammar could go on",
          "Leave out of the grammar what the model cannot spell.");
    }
    return mask;
  }

  private State next(State state, byte b) {
    int byteClass = automaton.classOf(b);
    State known = state.next[byteClass];
    if (known == null) {
      known = state(automaton.after(state.at, byteClass));
      state.next[byteClass] = known;
    }
    return known;
  }

  /** The one state that stands for the configurations, among those that are remembered. */
  private State state(Configurations at) {
    State known = states.get(at);
    if (known == null) {
      if (states.size() >= STATES_MAX) {
        // The links go too, else whoever holds one state would hold all that it ever led to.
        states.values().forEach(state -> state.next = new State[automaton.classCount()]);
        states.clear();
      }
      known = new State(at, automaton.classCount());
      states.put(at, known);
    }
    return known;
  }
}
