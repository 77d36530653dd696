package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.Rows;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * A loaded slice at work: runs, and at the end of the chain draws and pools. Driven by one thread.
 */
final class Stage implements AutoCloseable {

  private static final int PART_BYTES = 1 << 20;

  private final LayerSlice slice;
  private final Runnable stepped;
  private final boolean last;
  private final Map<Long, PooledStates> pooled = new HashMap<>();

  /**
   * @param stepped hears of every step before it runs
   */
  Stage(LayerSlice slice, Runnable stepped) {
    this.slice = slice;
    this.stepped = stepped;
    this.last = slice.range().last() == slice.config().layers() - 1;
  }

  LayerSlice slice() {
    return slice;
  }

  boolean last() {
    return last;
  }

  /** A new chain begins: nothing of an earlier one is wanted any more. */
  void reset() {
    pooled.clear();
  }

  float[] embed(int[] tokens) {
    return tokens.length == 0 ? new float[0] : slice.embed(tokens);
  }

  /** Runs a step's rows; {@code hidden}, {@code [rows, width]}, is overwritten. */
  void forward(float[] hidden, Rows rows) {
    if (rows.count() > 0) {
      stepped.run();
      slice.forward(hidden, rows);
    }
  }

  /** Writes what of other caches' blocks is of this stage's layers. */
  void write(List<BlockPart> parts) {
    for (BlockPart part : parts) {
      part.within(slice.range())
          .ifPresent(p -> slice.writeBlock((int) p.id(), p.layers(), p.content()));
    }
  }

  /** What of other caches' blocks is of the layers behind this stage's. */
  List<BlockPart> behind(List<BlockPart> parts) {
    if (last) {
      return List.of();
    }
    LayerRange behind = new LayerRange(slice.range().last() + 1, slice.config().layers() - 1);
    return parts.stream().flatMap(part -> part.within(behind).stream()).toList();
  }

  /** Reads blocks: this stage's layers, in pieces that are no burden to whoever waits behind. */
  List<BlockPart> read(List<Batch.Export> exports) {
    LayerRange range = slice.range();
    int most = Math.max(1, PART_BYTES / Math.max(1, slice.blockBytesOfLayer()));
    List<BlockPart> parts = new ArrayList<>();
    for (Batch.Export export : exports) {
      for (int first = range.first(); first <= range.last(); first += most) {
        LayerRange layers = new LayerRange(first, Math.min(range.last(), first + most - 1));
        parts.add(new BlockPart(export.id(), layers, slice.readBlock(export.block(), layers)));
      }
    }
    return parts;
  }

  /** Draws the tokens asked for, in order; -1 where the output is not a number. */
  int[] draw(float[] hidden, List<Batch.Draw> draws) {
    if (draws.isEmpty()) {
      return new int[0];
    }
    int[] rows = draws.stream().mapToInt(Batch.Draw::row).toArray();
    float[] logits = slice.logits(hidden, rows);
    int vocabulary = slice.config().vocabularySize();
    int[] tokens = new int[rows.length];
    for (int i = 0; i < rows.length; i++) {
      Batch.Draw draw = draws.get(i);
      int row = i;
      draw.allowed().ifPresent(allowed -> Sampler.restrict(logits, row, vocabulary, allowed));
      try {
        tokens[i] = Sampler.sample(logits, i, vocabulary, draw.sampling(), draw.position());
      } catch (FlotillaException e) {
        tokens[i] = -1;
      }
    }
    return tokens;
  }

  /**
   * Adds a step's rows to the embeddings they belong to.
   *
   * @param releases texts that nobody wants any more
   * @return the embeddings that are now complete, in the order of the pools
   */
  List<float[]> pool(float[] hidden, List<Batch.Pool> pools, long[] releases) {
    for (long release : releases) {
      pooled.remove(release);
    }
    List<float[]> complete = new ArrayList<>();
    for (Batch.Pool pool : pools) {
      PooledStates states =
          pooled.computeIfAbsent(pool.sequence(), s -> new PooledStates(slice.config().width()));
      int[] rows =
          IntStream.range(0, pool.rows())
              .filter(i -> pool.pooling().takes(pool.position() + i, pool.length()))
              .map(i -> pool.row() + i)
              .toArray();
      if (rows.length > 0) {
        states.add(slice.normalised(hidden, rows));
      }
      if (pool.position() + pool.rows() == pool.length()) {
        pooled.remove(pool.sequence());
        complete.add(states.direction());
      }
    }
    return complete;
  }

  @Override
  public void close() {
    slice.close();
  }
}
