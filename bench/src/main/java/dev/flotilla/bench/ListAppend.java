package dev.flotilla.bench;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Deque;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * Finds what a serializable system cannot have done, from transactions that append unique values to
 * lists and read whole lists.
 *
 * <p>The method is Elle's (Kingsbury and Alvaro, VLDB 2020). Since a list keeps the order of its
 * appends, the longest list read of a key tells the order in which its values were written. From it
 * follow the dependencies between transactions, in Adya's terms:
 *
 * <ul>
 *   <li>write-write: whose value directly follows another's;
 *   <li>write-read: who read a list that ends with another's value;
 *   <li>read-write: who read a list to which another's value was the next;
 *   <li>real time: who began after another had ended (for strict serializability).
 * </ul>
 *
 * <p>A cycle means that no order of the transactions explains what was seen. Its kind is the worst
 * edge needed: only write-write (G0), with write-read (G1c), with one read-write (G-single), with
 * several (G2); one that needs real time is a violation of strictness only. Found directly: reads
 * of values that were aborted (G1a) or overwritten within their own transaction (G1b), a value
 * twice in a list, lists that disagree, and acknowledged appends that a later last read lacks.
 */
final class ListAppend {

  /** One step: an append of a value, or a read with what it answered. */
  sealed interface Step {
    String key();

    /** Adds the value at the end. */
    record Append(String key, int value) implements Step {}

    /** Answers the list; empty optional where the answer is not known. */
    record Read(String key, Optional<List<Integer>> answer) implements Step {}
  }

  /** A transaction and when it ran. */
  record Transaction(
      int id, List<Step> steps, History.Outcome outcome, long calledNs, long endedNs) {}

  private enum Edge {
    WRITE_WRITE,
    WRITE_READ,
    READ_WRITE,
    REAL_TIME
  }

  private final List<Transaction> transactions;
  private final List<String> anomalies = new ArrayList<>();
  private final Map<String, Map<Integer, Transaction>> writer = new TreeMap<>();
  private final Map<String, List<Integer>> order = new TreeMap<>();
  private final Map<Integer, Map<Integer, EnumSet<Edge>>> edges = new TreeMap<>();

  private ListAppend(Collection<Transaction> transactions) {
    this.transactions = List.copyOf(transactions);
  }

  /** All anomalies, in words; none if the history is strictly serializable. */
  static List<String> check(Collection<Transaction> transactions) {
    ListAppend check = new ListAppend(transactions);
    check.findWriters();
    check.findOrders();
    check.findBadReads();
    if (check.anomalies.isEmpty()) {
      check.findEdges();
      check.findCycles();
    }
    return check.anomalies;
  }

  private void findWriters() {
    for (Transaction transaction : transactions) {
      for (Step step : transaction.steps()) {
        if (step instanceof Step.Append append
            && writer
                    .computeIfAbsent(append.key(), k -> new HashMap<>())
                    .put(append.value(), transaction)
                != null) {
          throw new IllegalArgumentException("value appended twice by the test: " + append);
        }
      }
    }
  }

  private static boolean mayHaveHappened(Transaction transaction) {
    return transaction.outcome() != History.Outcome.NOT_DONE;
  }

  /** The lists that others' committed transactions began with, before their own appends. */
  private static List<Step.Read> knownReads(Transaction transaction) {
    if (transaction.outcome() != History.Outcome.DONE) {
      return List.of();
    }
    return transaction.steps().stream()
        .filter(Step.Read.class::isInstance)
        .map(Step.Read.class::cast)
        .filter(read -> read.answer().isPresent())
        .toList();
  }

  private void findOrders() {
    for (Transaction transaction : transactions) {
      for (Step.Read read : knownReads(transaction)) {
        List<Integer> seen = read.answer().orElseThrow();
        if (new HashSet<>(seen).size() != seen.size()) {
          anomalies.add("a value twice in " + read.key() + ": " + seen);
        }
        List<Integer> longest = order.getOrDefault(read.key(), List.of());
        List<Integer> shorter = seen.size() < longest.size() ? seen : longest;
        List<Integer> longer = seen.size() < longest.size() ? longest : seen;
        if (!longer.subList(0, shorter.size()).equals(shorter)) {
          anomalies.add("lists of " + read.key() + " disagree: " + shorter + " and " + longer);
        }
        order.put(read.key(), longer);
      }
    }
  }

  private void findBadReads() {
    for (Transaction transaction : transactions) {
      Map<String, List<Integer>> own = new HashMap<>();
      for (Step step : transaction.steps()) {
        if (step instanceof Step.Append append) {
          own.computeIfAbsent(append.key(), k -> new ArrayList<>()).add(append.value());
        } else if (step instanceof Step.Read read
            && transaction.outcome() == History.Outcome.DONE
            && read.answer().isPresent()) {
          badRead(transaction, read, own.getOrDefault(read.key(), List.of()));
        }
      }
    }
  }

  private void badRead(Transaction transaction, Step.Read read, List<Integer> own) {
    List<Integer> seen = read.answer().orElseThrow();
    int before = seen.size() - own.size();
    if (before < 0 || !seen.subList(before, seen.size()).equals(own)) {
      anomalies.add("transaction " + transaction.id() + " does not see its own appends: " + read);
      return;
    }
    for (int i = 0; i < before; i++) {
      Transaction source = writer.getOrDefault(read.key(), Map.of()).get(seen.get(i));
      if (source == null) {
        anomalies.add("a value that nobody appended: " + seen.get(i) + " in " + read);
      } else if (!mayHaveHappened(source)) {
        anomalies.add("G1a, a read of an aborted append: " + seen.get(i) + " in " + read);
      }
    }
    if (before > 0) {
      int last = seen.get(before - 1);
      Transaction source = writer.getOrDefault(read.key(), Map.of()).get(last);
      if (source != null
          && source.id() != transaction.id()
          && last != lastAppend(source, read.key())) {
        anomalies.add("G1b, a read in the middle of transaction " + source.id() + ": " + read);
      }
    }
  }

  private static int lastAppend(Transaction transaction, String key) {
    int last = 0;
    for (Step step : transaction.steps()) {
      if (step instanceof Step.Append append && append.key().equals(key)) {
        last = append.value();
      }
    }
    return last;
  }

  private void edge(Transaction from, Transaction to, Edge kind) {
    if (from.id() != to.id()) {
      edges
          .computeIfAbsent(from.id(), k -> new TreeMap<>())
          .computeIfAbsent(to.id(), k -> EnumSet.noneOf(Edge.class))
          .add(kind);
    }
  }

  private void findEdges() {
    order.forEach(
        (key, values) -> {
          for (int i = 1; i < values.size(); i++) {
            edge(writerOf(key, values.get(i - 1)), writerOf(key, values.get(i)), Edge.WRITE_WRITE);
          }
        });
    for (Transaction transaction : transactions) {
      Map<String, Integer> own = new HashMap<>();
      for (Step step : transaction.steps()) {
        if (step instanceof Step.Append append) {
          own.merge(append.key(), 1, Integer::sum);
        } else if (step instanceof Step.Read read
            && transaction.outcome() == History.Outcome.DONE
            && read.answer().isPresent()) {
          int before = read.answer().get().size() - own.getOrDefault(read.key(), 0);
          List<Integer> values = order.getOrDefault(read.key(), List.of());
          if (before > 0) {
            edge(writerOf(read.key(), values.get(before - 1)), transaction, Edge.WRITE_READ);
          }
          if (before < values.size()) {
            edge(transaction, writerOf(read.key(), values.get(before)), Edge.READ_WRITE);
          }
        }
      }
    }
    findUnreadAppends();
    findRealTime();
  }

  /** An acknowledged append that the longest list lacks comes after every list that lacks it. */
  private void findUnreadAppends() {
    for (Transaction transaction : transactions) {
      if (transaction.outcome() != History.Outcome.DONE) {
        continue;
      }
      for (Step step : transaction.steps()) {
        if (step instanceof Step.Append append
            && !order.getOrDefault(append.key(), List.of()).contains(append.value())) {
          for (Transaction reader : transactions) {
            for (Step.Read read : knownReads(reader)) {
              if (read.key().equals(append.key())) {
                edge(reader, transaction, Edge.READ_WRITE);
              }
            }
          }
        }
      }
    }
  }

  /**
   * Real time as few edges: going through the moments in order, each transaction that begins comes
   * after those of the ended ones that no other ended one already comes after.
   */
  private void findRealTime() {
    record Moment(long ns, boolean begins, Transaction transaction) {}
    List<Moment> moments = new ArrayList<>();
    for (Transaction transaction : transactions) {
      if (mayHaveHappened(transaction)) {
        moments.add(new Moment(transaction.calledNs(), true, transaction));
        if (transaction.outcome() == History.Outcome.DONE) {
          moments.add(new Moment(transaction.endedNs(), false, transaction));
        }
      }
    }
    moments.sort(
        (a, b) ->
            a.ns() != b.ns()
                ? Long.compare(a.ns(), b.ns())
                : Boolean.compare(b.begins(), a.begins()));
    Set<Transaction> frontier = new HashSet<>();
    Map<Transaction, Set<Transaction>> after = new HashMap<>();
    for (Moment moment : moments) {
      if (moment.begins()) {
        after.put(moment.transaction(), new HashSet<>(frontier));
        frontier.forEach(ended -> edge(ended, moment.transaction(), Edge.REAL_TIME));
      } else {
        frontier.removeAll(Objects.requireNonNull(after.get(moment.transaction())));
        frontier.add(moment.transaction());
      }
    }
  }

  private Transaction writerOf(String key, int value) {
    return Objects.requireNonNull(
        Objects.requireNonNull(writer.get(key)).get(value), () -> key + " " + value);
  }

  private void findCycles() {
    List<EnumSet<Edge>> kinds =
        List.of(
            EnumSet.of(Edge.WRITE_WRITE),
            EnumSet.of(Edge.WRITE_WRITE, Edge.WRITE_READ),
            EnumSet.of(Edge.WRITE_WRITE, Edge.WRITE_READ, Edge.READ_WRITE),
            EnumSet.allOf(Edge.class));
    for (EnumSet<Edge> kind : kinds) {
      Optional<List<Integer>> cycle = cycle(kind);
      if (cycle.isPresent()) {
        anomalies.add(name(kind, cycle.get()) + ": " + describe(cycle.get(), kind));
        return;
      }
    }
  }

  private String name(EnumSet<Edge> kind, List<Integer> cycle) {
    if (kind.contains(Edge.REAL_TIME)) {
      return "a cycle with real time";
    }
    if (kind.contains(Edge.READ_WRITE)) {
      long readWrites = 0;
      for (int i = 0; i < cycle.size(); i++) {
        EnumSet<Edge> between = between(cycle.get(i), cycle.get((i + 1) % cycle.size()));
        if (!between.contains(Edge.WRITE_WRITE) && !between.contains(Edge.WRITE_READ)) {
          readWrites++;
        }
      }
      return readWrites == 1 ? "G-single" : "G2";
    }
    return kind.contains(Edge.WRITE_READ) ? "G1c" : "G0";
  }

  private EnumSet<Edge> between(int from, int to) {
    return Objects.requireNonNull(Objects.requireNonNull(edges.get(from)).get(to));
  }

  private String describe(List<Integer> cycle, EnumSet<Edge> kind) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < cycle.size(); i++) {
      EnumSet<Edge> between =
          EnumSet.copyOf(between(cycle.get(i), cycle.get((i + 1) % cycle.size())));
      between.retainAll(kind);
      text.append(cycle.get(i)).append(" -").append(between).append("-> ");
    }
    return text.append(cycle.getFirst()).toString();
  }

  /** A shortest cycle that uses only such edges, found inside a strongly connected component. */
  private Optional<List<Integer>> cycle(EnumSet<Edge> kinds) {
    for (Set<Integer> component : components(kinds)) {
      if (component.size() > 1) {
        return component.stream()
            .map(start -> shortestCycle(start, component, kinds))
            .flatMap(Optional::stream)
            .min((a, b) -> Integer.compare(a.size(), b.size()));
      }
    }
    return Optional.empty();
  }

  private List<Integer> following(int id, EnumSet<Edge> kinds) {
    return edges.getOrDefault(id, Map.of()).entrySet().stream()
        .filter(entry -> entry.getValue().stream().anyMatch(kinds::contains))
        .map(Map.Entry::getKey)
        .toList();
  }

  private Optional<List<Integer>> shortestCycle(
      int start, Set<Integer> within, EnumSet<Edge> kinds) {
    Map<Integer, Integer> cameFrom = new HashMap<>();
    Deque<Integer> queue = new ArrayDeque<>(List.of(start));
    while (!queue.isEmpty()) {
      int id = queue.remove();
      for (int next : following(id, kinds)) {
        if (next == start) {
          List<Integer> path = new ArrayList<>();
          for (int at = id; at != start; at = Objects.requireNonNull(cameFrom.get(at))) {
            path.addFirst(at);
          }
          path.addFirst(start);
          return Optional.of(path);
        }
        if (within.contains(next) && cameFrom.putIfAbsent(next, id) == null) {
          queue.add(next);
        }
      }
    }
    return Optional.empty();
  }

  /** Tarjan's strongly connected components (1972), without recursion. */
  private List<Set<Integer>> components(EnumSet<Edge> kinds) {
    int most = transactions.stream().mapToInt(Transaction::id).max().orElse(-1) + 1;
    int[] index = new int[most];
    int[] low = new int[most];
    boolean[] onStack = new boolean[most];
    Arrays.fill(index, -1);
    int counter = 0;
    Deque<Integer> stack = new ArrayDeque<>();
    List<Set<Integer>> found = new ArrayList<>();
    record Frame(int id, java.util.Iterator<Integer> next) {}
    for (Transaction root : transactions) {
      if (index[root.id()] >= 0) {
        continue;
      }
      Deque<Frame> frames = new ArrayDeque<>();
      frames.push(new Frame(root.id(), following(root.id(), kinds).iterator()));
      index[root.id()] = low[root.id()] = counter++;
      stack.push(root.id());
      onStack[root.id()] = true;
      while (!frames.isEmpty()) {
        Frame frame = frames.peek();
        if (frame.next().hasNext()) {
          int next = frame.next().next();
          if (index[next] < 0) {
            index[next] = low[next] = counter++;
            stack.push(next);
            onStack[next] = true;
            frames.push(new Frame(next, following(next, kinds).iterator()));
          } else if (onStack[next]) {
            low[frame.id()] = Math.min(low[frame.id()], index[next]);
          }
          continue;
        }
        frames.pop();
        if (!frames.isEmpty()) {
          int parent = frames.peek().id();
          low[parent] = Math.min(low[parent], low[frame.id()]);
        }
        if (low[frame.id()] == index[frame.id()]) {
          Set<Integer> component = new HashSet<>();
          int member;
          do {
            member = stack.pop();
            onStack[member] = false;
            component.add(member);
          } while (member != frame.id());
          found.add(component);
        }
      }
    }
    return found;
  }
}
