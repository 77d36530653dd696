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
 * Both states and masks are kept up to a bound of bytes; what is forgotten is made again, the same.
 */
public final class TokenConstraint {

  private static final int STATE_BYTES_MAX = 4 << 20;
  private static final int MASK_BYTES_MAX = 4 << 20;

  /** About what a way of a state takes, with the stack's last frame. */
  private static final int WAY_BYTES = 64;

  private static final int LINK_BYTES = 32;

  /**
   * What a mask may cost, in edges and ways of the grammar that are looked at (each 5 to 30 ns:
   * less than a tenth of a second); JSON schemas take a thirtieth of it. Counted as if nothing was
   * remembered from other masks, so that it does not depend on what was.
   */
  private static final long COST_MAX = 1 << 20;

  private static final Link[] NO_LINKS = {};

  /** Where a text has got to. Equal states allow the same texts; the opposite need not hold. */
  public static final class State {
    private final Configurations at;

    /** By class of bytes; null where it is not known yet. None once the state is forgotten. */
    private @Nullable Link[] links;

    private State(Configurations at, int classes) {
      this.at = at;
      this.links = new Link[classes];
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

  /** Where the bytes of a class lead from a state. */
  private static final class Link {
    final State to;
    final int cost;

    /** The number of the last mask in whose cost it was counted. */
    int countedIn;

    Link(State to, int cost) {
      this.to = to;
      this.cost = cost;
    }
  }

  private final GrammarAutomaton automaton;
  private final TokenTrie vocabulary;
  private final int[] endTokens;

  /** What a link costs, beside what is looked at: mostly for the memory that its state takes. */
  private final int linkCost;

  private final State start;
  private final Map<Configurations, State> states = new HashMap<>();
  private final LinkedHashMap<Configurations, TokenMask> masks =
      new LinkedHashMap<>(16, 0.75f, true);
  private long stateBytes;
  private long maskBytes;
  private int masksMade;

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
    this.linkCost = 16 + automaton.classCount() / 4;
    this.start = state(automaton.start());
  }

  /** Before the first token. */
  public State start() {
    return start;
  }

  /** Whether a text may end here: then, and only then, the end tokens are allowed. */
  boolean mayEnd(State state) {
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
    try {
      for (byte b : bytes) {
        reached = link(reached, b).to;
      }
    } finally {
      forgetIfTooMuch();
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
   * @throws FlotillaException {@code INVALID} if the grammar takes too much work here, or the
   *     vocabulary has no token that goes on, which takes one that lacks tokens of a single byte
   */
  public synchronized TokenMask allowed(State state) {
    TokenMask mask = masks.get(state.at);
    if (mask == null) {
      try {
        mask = walked(state(state.at));
      } finally {
        forgetIfTooMuch();
      }
      masks.put(state.at, mask);
      maskBytes += bytes(state.at);
      while (maskBytes > MASK_BYTES_MAX && masks.size() > 1) {
        maskBytes -= bytes(masks.pollFirstEntry().getKey());
      }
    }
    return mask;
  }

  /** Of a mask and its key. */
  private long bytes(Configurations at) {
    return vocabulary.vocabularySize() / 8 + (long) WAY_BYTES * at.count();
  }

  private TokenMask walked(State from) {
    long[] words = new long[(vocabulary.vocabularySize() + 63) >> 6];
    State[] path = new State[vocabulary.depthMax() + 1];
    path[0] = from;
    long cost = 0;
    masksMade++;
    int nodes = from.at.count() == 0 ? 0 : vocabulary.nodes();
    for (int node = 0; node < nodes; ) {
      int depth = vocabulary.depth(node);
      Link link = link(path[depth - 1], vocabulary.label(node));
      if (link.countedIn != masksMade) {
        link.countedIn = masksMade;
        cost += link.cost;
        if (cost > COST_MAX) {
          throw new FlotillaException(
              Code.INVALID,
              "the grammar takes too much work here to tell which tokens may come next",
              "Write it so that fewer ways are open at once, and what comes later depends on less"
                  + " of what came before.");
        }
      }
      if (link.to.at.isDead()) {
        node = vocabulary.behind(node);
      } else {
        path[depth] = link.to;
        vocabulary.collect(node, words);
        node++;
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

  private Link link(State state, byte b) {
    int byteClass = automaton.classOf(b);
    Link known = state.links[byteClass];
    if (known == null) {
      Configurations reached = automaton.after(state.at, byteClass);
      known = new Link(state(reached), reached.cost() + linkCost);
      state.links[byteClass] = known;
      stateBytes += LINK_BYTES;
    }
    return known;
  }

  /** Never while a mask is made, for then links would be counted twice in its cost. */
  private void forgetIfTooMuch() {
    if (stateBytes > STATE_BYTES_MAX) {
      // The links go too, else whoever holds one state would hold all that it ever led to.
      states.values().forEach(state -> state.links = NO_LINKS);
      states.clear();
      stateBytes = 0;
    }
  }

  /** The one state that stands for the configurations, among those that are remembered. */
  private State state(Configurations at) {
    State known = states.get(at);
    if (known == null) {
      known = new State(at, automaton.classCount());
      states.put(at, known);
      stateBytes += 128 + 4L * automaton.classCount() + (long) WAY_BYTES * at.count();
    }
    return known;
  }
}
