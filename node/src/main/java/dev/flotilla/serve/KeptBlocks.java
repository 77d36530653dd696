package dev.flotilla.serve;

import dev.flotilla.model.LayerRange;
import dev.flotilla.serve.BlockCopies.Offer;
import dev.flotilla.serve.BlockCopies.Verdict;
import dev.flotilla.serve.BlockLedger.Known;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.IntSupplier;
import org.jspecify.annotations.Nullable;

/**
 * Blocks of other replicas' requests, kept in this replica's KV cache as if they had been computed
 * here: a request that goes on here finds them as it finds any beginning of a text. {@link
 * BlockCopies} is the other side.
 *
 * <p>A block gets its place when it is accepted, its content by steps, whose stages each write
 * their layers' part before they run any rows; with the last part it is known. It is taken up only
 * where that costs none of this replica's own requests anything, and it is lost when one of them
 * needs its memory.
 *
 * <p>Pure: no clock, thread or network. The head's thread drives it.
 */
final class KeptBlocks implements BlockLedger.Watcher {

  /** Room is offered again when so much of the cache can be had: one in so many blocks. */
  private static final int ROOM_SHARE = 8;

  /** The way back to the replica that blocks come from. */
  interface Source {

    void answer(long text, Verdict verdict);

    /** There is room again. */
    void room();
  }

  /** A block that was accepted. */
  private static final class Copy {
    final BlockLedger.Key key;
    int block;
    int layersLeft;

    /** What it is called here; {@link BlockLedger#ROOT} until all of it is here. */
    long text = BlockLedger.ROOT;

    Copy(BlockLedger.Key key, int block, int layersLeft) {
      this.key = key;
      this.block = block;
      this.layersLeft = layersLeft;
    }
  }

  private record Due(Copies copies, long text, Copy copy, BlockPart part) {}

  private final BlockLedger ledger;
  private final int layers;
  private final IntSupplier room;
  private final List<Copies> all = new ArrayList<>();
  private final Deque<Due> parts = new ArrayDeque<>();

  /**
   * @param layers of the model
   * @param room how many more blocks may be taken up without a loss to the requests that run here
   */
  KeptBlocks(BlockLedger ledger, int layers, IntSupplier room) {
    this.ledger = ledger;
    this.layers = layers;
    this.room = room;
    ledger.watch(this);
  }

  /** Another replica begins to copy. */
  Copies open(Source source) {
    Copies copies = new Copies(source);
    all.add(copies);
    return copies;
  }

  /** Forgets everything: the caches are empty. */
  void clear() {
    all.clear();
    parts.clear();
  }

  /** Whether a step has something to write. */
  boolean importing() {
    return !parts.isEmpty();
  }

  /**
   * What the next step is to write before it runs its rows.
   *
   * @param bytesMost not more than so many, but one part at least
   * @return parts by their block
   */
  List<BlockPart> imports(long bytesMost) {
    List<BlockPart> imports = new ArrayList<>();
    long bytes = 0;
    for (Due due = parts.peekFirst(); due != null; due = parts.peekFirst()) {
      bytes += due.part.content().remaining();
      if (bytes > bytesMost && !imports.isEmpty()) {
        break;
      }
      parts.removeFirst();
      imports.add(due.part.as(due.copy.block));
      due.copy.layersLeft -= due.part.layers().count();
      if (due.copy.layersLeft == 0) {
        due.copies.complete(due.text, due.copy);
      }
    }
    return imports;
  }

  /** Says so where there was no room and there is some now. */
  void offerRoom() {
    if (all.stream().anyMatch(copies -> copies.full)
        && room.getAsInt() > ledger.blocks() / ROOM_SHARE) {
      for (Copies copies : all) {
        if (copies.full) {
          copies.full = false;
          copies.source.room();
        }
      }
    }
  }

  @Override
  public void lost(int block) {
    all.forEach(copies -> copies.lost(block));
  }

  /** What one other replica has here. */
  final class Copies {
    private final Source source;

    /** By what the other replica calls each, in the order in which they came. */
    private final LinkedHashMap<Long, Copy> copies = new LinkedHashMap<>();

    private final Map<Integer, Long> byBlock = new HashMap<>();
    private boolean full;

    Copies(Source source) {
      this.source = source;
    }

    /** A block may be had. */
    void offered(Offer offer) {
      released(offer.text());
      long parent = offer.key().parent();
      Copy before = copies.get(parent);
      if (full) {
        source.answer(offer.text(), Verdict.FULL);
      } else if (before == null && parent != BlockLedger.ROOT) {
        source.answer(offer.text(), Verdict.UNKNOWN);
      } else {
        Optional<Known> known =
            before != null && before.text == BlockLedger.ROOT
                ? Optional.empty() // it is on its way here
                : ledger.known(here(offer.key(), before));
        if (known.isPresent()) {
          Copy copy = new Copy(offer.key(), known.get().block(), 0);
          copies.put(offer.text(), copy);
          ledger.keep(copy.block);
          is(offer.text(), copy, known.get());
        } else if (room.getAsInt() > 0) {
          copies.put(offer.text(), new Copy(offer.key(), ledger.takeSpare(), layers));
          source.answer(offer.text(), Verdict.WANTED);
        } else {
          full = true;
          source.answer(offer.text(), Verdict.FULL);
        }
      }
    }

    private BlockLedger.Key here(BlockLedger.Key key, @Nullable Copy before) {
      return new BlockLedger.Key(
          before == null ? BlockLedger.ROOT : before.text, key.prompt(), key.tokens());
    }

    private void is(long text, Copy copy, Known known) {
      copy.text = known.text();
      copy.block = known.block();
      byBlock.put(copy.block, text);
      source.answer(text, Verdict.HERE);
    }

    /** A part of a block that was wanted; perhaps it is wanted no more. */
    void part(BlockPart part) {
      Copy copy = copies.get(part.id());
      if (copy != null && copy.text == BlockLedger.ROOT) {
        LayerRange range = part.layers();
        assert range.last() < layers : part;
        parts.add(new Due(this, part.id(), copy, part));
      }
    }

    private void complete(long text, Copy copy) {
      long parent = copy.key.parent();
      Copy before = copies.get(parent);
      boolean reachable =
          parent == BlockLedger.ROOT || (before != null && before.text != BlockLedger.ROOT);
      if (reachable) {
        is(text, copy, ledger.adopt(here(copy.key, before), copy.block));
      } else {
        released(text);
        source.answer(text, Verdict.UNKNOWN);
      }
    }

    /** No request has the text any more: what is here of it stays like any that may come again. */
    void released(long text) {
      Copy copy = copies.remove(text);
      if (copy == null) {
        return;
      }
      if (copy.text == BlockLedger.ROOT) {
        parts.removeIf(due -> due.copy == copy);
        ledger.release(new int[] {copy.block}, 1);
      } else {
        byBlock.remove(copy.block);
        ledger.unkeep(copy.block);
      }
    }

    private void lost(int block) {
      Long text = byBlock.remove(block);
      if (text != null) {
        copies.remove(text);
        full = true;
        source.answer(text, Verdict.GONE);
      }
    }

    /** The other replica copies no more. */
    void close() {
      if (all.remove(this)) {
        // The ends of texts first, for they are to go before their beginnings.
        List.copyOf(copies.sequencedKeySet().reversed()).forEach(this::released);
      }
    }
  }
}
