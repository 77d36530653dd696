package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerSlice;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * A loaded slice at work: forgets, runs, and at the end of the chain draws and pools. Driven by one
 * thread.
 */
final class Stage implements AutoCloseable {

  private final LayerSlice slice;
  private final boolean last;
  private final Set<Long> cached = new HashSet<>();
  private final Map<Long, PooledStates> pooled = new HashMap<>();
  private volatile int freePositions;

  Stage(LayerSlice slice) {
    this.slice = slice;
    this.freePositions = slice.freePositions();
    this.last = slice.range().last() == slice.config().layers() - 1;
  }

  LayerSlice slice() {
    return slice;
  }

  boolean last() {
    return last;
  }

  /** Free positions of the cache after the last step; on any thread. */
  int freePositions() {
    return freePositions;
  }

  /** Empties the cache: a new chain begins. */
  void reset() {
    cached.forEach(slice::release);
    cached.clear();
    pooled.clear();
    freePositions = slice.freePositions();
  }

  float[] embed(int[] tokens) {
    return tokens.length == 0 ? new float[0] : slice.embed(tokens);
  }

  /** Runs a step's rows; {@code hidden}, {@code [rows, width]}, is overwritten. */
  void forward(float[] hidden, long[] sequences, int[] positions, long[] releases) {
    for (long sequence : releases) {
      slice.release(sequence);
      cached.remove(sequence);
      pooled.remove(sequence);
    }
    if (sequences.length > 0) {
      for (long sequence : sequences) {
        cached.add(sequence);
      }
      slice.forward(hidden, sequences, positions);
    }
    freePositions = slice.freePositions();
  }

  /** Draws the tokens asked for, in order; -1 where the output is not a number. */
  int[] draw(float[] hidden, List<Batch.Draw> draws) {
    if (draws.isEmpty()) {
      return new int[0];
    }
    int[] rows = draws.stream().mapToInt(Batch.Draw::row).toArray();
    float[] logits = slice.logits(hidden, rows);
    int[] tokens = new int[rows.length];
    for (int i = 0; i < rows.length; i++) {
      Batch.Draw draw = draws.get(i);
      try {
        tokens[i] =
            Sampler.sample(
                logits, i, slice.config().vocabularySize(), draw.sampling(), draw.position());
      } catch (FlotillaException e) {
        tokens[i] = -1;
      }
    }
    return tokens;
  }

  /**
   * Adds a step's rows to the embeddings they belong to.
   *
   * @return the embeddings that are now complete, in the order of the pools
   */
  List<float[]> pool(float[] hidden, long[] sequences, int[] positions, List<Batch.Pool> pools) {
    List<float[]> complete = new ArrayList<>();
    for (Batch.Pool pool : pools) {
      long sequence = sequences[pool.row()];
      PooledStates states =
          pooled.computeIfAbsent(sequence, s -> new PooledStates(slice.config().width()));
      int[] rows =
          IntStream.range(pool.row(), pool.row() + pool.rows())
              .filter(row -> pool.pooling().takes(positions[row], pool.length()))
              .toArray();
      if (rows.length > 0) {
        states.add(slice.normalised(hidden, rows));
      }
      if (positions[pool.row()] + pool.rows() == pool.length()) {
        pooled.remove(sequence);
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
