package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.Pooling;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * Decides which rows a replica runs next: continuous batching (Yu et al., Orca, 2022) with chunked
 * prefill (Agrawal et al., Sarathi, 2023).
 *
 * <p>Each step takes one row of every sequence that decodes, in turn, and fills what is left of its
 * rows with pieces of prompts. With several stages up to that many steps are in flight, each with
 * its share of the sequences, so that all stages work at once; a sequence whose next token is still
 * on its way sits a step out. When the KV cache is full, the youngest sequence loses its positions
 * and goes back to the head of the queue: it is a value, and its cache is rebuilt later.
 *
 * <p>A text to embed is a prompt like others; with its last row it is done.
 *
 * <p>Pure: no clock, thread or network. One thread drives it.
 */
final class Scheduler {

  /**
   * @param rowsPerStep at most so many rows go into a step
   * @param maxRunning at most so many sequences hold cache positions; below {@code rowsPerStep}, so
   *     that prompts always get rows
   * @param maxWaiting requests beyond are refused
   * @param cachePositions of each stage, handed out in blocks of {@link #BLOCK}
   * @param maxLength tokens of a sequence, prompt included
   * @param depth steps in flight: the number of stages
   */
  record Limits(
      int rowsPerStep,
      int maxRunning,
      int maxWaiting,
      int cachePositions,
      int maxLength,
      int depth) {}

  /** Hears of one sequence, on the scheduler's thread. */
  interface Listener {

    /** It is queued. */
    void accepted();

    /** A token was drawn; {@code position} is its place in the sequence. */
    void token(int position, int token);

    /** The end of a generation. */
    void finished(Generator.FinishReason reason);

    /** The end of a text to embed; {@code [width]}, of length 1. */
    void embedded(float[] vector);

    /** The end, because it cannot go on here. */
    void failed(FlotillaException error);
  }

  /** What is to be done with a sequence. */
  sealed interface Goal {}

  /** To go on with it. */
  record Continue(SamplingParameters sampling, int maxTokens, int[] endTokens) implements Goal {}

  /** To embed it. */
  record Embed(Pooling pooling) implements Goal {}

  /** A request as it comes to a replica: prompt and what was generated before, as one. */
  record Submission(String id, int[] tokens, Goal goal) {}

  private static final class Sequence {
    final Submission submission;
    final Listener listener;
    int[] tokens;
    int length;
    int generated;

    /** Names its positions in the caches; a new one after each eviction. */
    long cacheId;

    /** Positions in the cache or on their way there. */
    int computed;

    /** Its next token, or its embedding, is on its way back. */
    boolean drawing;

    Sequence(Submission submission, Listener listener) {
      this.submission = submission;
      this.listener = listener;
      this.tokens = submission.tokens().clone();
      this.length = tokens.length;
    }

    int missing() {
      return length - computed;
    }

    void append(int token) {
      if (length == tokens.length) {
        tokens = Arrays.copyOf(tokens, length + length / 2 + 8);
      }
      tokens[length++] = token;
      generated++;
    }
  }

  /** Positions that a cache hands out at once, to one sequence. */
  static final int BLOCK = 32;

  /** A result that a step is to bring. */
  private record Due(Sequence sequence, long cacheId) {

    boolean counts() {
      return cacheId == sequence.cacheId;
    }
  }

  private record InFlight(List<Due> tokens, List<Due> vectors) {}

  private final Limits limits;
  private final Deque<Sequence> waiting = new ArrayDeque<>();

  /** In order of admission. */
  private final List<Sequence> running = new ArrayList<>();

  /** The same, who was served longest ago first. */
  private final Deque<Sequence> turns = new ArrayDeque<>();

  private final Map<String, Sequence> byId = new HashMap<>();
  private final Map<Long, InFlight> inFlight = new LinkedHashMap<>();
  private final List<Long> releases = new ArrayList<>();
  private int usedBlocks;
  private long lastNumber;
  private long lastCacheId;

  Scheduler(Limits limits) {
    this.limits = limits;
  }

  int running() {
    return running.size();
  }

  int waiting() {
    return waiting.size();
  }

  int freePositions() {
    return (limits.cachePositions() / BLOCK - usedBlocks) * BLOCK;
  }

  /** Queues a request, or tells its listener why not. */
  void submit(Submission submission, Listener listener) {
    if (waiting.size() >= limits.maxWaiting()) {
      listener.failed(
          new FlotillaException(
              FlotillaException.Code.BUSY,
              waiting.size() + " requests are waiting already",
              "Try again later, or add replicas."));
      return;
    }
    int length = submission.tokens().length;
    int longest = limits.maxLength() - (submission.goal() instanceof Embed ? 0 : 1);
    if (length == 0 || length > longest) {
      listener.failed(tooLong(length, limits.maxLength(), longest));
      return;
    }
    Sequence sequence = new Sequence(submission, listener);
    Sequence other = byId.putIfAbsent(submission.id(), sequence);
    assert other == null : "two requests " + submission.id();
    waiting.addLast(sequence);
    listener.accepted();
  }

  static FlotillaException tooLong(int tokens, int maxLength, int longest) {
    return new FlotillaException(
        FlotillaException.Code.INVALID,
        "the prompt has " + tokens + " tokens, and the context holds " + maxLength,
        "Send a prompt of 1 to " + longest + " tokens.");
  }

  /** Stops a request within this step; unknown ids are ignored. */
  void cancel(String id) {
    Sequence sequence = byId.get(id);
    if (sequence != null) {
      end(sequence);
      sequence.listener.finished(Generator.FinishReason.CANCELLED);
    }
  }

  /** Drops every request and all that is in flight: the caches are gone. */
  void fail(FlotillaException error) {
    List<Sequence> all = new ArrayList<>(byId.values());
    byId.clear();
    waiting.clear();
    running.clear();
    turns.clear();
    inFlight.clear();
    releases.clear();
    usedBlocks = 0;
    all.forEach(s -> s.listener.failed(error));
  }

  /** The next step's rows, or empty if there is nothing to run now. */
  Optional<Batch> schedule() {
    if (inFlight.size() >= limits.depth()) {
      return Optional.empty();
    }
    admit();
    Rows rows = new Rows();
    int share = Math.ceilDiv(running.size(), limits.depth());
    fill(rows, share, s -> s.missing() == 1);
    fill(rows, share, s -> s.missing() > 1);
    if (rows.count == 0 && releases.isEmpty()) {
      return Optional.empty();
    }
    Batch batch = rows.batch(++lastNumber, releases);
    releases.clear();
    inFlight.put(batch.number(), new InFlight(rows.drawn, rows.embedded));
    return Optional.of(batch);
  }

  /**
   * Takes what a step brings: a token per draw, negative where the output was not a number, and a
   * vector per embedding that it completed, empty where it was not; both in order. Steps come back
   * in the order in which they were scheduled.
   */
  void deliver(long number, int[] tokens, List<float[]> vectors) {
    InFlight due = inFlight.remove(number);
    if (due == null) {
      return; // from before the caches were lost
    }
    assert due.tokens.size() == tokens.length && due.vectors.size() == vectors.size()
        : due + ", but " + tokens.length + " tokens, " + vectors.size() + " vectors";
    for (int i = 0; i < tokens.length; i++) {
      Sequence sequence = due.tokens.get(i).sequence();
      if (due.tokens.get(i).counts() && sequence.submission.goal() instanceof Continue goal) {
        sequence.drawing = false;
        take(sequence, goal, tokens[i]);
      }
    }
    for (int i = 0; i < vectors.size(); i++) {
      if (due.vectors.get(i).counts()) {
        take(due.vectors.get(i).sequence(), vectors.get(i));
      }
    }
  }

  private void take(Sequence sequence, Continue goal, int token) {
    Listener listener = sequence.listener;
    if (token < 0) {
      end(sequence);
      listener.failed(notANumber(sequence));
      return;
    }
    if (contains(goal.endTokens(), token)) {
      end(sequence);
      listener.finished(Generator.FinishReason.STOP);
      return;
    }
    sequence.append(token);
    listener.token(sequence.length - 1, token);
    if (sequence.generated >= goal.maxTokens() || sequence.length >= limits.maxLength()) {
      end(sequence);
      listener.finished(Generator.FinishReason.LENGTH);
    }
  }

  private void take(Sequence sequence, float[] vector) {
    end(sequence);
    if (vector.length == 0) {
      sequence.listener.failed(notANumber(sequence));
    } else {
      sequence.listener.embedded(vector);
    }
  }

  private static FlotillaException notANumber(Sequence sequence) {
    return new FlotillaException(
        FlotillaException.Code.FAILED,
        "the model's output is not a number at position " + sequence.length,
        "Its weights are damaged or were trained wrongly; add it again.");
  }

  private static boolean contains(int[] values, int value) {
    for (int v : values) {
      if (v == value) {
        return true;
      }
    }
    return false;
  }

  /** Admits who waits, in order, while there is room for the prompt and some tokens of each. */
  private void admit() {
    while (!waiting.isEmpty() && running.size() < limits.maxRunning()) {
      Sequence next = waiting.getFirst();
      int promised = running.stream().mapToInt(s -> moreBlocks(s, s.missing())).sum();
      int spare = running.isEmpty() ? 0 : running.size() / 2 + 1;
      if (freePositions() / BLOCK < promised + moreBlocks(next, next.length) + spare) {
        return;
      }
      waiting.removeFirst();
      next.cacheId = ++lastCacheId;
      running.add(next);
      turns.addLast(next);
    }
  }

  /** Adds rows of the sequences that qualify, who was served longest ago first. */
  private void fill(Rows rows, int share, Predicate<Sequence> qualifies) {
    for (Sequence sequence : List.copyOf(turns)) {
      if (rows.sequences >= share || rows.count >= limits.rowsPerStep()) {
        return;
      }
      if (sequence.drawing || !qualifies.test(sequence) || !running.contains(sequence)) {
        continue;
      }
      int count = Math.min(sequence.missing(), limits.rowsPerStep() - rows.count);
      if (rows.contains(sequence) || !makeRoom(count, sequence, rows)) {
        continue;
      }
      rows.add(sequence, count);
      usedBlocks += moreBlocks(sequence, count);
      sequence.computed += count;
      sequence.drawing = sequence.missing() == 0;
      turns.remove(sequence);
      turns.addLast(sequence);
    }
  }

  private static int moreBlocks(Sequence sequence, int count) {
    return Math.ceilDiv(sequence.computed + count, BLOCK) - Math.ceilDiv(sequence.computed, BLOCK);
  }

  /** Evicts the youngest others until there is room; not those with rows in this step. */
  private boolean makeRoom(int count, Sequence forWhom, Rows rows) {
    int blocks = moreBlocks(forWhom, count);
    for (int i = running.size() - 1; i >= 0 && freePositions() < blocks * BLOCK; i--) {
      Sequence victim = running.get(i);
      if (victim == forWhom) {
        return false; // only older ones are left: it waits for them
      }
      if (!rows.contains(victim)) {
        leaveCache(victim);
        waiting.addFirst(victim);
      }
    }
    return freePositions() >= blocks * BLOCK;
  }

  private void end(Sequence sequence) {
    byId.remove(sequence.submission.id());
    if (!waiting.remove(sequence)) {
      leaveCache(sequence);
    }
  }

  private void leaveCache(Sequence sequence) {
    running.remove(sequence);
    turns.remove(sequence);
    usedBlocks -= Math.ceilDiv(sequence.computed, BLOCK);
    if (sequence.computed > 0) {
      releases.add(sequence.cacheId);
    }
    sequence.computed = 0;
    sequence.drawing = false;
    sequence.cacheId = 0;
  }

  /** The rows of a step while they are gathered. */
  private static final class Rows {
    final List<Sequence> members = new ArrayList<>();
    final List<Integer> starts = new ArrayList<>();
    final List<Integer> counts = new ArrayList<>();
    final List<Due> drawn = new ArrayList<>();
    final List<Due> embedded = new ArrayList<>();
    int count;
    int sequences;

    boolean contains(Sequence sequence) {
      return members.contains(sequence);
    }

    void add(Sequence sequence, int rows) {
      members.add(sequence);
      starts.add(sequence.computed);
      counts.add(rows);
      count += rows;
      sequences++;
    }

    Batch batch(long number, Collection<Long> releases) {
      int[] tokens = new int[count];
      long[] ids = new long[count];
      int[] positions = new int[count];
      List<Batch.Draw> draws = new ArrayList<>();
      List<Batch.Pool> pools = new ArrayList<>();
      int row = 0;
      for (int i = 0; i < members.size(); i++) {
        Sequence sequence = members.get(i);
        for (int j = 0; j < counts.get(i); j++, row++) {
          positions[row] = starts.get(i) + j;
          tokens[row] = sequence.tokens[positions[row]];
          ids[row] = sequence.cacheId;
        }
        boolean whole = positions[row - 1] == sequence.length - 1;
        switch (sequence.submission.goal()) {
          case Continue(SamplingParameters sampling, int _, int[] _) -> {
            if (whole) {
              draws.add(new Batch.Draw(row - 1, sequence.length, sampling));
              drawn.add(new Due(sequence, sequence.cacheId));
            }
          }
          case Embed(Pooling pooling) -> {
            pools.add(new Batch.Pool(row - counts.get(i), counts.get(i), sequence.length, pooling));
            if (whole) {
              embedded.add(new Due(sequence, sequence.cacheId));
            }
          }
        }
      }
      return new Batch(
          number,
          tokens,
          ids,
          positions,
          Collections.unmodifiableList(draws),
          Collections.unmodifiableList(pools),
          releases.stream().mapToLong(Long::longValue).toArray());
    }
  }
}
