package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.text.GrammarExpression.CharacterClass;
import dev.flotilla.text.GrammarExpression.Choice;
import dev.flotilla.text.GrammarExpression.Literal;
import dev.flotilla.text.GrammarExpression.Place;
import dev.flotilla.text.GrammarExpression.Range;
import dev.flotilla.text.GrammarExpression.Reference;
import dev.flotilla.text.GrammarExpression.Repeat;
import dev.flotilla.text.GrammarExpression.Rule;
import dev.flotilla.text.GrammarExpression.Sequence;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * A grammar as a pushdown automaton over the bytes of UTF-8. Immutable; safe on all threads.
 *
 * <p>Each rule is a nondeterministic automaton of its own (Thompson 1968): nodes, and edges that
 * read a byte of a range, read nothing, or call a rule and go on behind it. Where a text has got to
 * is a {@link Configurations}: all pairs of a node that reads and a stack of the nodes to return
 * to, as in a recursive transition network (Woods 1970). A call whose return would only return
 * again pushes nothing, so a list written by right recursion does not grow the stack.
 *
 * <p>Code points become sequences of byte ranges (as in Cox's RE2), so a text may be cut anywhere.
 *
 * <p>Stacks are bounded, and yet nothing runs into the bound: each node knows how deep the
 * shallowest way to the end of its rule goes, and is only entered where that fits.
 */
final class GrammarAutomaton {

  /** With as many edges, four megabytes of a grammar's memory. */
  private static final int NODES_MAX = 100_000;

  private static final int EDGES_MAX = 200_000;

  /**
   * Below the 200 that our own reader of JSON takes: each level of JSON is one of these at least.
   */
  static final int DEPTH_MAX = 128;

  /** How many ways a text may be going at once. */
  private static final int CONFIGURATIONS_MAX = 4096;

  /** How many edges may be looked at for one byte; an edge counts once for each way at its node. */
  private static final int EDGES_AT_ONCE_MAX = 64 << 10;

  /** In place of an edge's lowest byte: it reads nothing. */
  private static final int EMPTY = -1;

  /** In place of an edge's lowest byte: it calls the rule that stands for its highest byte. */
  private static final int CALL = -2;

  private static final int UNKNOWN = Integer.MAX_VALUE;

  /** The nodes to return to. Equal by content; the hash is kept, as stacks share their ends. */
  private static final class Frame {
    final int node;
    final @Nullable Frame parent;
    final int depth;
    final int hash;

    Frame(int node, @Nullable Frame parent) {
      this.node = node;
      this.parent = parent;
      this.depth = depthOf(parent) + 1;
      this.hash = mixed((parent == null ? 17 : parent.hash) * 31 + node);
    }

    @Override
    public boolean equals(@Nullable Object other) {
      if (!(other instanceof Frame frame) || hash != frame.hash || depth != frame.depth) {
        return false;
      }
      Frame a = this;
      Frame b = frame;
      while (a != b) {
        if (a == null || b == null || a.node != b.node || a.hash != b.hash) {
          return false;
        }
        a = a.parent;
        b = b.parent;
      }
      return true;
    }

    @Override
    public int hashCode() {
      return hash;
    }
  }

  private record Configuration(int node, @Nullable Frame stack) {
    @Override
    public int hashCode() {
      return mixed((stack == null ? 17 : stack.hash) * 31 + node);
    }
  }

  /** Murmur3's last step: without it, a grammar is easily written whose stacks hash alike. */
  private static int mixed(int hash) {
    int h = (hash ^ (hash >>> 16)) * 0x85EBCA6B;
    h = (h ^ (h >>> 13)) * 0xC2B2AE35;
    return h ^ (h >>> 16);
  }

  /** Where a text has got to, as a value. */
  static final class Configurations {
    private final Configuration[] all;
    private final boolean mayEnd;
    private final int hash;
    private final int cost;

    private Configurations(Configuration[] all, boolean mayEnd, int cost) {
      this.all = all;
      this.mayEnd = mayEnd;
      this.cost = cost;
      this.hash = 31 * Arrays.hashCode(all) + Boolean.hashCode(mayEnd);
    }

    /** Whether the text is whole. */
    boolean mayEnd() {
      return mayEnd;
    }

    /** How many ways it may be going. */
    int count() {
      return all.length;
    }

    /**
     * What it took to find these, in edges and ways that were looked at. Not compared: it is of the
     * step that led here, and others may lead here too.
     */
    int cost() {
      return cost;
    }

    /** Whether no text of the grammar begins so. */
    boolean isDead() {
      return all.length == 0 && !mayEnd;
    }

    @Override
    public boolean equals(@Nullable Object other) {
      return other instanceof Configurations that
          && hash == that.hash
          && mayEnd == that.mayEnd
          && Arrays.equals(all, that.all);
    }

    @Override
    public int hashCode() {
      return hash;
    }
  }

  /** Behind the end of a text: nothing may follow. */
  static final Configurations ENDED = new Configurations(new Configuration[0], true, 0);

  /**
   * Edges by the node that they leave: those of node n are from firstEdge[n] to firstEdge[n+1];
   * from firstReading[n] on those that read.
   */
  private final int[] firstEdge;

  private final int[] firstReading;

  private final int[] low;
  private final int[] high;
  private final int[] target;

  /** The rule that ends at a node, or -1. */
  private final int[] endOf;

  private final int[] ruleStart;

  /** How many frames the shallowest way from a node to the end of its rule pushes. */
  private final int[] need;

  /** Whether all that a node does is to return. */
  private final boolean[] onlyReturns;

  private final byte[] classOf = new byte[256];
  private final int[] byteOfClass;
  private final Configurations start;

  private GrammarAutomaton(Builder built, int root) {
    int nodes = built.nodes;
    int edges = built.edges;
    firstEdge = new int[nodes + 1];
    for (int e = 0; e < edges; e++) {
      firstEdge[built.from[e] + 1]++;
    }
    for (int n = 0; n < nodes; n++) {
      firstEdge[n + 1] += firstEdge[n];
    }
    low = new int[edges];
    high = new int[edges];
    target = new int[edges];
    firstReading = Arrays.copyOf(firstEdge, nodes);
    int[] end = Arrays.copyOfRange(firstEdge, 1, nodes + 1);
    for (int e = 0; e < edges; e++) {
      int from = built.from[e];
      int place = built.low[e] < 0 ? firstReading[from]++ : --end[from];
      low[place] = built.low[e];
      high[place] = built.high[e];
      target[place] = built.target[e];
    }
    ruleStart = built.ruleStart;
    endOf = new int[nodes];
    Arrays.fill(endOf, -1);
    for (int rule = 0; rule < ruleStart.length; rule++) {
      endOf[built.ruleEnd[rule]] = rule;
    }
    onlyReturns = new boolean[nodes];
    for (int n = 0; n < nodes; n++) {
      onlyReturns[n] = onlyReturns(n);
    }
    byteOfClass = classes();
    Analysis analysis = new Analysis(built);
    analysis.refuseLeftRecursion();
    need = analysis.needs();
    for (int rule = 0; rule < ruleStart.length; rule++) {
      if (need[ruleStart[rule]] == UNKNOWN) {
        throw wrong(built.rules.get(rule), "never ends: whatever way it goes, it needs itself");
      }
    }
    if (need[ruleStart[root]] > DEPTH_MAX) {
      throw wrong(
          built.rules.get(root), "needs rules nested more than " + DEPTH_MAX + " deep to end");
    }
    List<Configuration> first = new ArrayList<>();
    first.add(new Configuration(ruleStart[root], null));
    start = closed(first, 0);
  }

  /**
   * The automaton of a grammar's rules.
   *
   * @throws FlotillaException {@code INVALID}, with the rule and its place, if it has none
   */
  static GrammarAutomaton of(Map<String, Rule> rules) {
    Builder builder = new Builder(rules);
    Integer root = builder.ruleNumbers.get("root");
    if (root == null) {
      throw GbnfParser.refused("it has no rule 'root'");
    }
    builder.build();
    return new GrammarAutomaton(builder, root);
  }

  private static FlotillaException wrong(Rule rule, String what) {
    return wrong(rule.name(), rule.place(), what);
  }

  private static FlotillaException wrong(String rule, Place place, String what) {
    return new FlotillaException(
        Code.INVALID,
        "the grammar cannot be used: rule '" + rule + "', " + place + ": it " + what,
        "Write the rule otherwise.");
  }

  private static int depthOf(@Nullable Frame stack) {
    return stack == null ? 0 : stack.depth;
  }

  private boolean onlyReturns(int node) {
    int at = node;
    for (int hops = 0; hops < 16; hops++) {
      if (endOf[at] >= 0) {
        return true;
      }
      int edge = firstEdge[at];
      if (firstEdge[at + 1] - edge != 1 || low[edge] != EMPTY) {
        return false;
      }
      at = target[edge];
    }
    return false;
  }

  /** Fills {@link #classOf}; returns one byte of each class. */
  private int[] classes() {
    boolean[] begins = new boolean[257];
    begins[0] = true;
    for (int e = 0; e < low.length; e++) {
      if (low[e] >= 0) {
        begins[low[e]] = true;
        begins[high[e] + 1] = true;
      }
    }
    int[] bytes = new int[256];
    int count = 0;
    for (int b = 0; b < 256; b++) {
      if (begins[b]) {
        bytes[count++] = b;
      }
      classOf[b] = (byte) (count - 1);
    }
    return Arrays.copyOf(bytes, count);
  }

  /** How many classes of bytes there are; within one, no state tells bytes apart. */
  int classCount() {
    return byteOfClass.length;
  }

  /** The class of a byte, from 0 on. */
  int classOf(byte b) {
    return classOf[b & 0xFF] & 0xFF;
  }

  /** Before the first byte. */
  Configurations start() {
    return start;
  }

  /**
   * Where a text is with one byte more: dead if no text of the grammar goes on so.
   *
   * @throws FlotillaException {@code INVALID} if the grammar leaves too many ways open there
   */
  Configurations after(Configurations before, int byteClass) {
    int b = byteOfClass[byteClass];
    List<Configuration> reached = new ArrayList<>();
    int edges = 0;
    for (Configuration configuration : before.all) {
      int node = configuration.node;
      edges = looked(edges, firstEdge[node + 1] - firstReading[node]);
      for (int e = firstReading[node]; e < firstEdge[node + 1]; e++) {
        if (b >= low[e] && b <= high[e] && fits(target[e], configuration.stack)) {
          reached.add(new Configuration(target[e], configuration.stack));
        }
      }
    }
    return closed(reached, edges);
  }

  private static int looked(int before, int more) {
    if (before + more > EDGES_AT_ONCE_MAX) {
      throw tooManyWays();
    }
    return before + more;
  }

  private boolean fits(int node, @Nullable Frame stack) {
    return need[node] <= DEPTH_MAX - depthOf(stack);
  }

  /**
   * Follows all that reads nothing; keeps the nodes that read.
   *
   * @param edgesBefore how many edges have been looked at for the work
   */
  private Configurations closed(List<Configuration> work, int edgesBefore) {
    int edges = edgesBefore;
    Set<Configuration> seen = new HashSet<>();
    List<Configuration> kept = new ArrayList<>();
    boolean mayEnd = false;
    while (!work.isEmpty()) {
      Configuration configuration = work.removeLast();
      if (!seen.add(configuration)) {
        continue;
      }
      if (seen.size() > CONFIGURATIONS_MAX) {
        throw tooManyWays();
      }
      int node = configuration.node;
      Frame stack = configuration.stack;
      edges = looked(edges, firstReading[node] - firstEdge[node]);
      for (int e = firstEdge[node]; e < firstReading[node]; e++) {
        if (!fits(target[e], stack)) {
          continue;
        }
        if (low[e] == EMPTY) {
          work.add(new Configuration(target[e], stack));
        } else {
          Frame inside = onlyReturns[target[e]] ? stack : new Frame(target[e], stack);
          int called = ruleStart[high[e]];
          if (fits(called, inside)) {
            work.add(new Configuration(called, inside));
          }
        }
      }
      if (endOf[node] >= 0) {
        if (stack == null) {
          mayEnd = true;
        } else {
          work.add(new Configuration(stack.node, stack.parent));
        }
      }
      if (firstReading[node] < firstEdge[node + 1]) {
        kept.add(configuration);
      }
    }
    kept.sort(
        Comparator.comparingInt(Configuration::node).thenComparingInt(c -> depthOf(c.stack())));
    return new Configurations(kept.toArray(Configuration[]::new), mayEnd, edges + 4 * seen.size());
  }

  /** The error of a grammar that is too ambiguous to be followed. */
  static FlotillaException tooManyWays() {
    return new FlotillaException(
        Code.INVALID,
        "the grammar leaves too many ways open at once",
        "Write it so that the next characters tell which way a text goes; x{0,9} instead of"
            + " x? x? x? and the like.");
  }

  /** Makes nodes and edges of expressions. */
  private static final class Builder {
    private final List<Rule> rules;
    private final Map<String, Integer> ruleNumbers = new HashMap<>();
    private final int[] ruleStart;
    private final int[] ruleEnd;
    private int nodes;
    private int edges;
    private int[] from = new int[256];
    private int[] low = new int[256];
    private int[] high = new int[256];
    private int[] target = new int[256];

    /** The rule that is being built, for messages. */
    private int current;

    Builder(Map<String, Rule> rules) {
      this.rules = List.copyOf(rules.values());
      for (Rule rule : this.rules) {
        ruleNumbers.put(rule.name(), ruleNumbers.size());
      }
      ruleStart = new int[this.rules.size()];
      ruleEnd = new int[this.rules.size()];
    }

    void build() {
      for (current = 0; current < rules.size(); current++) {
        ruleStart[current] = node();
        ruleEnd[current] = node();
        build(rules.get(current).body(), ruleStart[current], ruleEnd[current]);
      }
    }

    private int node() {
      if (nodes == NODES_MAX) {
        throw tooLarge();
      }
      return nodes++;
    }

    private FlotillaException tooLarge() {
      return wrong(
          rules.get(current),
          "makes the grammar larger than its bound. What is repeated many times should be small: a"
              + " rule's name is");
    }

    private void edge(int fromNode, int lowByte, int highByte, int toNode) {
      if (edges == EDGES_MAX) {
        throw tooLarge();
      }
      if (edges == from.length) {
        from = Arrays.copyOf(from, edges * 2);
        low = Arrays.copyOf(low, edges * 2);
        high = Arrays.copyOf(high, edges * 2);
        target = Arrays.copyOf(target, edges * 2);
      }
      from[edges] = fromNode;
      low[edges] = lowByte;
      high[edges] = highByte;
      target[edges++] = toNode;
    }

    /**
     * Joins two nodes by an expression. Adds no edge into the first nor out of the second, unless
     * they are one: so what stands beside the expression is not changed by it.
     */
    private void build(GrammarExpression expression, int fromNode, int toNode) {
      switch (expression) {
        case Literal literal -> literal(literal.text(), fromNode, toNode);
        case CharacterClass characters -> {
          Map<List<Integer>, Integer> shared = new HashMap<>();
          for (Range range : characters.ranges()) {
            codePoints(range.first(), range.last(), fromNode, toNode, shared);
          }
        }
        case Reference reference -> {
          Integer rule = ruleNumbers.get(reference.rule());
          if (rule == null) {
            throw wrong(
                rules.get(current).name(),
                reference.place(),
                "names '" + reference.rule() + "', which is no rule");
          }
          edge(fromNode, CALL, rule, toNode);
        }
        case Sequence sequence -> {
          int at = fromNode;
          int left = sequence.parts().size();
          for (GrammarExpression part : sequence.parts()) {
            int next = --left == 0 ? toNode : node();
            build(part, at, next);
            at = next;
          }
          if (sequence.parts().isEmpty()) {
            edge(fromNode, EMPTY, 0, toNode);
          }
        }
        case Choice choice -> choice.options().forEach(option -> build(option, fromNode, toNode));
        case Repeat repeat -> repeat(repeat, fromNode, toNode);
      }
    }

    private void repeat(Repeat repeat, int fromNode, int toNode) {
      int at = fromNode;
      for (int i = 0; i < repeat.least(); i++) {
        int next = node();
        build(repeat.body(), at, next);
        at = next;
      }
      if (repeat.most() == GrammarExpression.UNBOUNDED) {
        int loop = node();
        edge(at, EMPTY, 0, loop);
        build(repeat.body(), loop, loop);
        at = loop;
      } else {
        for (int i = repeat.least(); i < repeat.most(); i++) {
          edge(at, EMPTY, 0, toNode);
          int next = node();
          build(repeat.body(), at, next);
          at = next;
        }
      }
      edge(at, EMPTY, 0, toNode);
    }

    private void literal(String text, int fromNode, int toNode) {
      byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
      if (bytes.length == 0) {
        edge(fromNode, EMPTY, 0, toNode);
      }
      int at = fromNode;
      for (int i = 0; i < bytes.length; i++) {
        int next = i + 1 == bytes.length ? toNode : node();
        edge(at, bytes[i] & 0xFF, bytes[i] & 0xFF, next);
        at = next;
      }
    }

    /** Cuts a range where the number of bytes changes. */
    private void codePoints(
        int first, int last, int fromNode, int toNode, Map<List<Integer>, Integer> shared) {
      int[] lastOfLength = {0x7F, 0x7FF, 0xFFFF, Character.MAX_CODE_POINT};
      int begin = first;
      for (int length = 1; length <= 4 && begin <= last; length++) {
        int end = Math.min(last, lastOfLength[length - 1]);
        if (begin <= end) {
          sameLength(begin, end, length - 1, fromNode, toNode, shared);
          begin = end + 1;
        }
      }
    }

    /**
     * Cuts a range until all bytes are free to be any of their ranges.
     *
     * @param continuations how many bytes follow the first one
     */
    private void sameLength(
        int first,
        int last,
        int continuations,
        int fromNode,
        int toNode,
        Map<List<Integer>, Integer> shared) {
      for (int i = 1; i <= continuations; i++) {
        int mask = (1 << (6 * i)) - 1;
        if ((first & ~mask) != (last & ~mask)) {
          if ((first & mask) != 0) {
            sameLength(first, first | mask, continuations, fromNode, toNode, shared);
            sameLength((first | mask) + 1, last, continuations, fromNode, toNode, shared);
            return;
          }
          if ((last & mask) != mask) {
            sameLength(first, (last & ~mask) - 1, continuations, fromNode, toNode, shared);
            sameLength(last & ~mask, last, continuations, fromNode, toNode, shared);
            return;
          }
        }
      }
      byte[] lows = Character.toString(first).getBytes(StandardCharsets.UTF_8);
      byte[] highs = Character.toString(last).getBytes(StandardCharsets.UTF_8);
      int to = toNode;
      for (int i = lows.length - 1; i > 0; i--) {
        List<Integer> key = List.of(lows[i] & 0xFF, highs[i] & 0xFF, to);
        Integer node = shared.get(key);
        if (node == null) {
          node = node();
          edge(node, lows[i] & 0xFF, highs[i] & 0xFF, to);
          shared.put(key, node);
        }
        to = node;
      }
      edge(fromNode, lows[0] & 0xFF, highs[0] & 0xFF, to);
    }
  }

  /** What is asked of the whole grammar before it is used. */
  private final class Analysis {
    private final Builder built;

    /** Edges into a node, as lists: the first one, and for each edge the next one, or -1. */
    private final int[] firstInto;

    private final int[] nextInto;

    /** Likewise the calls of a rule. */
    private final int[] firstCall;

    private final int[] nextCall;

    /** The rule that begins at a node, or -1. */
    private final int[] startOf;

    Analysis(Builder built) {
      this.built = built;
      firstInto = filled(built.nodes);
      nextInto = new int[built.edges];
      firstCall = filled(built.ruleStart.length);
      nextCall = new int[built.edges];
      startOf = filled(built.nodes);
      for (int e = 0; e < built.edges; e++) {
        nextInto[e] = firstInto[built.target[e]];
        firstInto[built.target[e]] = e;
        if (built.low[e] == CALL) {
          nextCall[e] = firstCall[built.high[e]];
          firstCall[built.high[e]] = e;
        }
      }
      for (int rule = 0; rule < built.ruleStart.length; rule++) {
        startOf[built.ruleStart[rule]] = rule;
      }
    }

    private static int[] filled(int length) {
      int[] array = new int[length];
      Arrays.fill(array, -1);
      return array;
    }

    /**
     * How many frames the shallowest way from each node to its rule's end pushes; unknown where
     * there is no way. Level by level, backwards from the ends: a call counts as an edge as soon as
     * the rule that it calls can be ended one level below, on the same level if it pushes nothing.
     */
    int[] needs() {
      int[] levels = new int[built.nodes];
      Arrays.fill(levels, UNKNOWN);
      Deque<Integer> work = new ArrayDeque<>();
      for (int end : built.ruleEnd) {
        levels[end] = 0;
        work.add(end);
      }
      for (int level = 0; !work.isEmpty(); level++) {
        List<Integer> endable = new ArrayList<>();
        while (!work.isEmpty()) {
          int node = work.removeLast();
          if (startOf[node] >= 0) {
            endable.add(startOf[node]);
            for (int e = firstCall[startOf[node]]; e >= 0; e = nextCall[e]) {
              if (onlyReturns[built.target[e]] && levels[built.from[e]] == UNKNOWN) {
                levels[built.from[e]] = level;
                work.add(built.from[e]);
              }
            }
          }
          for (int e = firstInto[node]; e >= 0; e = nextInto[e]) {
            boolean passable =
                built.low[e] != CALL || levels[built.ruleStart[built.high[e]]] < level;
            if (passable && levels[built.from[e]] == UNKNOWN) {
              levels[built.from[e]] = level;
              work.add(built.from[e]);
            }
          }
        }
        for (int rule : endable) {
          for (int e = firstCall[rule]; e >= 0; e = nextCall[e]) {
            if (levels[built.target[e]] != UNKNOWN && levels[built.from[e]] == UNKNOWN) {
              levels[built.from[e]] = level + 1;
              work.add(built.from[e]);
            }
          }
        }
      }
      return levels;
    }

    /** Which nodes reach their rule's end without a byte. */
    private boolean[] empties() {
      boolean[] empty = new boolean[built.nodes];
      Deque<Integer> work = new ArrayDeque<>();
      for (int end : built.ruleEnd) {
        empty[end] = true;
        work.add(end);
      }
      while (!work.isEmpty()) {
        int node = work.removeLast();
        for (int e = firstInto[node]; e >= 0; e = nextInto[e]) {
          boolean passable =
              built.low[e] == EMPTY
                  || (built.low[e] == CALL && empty[built.ruleStart[built.high[e]]]);
          if (passable && !empty[built.from[e]]) {
            empty[built.from[e]] = true;
            work.add(built.from[e]);
          }
        }
        if (startOf[node] >= 0) {
          for (int e = firstCall[startOf[node]]; e >= 0; e = nextCall[e]) {
            if (empty[built.target[e]] && !empty[built.from[e]]) {
              empty[built.from[e]] = true;
              work.add(built.from[e]);
            }
          }
        }
      }
      return empty;
    }

    /** A rule that calls itself before it has read anything would be followed for ever. */
    void refuseLeftRecursion() {
      boolean[] empty = empties();
      int[][] calledFirst = new int[built.ruleStart.length][];
      boolean[] seen = new boolean[built.nodes];
      for (int rule = 0; rule < calledFirst.length; rule++) {
        Set<Integer> called = new HashSet<>();
        Deque<Integer> work = new ArrayDeque<>();
        work.add(built.ruleStart[rule]);
        while (!work.isEmpty()) {
          int node = work.removeLast();
          if (seen[node]) {
            continue;
          }
          seen[node] = true;
          for (int e = firstEdge[node]; e < firstEdge[node + 1]; e++) {
            if (low[e] == CALL) {
              called.add(high[e]);
            }
            if (low[e] == EMPTY || (low[e] == CALL && empty[ruleStart[high[e]]])) {
              work.add(target[e]);
            }
          }
        }
        calledFirst[rule] = called.stream().mapToInt(Integer::intValue).sorted().toArray();
      }
      int[] next = filled(calledFirst.length);
      Deque<Integer> path = new ArrayDeque<>();
      boolean[] open = new boolean[calledFirst.length];
      for (int rule = 0; rule < calledFirst.length; rule++) {
        if (next[rule] < 0) {
          next[rule] = 0;
          open[rule] = true;
          path.push(rule);
        }
        while (!path.isEmpty()) {
          int top = path.getFirst();
          if (next[top] == calledFirst[top].length) {
            open[top] = false;
            path.pop();
            continue;
          }
          int called = calledFirst[top][next[top]++];
          if (open[called]) {
            throw wrong(
                built.rules.get(called),
                called == top
                    ? "begins with itself (left recursion)"
                    : "begins with itself, by way of '"
                        + built.rules.get(top).name()
                        + "' (left recursion)");
          }
          if (next[called] < 0) {
            next[called] = 0;
            open[called] = true;
            path.push(called);
          }
        }
      }
    }
  }
}
