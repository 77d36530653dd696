package dev.flotilla.serve;

import dev.flotilla.serve.BlockLedger.Known;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/**
 * Which blocks of a replica's KV cache are to be copied to another replica, and how far that is:
 * all full blocks that running requests hold, so that these can go on there when this replica is
 * lost. {@link KeptBlocks} is the other side.
 *
 * <p>A block is <em>offered</em> first, by its tokens and by the block before it, in the order in
 * which texts grew. The other side answers that it has that already, that it wants it, or that it
 * has no room; then nothing is offered until it says that it has some. What is wanted is
 * <em>exported</em> by a step, behind which every stage reads its layers' part of the block: so no
 * block changes while it is read. What no request holds any more is <em>released</em>, and so is
 * what the other side keeps of it.
 *
 * <p>Pure: no clock, thread or network. The head's thread drives it.
 */
final class BlockCopies implements BlockLedger.Watcher {

  /** A block that may be had. */
  record Offer(long text, BlockLedger.Key key) {}

  /** What the other side says of a text. */
  enum Verdict {
    /** Its content is to be sent. */
    WANTED,
    /** It is there, and so is all that is before it. */
    HERE,
    /** There is no room for it; nor for others, until there is. */
    FULL,
    /** What is before it is not there. */
    UNKNOWN,
    /** It was there; a request of that replica has its memory now. There is no room for others. */
    GONE
  }

  private enum State {
    DUE,
    OFFERED,
    WANTED,
    MOVING,
    HERE,
    ORPHAN;

    boolean underway() {
      return this == OFFERED || this == WANTED || this == MOVING;
    }
  }

  private static final class Block {
    final Known known;
    final BlockLedger.Key key;
    State state = State.DUE;
    long export;

    Block(Known known, BlockLedger.Key key) {
      this.known = known;
      this.key = key;
    }
  }

  private final BlockLedger ledger;
  private final Map<Long, Block> blocks = new HashMap<>();

  /** Texts to offer: a text's name is greater than those of all before it. */
  private final TreeSet<Long> due = new TreeSet<>();

  private final Deque<Block> wanted = new ArrayDeque<>();
  private final Map<Long, Block> moving = new HashMap<>();
  private final Set<Long> orphans = new HashSet<>();
  private final List<Long> released = new ArrayList<>();
  private String where = "";
  private int window;
  private boolean full;
  private int underway;
  private int here;
  private long lastExport;

  BlockCopies(BlockLedger ledger) {
    this.ledger = ledger;
    ledger.watch(this);
  }

  /**
   * There is somewhere to copy to, and nothing is there yet.
   *
   * @param replica where
   * @param most so many blocks may be on their way at once
   */
  void open(String replica, int most) {
    close();
    where = replica;
    window = most;
    ledger.eachHeld(this::held);
  }

  /** There is nowhere to copy to, or all is lost here. */
  void close() {
    where = "";
    full = false;
    underway = 0;
    here = 0;
    blocks.clear();
    due.clear();
    wanted.clear();
    moving.clear();
    orphans.clear();
    released.clear();
  }

  /** The replica that has the copies; empty for none. */
  String where() {
    return where;
  }

  /** Blocks of running requests that are not copied yet, or cannot be. */
  int lag() {
    return blocks.size() - here;
  }

  /** Whether it is copied, with all that is before it. */
  boolean has(long text) {
    Block block = blocks.get(text);
    return block != null && block.state == State.HERE;
  }

  @Override
  public void held(Known known, BlockLedger.Key key) {
    if (!where.isEmpty()) {
      blocks.put(known.text(), new Block(known, key));
      due.add(known.text());
    }
  }

  @Override
  public void left(Known known) {
    Block block = blocks.get(known.text());
    if (block != null) {
      if (block.state.underway() || block.state == State.HERE) {
        released.add(known.text());
      }
      set(block, State.ORPHAN);
      orphans.remove(known.text());
      blocks.remove(known.text());
    }
  }

  private void set(Block block, State state) {
    long text = block.known.text();
    switch (block.state) {
      case DUE -> due.remove(text);
      case OFFERED -> {}
      case WANTED -> wanted.remove(block);
      case MOVING -> moving.remove(block.export);
      case HERE -> here--;
      case ORPHAN -> orphans.remove(text);
    }
    underway += (state.underway() ? 1 : 0) - (block.state.underway() ? 1 : 0);
    block.state = state;
    switch (state) {
      case DUE -> due.add(text);
      case OFFERED -> {}
      case WANTED -> wanted.add(block);
      case MOVING -> moving.put(block.export, block);
      case HERE -> here++;
      case ORPHAN -> orphans.add(text);
    }
  }

  /** What to offer now. */
  List<Offer> offers() {
    List<Offer> offers = new ArrayList<>();
    while (!full && !due.isEmpty() && underway < window) {
      Block block = block(due.getFirst());
      set(block, State.OFFERED);
      offers.add(new Offer(block.known.text(), block.key));
    }
    return offers;
  }

  /** Texts that were offered and that no request has any more, since the last call. */
  List<Long> releases() {
    List<Long> texts = List.copyOf(released);
    released.clear();
    return texts;
  }

  private Block block(long text) {
    return Objects.requireNonNull(blocks.get(text));
  }

  /** The other side has spoken; perhaps of what no request has any more. */
  void answered(long text, Verdict verdict) {
    full |= verdict == Verdict.FULL || verdict == Verdict.GONE;
    Block block = blocks.get(text);
    if (block == null) {
      return;
    }
    switch (verdict) {
      case WANTED -> {
        if (block.state == State.OFFERED || block.state == State.HERE) {
          set(block, State.WANTED);
        }
      }
      case HERE -> {
        if (block.state.underway()) {
          set(block, State.HERE);
          for (long orphan : List.copyOf(orphans)) {
            if (block(orphan).key.parent() == text) {
              set(block(orphan), State.DUE);
            }
          }
        }
      }
      case FULL -> {
        if (block.state == State.OFFERED) {
          set(block, State.DUE);
        }
      }
      case UNKNOWN -> {
        if (block.state.underway()) {
          set(block, State.ORPHAN);
        }
      }
      case GONE -> gone(block);
    }
  }

  /** What is behind a block that is gone cannot be found there any more. */
  private void gone(Block first) {
    if (first.state != State.HERE) {
      return;
    }
    set(first, State.DUE);
    Set<Long> gone = new HashSet<>(Set.of(first.known.text()));
    for (long text : new TreeSet<>(blocks.keySet()).tailSet(first.known.text(), false)) {
      Block block = block(text);
      if (gone.contains(block.key.parent()) && block.state == State.HERE) {
        set(block, State.DUE);
        gone.add(text);
      }
    }
  }

  /** The other side has room again. */
  void room() {
    full = false;
  }

  /** Whether there is something to export. */
  boolean exporting() {
    return !wanted.isEmpty();
  }

  /** What the next step is to export. */
  List<Batch.Export> exports(int most) {
    List<Batch.Export> exports = new ArrayList<>();
    while (!wanted.isEmpty() && exports.size() < most) {
      Block block = wanted.getFirst();
      block.export = ++lastExport;
      set(block, State.MOVING);
      exports.add(new Batch.Export(block.known.block(), block.export));
    }
    return exports;
  }

  /** The text whose block was exported; empty if nobody wants it any more. */
  Optional<Long> exported(long export) {
    return Optional.ofNullable(moving.get(export)).map(block -> block.known.text());
  }
}
