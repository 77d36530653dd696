package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.Pooling;
import dev.flotilla.model.Rows;
import dev.flotilla.tensor.KvBlocks;
import dev.flotilla.text.TokenMask;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * Decides which rows a replica runs next: continuous batching (Yu et al., Orca, 2022) with chunked
 * prefill (Agrawal et al., Sarathi, 2023) over a paged cache ({@link BlockLedger}).
 *
 * <p>Each step takes the next row of every sequence that decodes, in turn, and beside them one
 * chunk of a prompt, or several where nobody decodes. With several stages up to that many steps are
 * in flight, each with its share of the sequences, so that all stages work at once; a sequence
 * whose next token is still on its way sits a step out. Whose request is admitted, and whose prompt
 * goes on, is decided by {@link FairShare}.
 *
 * <p>When the cache is full, the least urgent, youngest sequence loses its blocks and goes back to
 * the queue: it is a value, and what its blocks held is found again or computed again, by the same
 * route as before: a prompt in chunks at fixed positions, what was generated as when it was.
 *
 * <p>A text to embed is a prompt like others; with its last row it is done. All of its rows are
 * needed, so it takes nothing from the cache.
 *
 * <p>Pure: no clock, thread or network. One thread drives it.
 */
final class Scheduler {

  /**
   * @param decodeRows at most so many rows of generated tokens, and guesses, go into a step
   * @param guessRows no guess makes a step longer than so many rows: beyond, rows cost more than
   *     they save
   * @param promptRows at most so many rows of prompts go into a step in which nobody decodes
   * @param chunk positions of a prompt that are computed together, see {@link Rows#CHUNK}
   * @param maxRunning at most so many sequences hold cache positions
   * @param maxWaiting requests beyond are refused; of one tenant, beyond three quarters of it
   * @param blocks of each stage's cache, of {@link #BLOCK} positions each
   * @param maxLength tokens of a sequence, prompt included
   * @param depth steps in flight: the number of stages
   */
  record Limits(
      int decodeRows,
      int guessRows,
      int promptRows,
      int chunk,
      int maxRunning,
      int maxWaiting,
      int blocks,
      int maxLength,
      int depth) {

    int waitingOfOneTenant() {
      return Math.ceilDiv(maxWaiting * 3, 4);
    }
  }

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

    /**
     * A replica has begun to keep a copy of what is computed of it, or another one has, and can go
     * on with it best.
     */
    default void copied(String replica) {}
  }

  /** What is to be done with a sequence. */
  sealed interface Goal {}

  /**
   * To go on with it.
   *
   * @param grammar that it is held to, behind what was generated before
   */
  record Continue(
      SamplingParameters sampling, int maxTokens, int[] endTokens, Optional<GrammarState> grammar)
      implements Goal {}

  /** To embed it. */
  record Embed(Pooling pooling) implements Goal {}

  /**
   * A request as it comes to a replica.
   *
   * @param tokens prompt and what was generated before, as one
   * @param prompt how many of them are the prompt's
   */
  record Submission(String id, int[] tokens, int prompt, Claim claim, Goal goal) {}

  /**
   * What there was to count since the start.
   *
   * @param promptTokens of sequences whose prompts were begun, replays included
   * @param foundTokens of these, those whose keys and values were in the cache
   * @param draftedTokens guessed
   * @param acceptedTokens of these, those that were right
   * @param evictions sequences that lost their blocks to others
   * @param replayedTokens of sequences that came with generated tokens, those that were computed
   *     again
   */
  record Counts(
      long promptTokens,
      long foundTokens,
      long draftedTokens,
      long acceptedTokens,
      long evictions,
      long replayedTokens) {

    static final Counts NONE = new Counts(0, 0, 0, 0, 0, 0);
  }

  private static final class Sequence {
    final Submission submission;
    final Listener listener;
    final int prompt;
    int[] tokens;
    int length;
    int generated;

    /** Behind its last token. */
    Optional<GrammarState> grammar;

    /** Names its stay in the cache; a new one after each eviction. */
    long stay;

    int[] blocks = new int[8];
    int blockCount;

    /** Blocks of its list that are known to the ledger, and the text up to there. */
    int known;

    long text = BlockLedger.ROOT;

    /** The text of its first block. */
    long beginning = BlockLedger.ROOT;

    /** The replica of which its listener knows that it has a copy. */
    String copiedTo = "";

    /** Positions in the cache or on their way there; guesses are not counted. */
    int computed;

    /** Its next token, or its embedding, is on its way back. */
    boolean drawing;

    /** How many tokens to guess next, and how many steps not to guess before. */
    int guesses = GUESSES_FIRST;

    int unlucky;
    int pause;

    Sequence(Submission submission, Listener listener) {
      this.submission = submission;
      this.listener = listener;
      this.prompt = submission.prompt();
      this.tokens = submission.tokens().clone();
      this.length = tokens.length;
      this.grammar = submission.goal() instanceof Continue goal ? goal.grammar() : Optional.empty();
    }

    Claim claim() {
      return submission.claim();
    }

    int missing() {
      return length - computed;
    }

    boolean decodes() {
      return computed >= prompt;
    }

    /** Blocks that it lacks for so many positions. */
    int lacks(int positions) {
      return Math.max(0, Math.ceilDiv(positions, BLOCK) - blockCount);
    }

    /** Its next block is known. */
    void knows(long name) {
      text = name;
      beginning = known++ == 0 ? name : beginning;
    }

    /** Of the next so many rows, those that were computed before it came here. */
    int replayed(int count) {
      int before = submission.tokens().length - 1;
      return before < prompt ? 0 : Math.clamp(before - computed, 0, count);
    }

    void add(int block) {
      if (blockCount == blocks.length) {
        blocks = Arrays.copyOf(blocks, blockCount * 2);
      }
      blocks[blockCount++] = block;
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
  static final int BLOCK = KvBlocks.POSITIONS;

  /** Of copies' content, a step takes up so much at most. */
  private static final long IMPORT_BYTES = 16 << 20;

  /** So many blocks a step exports, or so many times what it computes: to catch up, slowly. */
  private static final int EXPORTS_LEAST = 2;

  private static final int EXPORTS_PER_COMPUTED = 2;

  /** Copies leave one in so many blocks to those who run here, at least. */
  private static final int RESERVE_SHARE = 16;

  private static final int GUESSES_FIRST = 3;
  private static final int GUESSES_MOST = 7;
  private static final int PAUSE_DOUBLINGS_MOST = 5;

  /**
   * Tokens guessed behind a sequence's last one.
   *
   * @param tokens up to the first that its grammar does not allow
   * @param grammars behind each of them, where it is held to one
   * @param proposed how many were guessed
   */
  private record Guesses(int[] tokens, List<GrammarState> grammars, int proposed) {

    static final Guesses NONE = new Guesses(new int[0], List.of(), 0);

    /** Those of the guesses that the sequence may go on with. */
    static Guesses allowed(Sequence sequence, int[] tokens) {
      if (sequence.grammar.isEmpty()) {
        return new Guesses(tokens, List.of(), tokens.length);
      }
      List<GrammarState> grammars = new ArrayList<>();
      GrammarState state = sequence.grammar.get();
      for (int token : tokens) {
        if (!state.allowed().contains(token)) {
          break;
        }
        state = state.after(token);
        try {
          TokenMask _ = state.allowed();
        } catch (FlotillaException e) {
          break; // it is said if the token is really drawn
        }
        grammars.add(state);
      }
      return new Guesses(Arrays.copyOf(tokens, grammars.size()), grammars, tokens.length);
    }

    /** The tokens that may come behind the sequence and so many of the guesses. */
    Optional<TokenMask> allowed(Sequence sequence, int count) {
      return (count == 0 ? sequence.grammar : sequence.grammar.map(_ -> grammars.get(count - 1)))
          .map(GrammarState::allowed);
    }
  }

  /** Results that a step is to bring: one token, and one for each guess; or a vector. */
  private record Due(Sequence sequence, long stay, Guesses guesses) {

    boolean counts() {
      return stay == sequence.stay;
    }
  }

  private record InFlight(List<Due> tokens, List<Due> vectors) {}

  private final Limits limits;
  private final Drafter drafter;
  private final BlockLedger ledger;
  private final BlockCopies copies;
  private final KeptBlocks kept;
  private final FairShare<Sequence> fair = new FairShare<>();

  /** In order of admission. */
  private final List<Sequence> running = new ArrayList<>();

  /** The same, who was served longest ago first. */
  private final Deque<Sequence> turns = new ArrayDeque<>();

  private final Map<String, Sequence> byId = new HashMap<>();
  private final Map<Long, InFlight> inFlight = new LinkedHashMap<>();
  private final List<Long> releases = new ArrayList<>();
  private long lastNumber;
  private long lastStay;
  private long promptTokens;
  private long foundTokens;
  private long draftedTokens;
  private long acceptedTokens;
  private long evictions;
  private long replayedTokens;

  /** Whether somebody waits for memory. */
  private boolean starved;

  /**
   * @param layers of the model
   */
  Scheduler(Limits limits, Drafter drafter, int layers) {
    this.limits = limits;
    this.drafter = drafter;
    this.ledger = new BlockLedger(limits.blocks());
    this.copies = new BlockCopies(ledger);
    this.kept = new KeptBlocks(ledger, layers, this::roomForCopies);
  }

  int running() {
    return running.size();
  }

  int waiting() {
    return fair.waiting();
  }

  /** How many requests wait, of each tenant that has some here. */
  Map<String, Integer> waitingByTenant() {
    return fair.waitingByTenant();
  }

  /** Which blocks are whose. */
  BlockLedger ledger() {
    return ledger;
  }

  /** What of the requests here another replica has. */
  BlockCopies copies() {
    return copies;
  }

  /** What of other replicas' requests is here. */
  KeptBlocks kept() {
    return kept;
  }

  /** Blocks that copies may take: what is left when all who run here have a good deal more. */
  private int roomForCopies() {
    int reserve = Math.max(2 * running.size(), limits.blocks() / RESERVE_SHARE);
    return starved ? 0 : ledger.spare() - promised() - reserve;
  }

  private int promised() {
    return running.stream().mapToInt(s -> s.lacks(s.length)).sum();
  }

  Counts counts() {
    return new Counts(
        promptTokens, foundTokens, draftedTokens, acceptedTokens, evictions, replayedTokens);
  }

  /** Queues a request, or tells its listener why not. */
  void submit(Submission submission, Listener listener) {
    String tenant = submission.claim().tenant();
    if (fair.waiting() >= limits.maxWaiting()) {
      listener.failed(busy(fair.waiting() + " requests are waiting already"));
      return;
    }
    if (fair.waiting(tenant) >= limits.waitingOfOneTenant()) {
      listener.failed(busy(fair.waiting(tenant) + " of your requests are waiting already"));
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
    fair.enter(sequence.claim(), sequence);
    listener.accepted();
  }

  private static FlotillaException busy(String why) {
    return new FlotillaException(
        FlotillaException.Code.BUSY, why, "Try again later, or add replicas.");
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
    fair.clear();
    running.clear();
    turns.clear();
    inFlight.clear();
    releases.clear();
    copies.close();
    kept.clear();
    ledger.clear();
    drafter.clear();
    all.forEach(s -> s.listener.failed(error));
  }

  /** The next step's rows, or empty if there is nothing to run now. */
  Optional<Batch> schedule() {
    if (inFlight.size() >= limits.depth()) {
      return Optional.empty();
    }
    List<BlockPart> imports = kept.imports(IMPORT_BYTES);
    admit();
    kept.offerRoom();
    Step step = new Step(Math.ceilDiv(running.size(), limits.depth()));
    decode(step, s -> s.missing() == 1);
    decode(step, s -> s.missing() > 1);
    prefill(step);
    if (step.members.isEmpty() && releases.isEmpty() && imports.isEmpty() && !copies.exporting()) {
      return Optional.empty();
    }
    Batch batch =
        step.batch(
            ++lastNumber,
            imports,
            copies.exports(Math.max(EXPORTS_LEAST, EXPORTS_PER_COMPUTED * step.rows / BLOCK)));
    releases.clear();
    inFlight.put(batch.number(), new InFlight(step.drawn, step.embedded));
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
    int next = 0;
    for (Due one : due.tokens) {
      int last = next + one.guesses().tokens().length;
      if (one.counts() && one.sequence().submission.goal() instanceof Continue goal) {
        take(one.sequence(), goal, Arrays.copyOfRange(tokens, next, last + 1), one.guesses());
      }
      next = last + 1;
    }
    assert next == tokens.length && due.vectors.size() == vectors.size()
        : due + ", but " + tokens.length + " tokens, " + vectors.size() + " vectors";
    for (int i = 0; i < vectors.size(); i++) {
      if (due.vectors.get(i).counts()) {
        take(due.vectors.get(i).sequence(), vectors.get(i));
      }
    }
  }

  /** The drawn tokens count up to the first whose guess was another. */
  private void take(Sequence sequence, Continue goal, int[] drawn, Guesses guesses) {
    sequence.drawing = false;
    int right = 0;
    while (take(sequence, goal, drawn[right])
        && right < guesses.tokens().length
        && drawn[right] == guesses.tokens()[right]) {
      sequence.computed++;
      right++;
    }
    if (guesses.proposed() > 0) {
      draftedTokens += guesses.proposed();
      acceptedTokens += right;
      learn(sequence, guesses.proposed(), right);
    }
    if (sequence.stay != 0) {
      publish(sequence);
      if (!sequence.copiedTo.equals(copies.where()) && copies.has(sequence.beginning)) {
        sequence.copiedTo = copies.where();
        sequence.listener.copied(sequence.copiedTo);
      }
    }
  }

  /** Guesses more where guesses were right, and less, and more rarely, where they were not. */
  private static void learn(Sequence sequence, int guessed, int right) {
    sequence.guesses =
        right == guessed
            ? Math.min(GUESSES_MOST, Math.max(sequence.guesses, guessed + 2))
            : right + 1;
    sequence.unlucky = right > 0 ? 0 : Math.min(sequence.unlucky + 1, PAUSE_DOUBLINGS_MOST);
    sequence.pause = right > 0 ? 0 : (1 << sequence.unlucky) - 1;
  }

  /** Whether the sequence goes on. */
  private boolean take(Sequence sequence, Continue goal, int token) {
    Listener listener = sequence.listener;
    if (token < 0) {
      end(sequence);
      listener.failed(notANumber(sequence));
      return false;
    }
    if (contains(goal.endTokens(), token)) {
      end(sequence);
      listener.finished(Generator.FinishReason.STOP);
      return false;
    }
    if (sequence.grammar.isPresent() && !sequence.grammar.get().allowed().contains(token)) {
      end(sequence);
      listener.failed(notHeeded(sequence));
      return false;
    }
    sequence.grammar = sequence.grammar.map(state -> state.after(token));
    sequence.append(token);
    listener.token(sequence.length - 1, token);
    if (sequence.generated >= goal.maxTokens() || sequence.length >= limits.maxLength()) {
      end(sequence);
      listener.finished(Generator.FinishReason.LENGTH);
      return false;
    }
    try {
      sequence.grammar.ifPresent(GrammarState::allowed);
    } catch (FlotillaException e) {
      end(sequence);
      listener.failed(e);
      return false;
    }
    return true;
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

  private static FlotillaException notHeeded(Sequence sequence) {
    return new FlotillaException(
        FlotillaException.Code.FAILED,
        "the last stage does not heed the grammar at position " + sequence.length,
        "All nodes of a replica must know grammars; upgrade those that do not.");
  }

  private static boolean contains(int[] values, int value) {
    for (int v : values) {
      if (v == value) {
        return true;
      }
    }
    return false;
  }

  /**
   * Admits who waits, in fair order, while there is room for the prompt and some tokens of each.
   */
  private void admit() {
    starved = false;
    while (running.size() < limits.maxRunning()) {
      Optional<Sequence> first = fair.next();
      if (first.isEmpty()) {
        return;
      }
      Sequence next = first.get();
      find(next);
      int spare = running.isEmpty() ? 0 : running.size() / 2 + 1;
      if (ledger.available() < promised() + next.lacks(next.length) + spare) {
        starved = true;
        leaveBlocks(next);
        return;
      }
      fair.run(next.claim(), next);
      next.stay = ++lastStay;
      promptTokens += next.prompt;
      foundTokens += next.computed;
      running.add(next);
      turns.addLast(next);
    }
  }

  /** Takes what the cache has of a sequence; one row is left to compute, for its logits. */
  private void find(Sequence sequence) {
    if (sequence.submission.goal() instanceof Embed) {
      return;
    }
    while (sequence.blockCount == sequence.known
        && sequence.computed == sequence.known * BLOCK
        && sequence.computed + BLOCK < sequence.length) {
      Optional<BlockLedger.Known> found =
          ledger.find(sequence.text, sequence.tokens, sequence.computed, sequence.prompt);
      if (found.isEmpty()) {
        return;
      }
      sequence.add(found.get().block());
      sequence.knows(found.get().text());
      sequence.computed += BLOCK;
    }
  }

  private void publish(Sequence sequence) {
    if (sequence.submission.goal() instanceof Embed) {
      return;
    }
    while ((sequence.known + 1) * BLOCK <= sequence.computed) {
      sequence.knows(
          ledger.publish(
              sequence.text,
              sequence.blocks[sequence.known],
              sequence.tokens,
              sequence.known * BLOCK,
              sequence.prompt));
    }
  }

  /** Adds rows of generated tokens, of who was served longest ago first. */
  private void decode(Step step, Predicate<Sequence> qualifies) {
    List<Sequence> guessing = new ArrayList<>();
    for (Sequence sequence : List.copyOf(turns)) {
      if (step.full() || step.rows >= limits.decodeRows()) {
        break;
      }
      if (!sequence.drawing
          && sequence.decodes()
          && sequence.stay != 0
          && !step.contains(sequence)
          && qualifies.test(sequence)) {
        lookup(sequence);
        int count = Math.min(sequence.missing(), limits.decodeRows() - step.rows);
        if (makeRoom(sequence, sequence.computed + count, step)) {
          step.add(sequence, count, false);
          if (sequence.drawing && sequence.submission.goal() instanceof Continue) {
            guessing.add(sequence);
          }
        }
      }
    }
    if (!drafter.equals(Drafter.NONE)) {
      guess(step, guessing);
    }
  }

  /** Adds guesses behind the last rows of sequences in the step, as far as there is room. */
  private void guess(Step step, List<Sequence> sequences) {
    int room = Math.min(limits.guessRows(), limits.decodeRows()) - step.rows;
    List<Sequence> chosen = new ArrayList<>();
    List<Drafter.Context> contexts = new ArrayList<>();
    for (Sequence sequence : sequences) {
      Continue goal = (Continue) sequence.submission.goal();
      if (sequence.pause > 0) {
        sequence.pause--;
        continue;
      }
      int most =
          Math.min(
              Math.min(sequence.guesses, room),
              Math.min(
                  goal.maxTokens() - sequence.generated - 1,
                  limits.maxLength() - sequence.length - 1));
      if (most > 0 && sequence.lacks(sequence.length + most) <= ledger.available()) {
        takeBlocks(sequence, sequence.length + most);
        contexts.add(
            new Drafter.Context(
                sequence.stay, sequence.tokens, sequence.length, most, goal.sampling()));
        chosen.add(sequence);
        room -= most;
      }
    }
    if (chosen.isEmpty()) {
      return;
    }
    List<int[]> guesses = drafter.draft(contexts);
    for (int i = 0; i < chosen.size(); i++) {
      step.guess(chosen.get(i), guesses.get(i));
    }
  }

  /** Adds chunks of prompts: one beside those who decode, as many as fit where nobody does. */
  private void prefill(Step step) {
    int room = step.rows == 0 ? limits.promptRows() : limits.chunk();
    List<Sequence> prompts =
        running.stream()
            .filter(s -> !s.drawing && !s.decodes())
            .sorted(
                Comparator.comparingDouble((Sequence s) -> fair.pass(s.claim()))
                    .thenComparingLong(s -> s.stay))
            .toList();
    for (Sequence sequence : prompts) {
      while (room > 0 && sequence.stay != 0 && !sequence.decodes()) {
        if (step.full() && !step.contains(sequence)) {
          return;
        }
        lookup(sequence);
        if (sequence.decodes()) {
          break; // nothing of the prompt is left: the next step goes on with it
        }
        int end =
            Math.min(sequence.prompt, (sequence.computed / limits.chunk() + 1) * limits.chunk());
        int count = end - sequence.computed;
        if (count > room) {
          break;
        }
        if (!makeRoom(sequence, end, step)) {
          return;
        }
        step.add(sequence, count, true);
        room -= count;
      }
    }
  }

  /** Looks once more what others have computed meanwhile. */
  private void lookup(Sequence sequence) {
    int before = sequence.computed;
    find(sequence);
    foundTokens += sequence.computed - before;
  }

  /** Takes blocks up to a position, from the least urgent others if it must; whether it could. */
  private boolean makeRoom(Sequence sequence, int positions, Step step) {
    while (sequence.lacks(positions) > ledger.available()) {
      Optional<Sequence> victim =
          running.stream()
              .filter(s -> s != sequence && !step.contains(s) && moreUrgent(sequence, s))
              .reduce((a, b) -> moreUrgent(a, b) ? b : a);
      if (victim.isEmpty()) {
        return false; // only more urgent ones are left: it waits for them
      }
      evictions++;
      leaveCache(victim.get());
      fair.back(victim.get().claim(), victim.get());
    }
    takeBlocks(sequence, positions);
    return true;
  }

  private static boolean moreUrgent(Sequence a, Sequence b) {
    int byPriority = a.claim().priority().compareTo(b.claim().priority());
    return byPriority != 0 ? byPriority < 0 : a.stay < b.stay;
  }

  private void takeBlocks(Sequence sequence, int positions) {
    for (int i = sequence.lacks(positions); i > 0; i--) {
      sequence.add(ledger.take());
    }
  }

  private void end(Sequence sequence) {
    byId.remove(sequence.submission.id());
    if (sequence.stay != 0) {
      leaveCache(sequence);
    }
    fair.leave(sequence.claim(), sequence);
  }

  private void leaveCache(Sequence sequence) {
    running.remove(sequence);
    turns.remove(sequence);
    if (sequence.submission.goal() instanceof Embed && sequence.computed > 0) {
      releases.add(sequence.stay);
    }
    drafter.forget(sequence.stay);
    leaveBlocks(sequence);
    sequence.drawing = false;
    sequence.stay = 0;
  }

  private void leaveBlocks(Sequence sequence) {
    ledger.release(sequence.blocks, sequence.blockCount);
    sequence.blockCount = 0;
    sequence.known = 0;
    sequence.text = BlockLedger.ROOT;
    sequence.computed = 0;
  }

  /** A step while it is gathered. */
  private final class Step {

    private record Part(Sequence sequence, int start, int count, boolean prompt) {}

    private final int share;
    final List<Sequence> members = new ArrayList<>();
    private final List<Part> parts = new ArrayList<>();
    private final Map<Sequence, Guesses> guesses = new HashMap<>();
    final List<Due> drawn = new ArrayList<>();
    final List<Due> embedded = new ArrayList<>();
    int rows;

    /**
     * @param share so many sequences are to be in it, and the others in other steps
     */
    Step(int share) {
      this.share = share;
    }

    boolean full() {
      return members.size() >= share;
    }

    boolean contains(Sequence sequence) {
      return members.contains(sequence);
    }

    /** Adds the next rows of a sequence, which has the blocks for them. */
    void add(Sequence sequence, int count, boolean prompt) {
      parts.add(new Part(sequence, sequence.computed, count, prompt));
      if (!members.contains(sequence)) {
        members.add(sequence);
      }
      rows += count;
      replayedTokens += sequence.replayed(count);
      sequence.computed += count;
      sequence.drawing = sequence.missing() == 0;
      fair.charge(sequence.claim(), count);
      turns.remove(sequence);
      turns.addLast(sequence);
      publish(sequence);
    }

    /** Adds rows behind the last one of a sequence in this step. */
    void guess(Sequence sequence, int[] tokens) {
      Guesses allowed = Guesses.allowed(sequence, tokens);
      guesses.put(sequence, allowed);
      rows += allowed.tokens().length;
    }

    Batch batch(long number, List<BlockPart> imports, List<Batch.Export> exports) {
      int[] tokens = new int[rows];
      List<Rows.Run> runs = new ArrayList<>();
      List<Batch.Draw> draws = new ArrayList<>();
      List<Batch.Pool> pools = new ArrayList<>();
      int row = 0;
      for (Part part : parts) {
        Sequence sequence = part.sequence();
        boolean whole = part.start() + part.count() == sequence.length;
        Guesses behind = guesses.getOrDefault(sequence, Guesses.NONE);
        int[] guessed = behind.tokens();
        int count = part.count() + guessed.length;
        System.arraycopy(sequence.tokens, part.start(), tokens, row, part.count());
        System.arraycopy(guessed, 0, tokens, row + part.count(), guessed.length);
        int blocks = Math.ceilDiv(part.start() + count, BLOCK);
        runs.add(
            new Rows.Run(
                Arrays.copyOf(sequence.blocks, blocks), part.start(), count, part.prompt()));
        switch (sequence.submission.goal()) {
          case Continue goal -> {
            if (whole) {
              for (int i = 0; i <= guessed.length; i++) {
                draws.add(
                    new Batch.Draw(
                        row + part.count() - 1 + i,
                        sequence.length + i,
                        goal.sampling(),
                        behind.allowed(sequence, i)));
              }
              drawn.add(new Due(sequence, sequence.stay, behind));
            }
          }
          case Embed(Pooling pooling) -> {
            pools.add(
                new Batch.Pool(
                    sequence.stay, row, part.start(), part.count(), sequence.length, pooling));
            if (whole) {
              embedded.add(new Due(sequence, sequence.stay, behind));
            }
          }
        }
        row += count;
      }
      return new Batch(
          number,
          tokens,
          new Rows(runs),
          Collections.unmodifiableList(draws),
          Collections.unmodifiableList(pools),
          releases.stream().mapToLong(Long::longValue).toArray(),
          imports,
          exports);
    }
  }
}
