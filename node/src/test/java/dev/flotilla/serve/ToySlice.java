package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Pooling;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A slice whose output depends on every earlier token of its own sequence and on nothing else, like
 * a real one's, and which refuses rows that do not continue their sequence.
 */
final class ToySlice implements LayerSlice {

  static final ModelConfig CONFIG =
      new ModelConfig(97, 4, 6, 1, 1, 4, 8, 200, 10_000f, 1e-5f, false);

  /** What each layer remembers of a sequence. */
  private static final class Cached {
    final int[] layers;
    int length;

    Cached(int[] layers) {
      this.layers = layers;
    }
  }

  private final LayerRange range;
  private final int cachePositions;
  private final long delayMs;
  private final Map<Long, Cached> cache = new HashMap<>();
  private final AtomicLong used = new AtomicLong();
  final AtomicLong rows = new AtomicLong();

  ToySlice(LayerRange range, int cachePositions, long delayMs) {
    this.range = range;
    this.cachePositions = cachePositions;
    this.delayMs = delayMs;
  }

  @Override
  public ModelConfig config() {
    return CONFIG;
  }

  @Override
  public LayerRange range() {
    return range;
  }

  @Override
  public long weightBytes() {
    return 0;
  }

  @Override
  public int cachePositions() {
    return cachePositions;
  }

  @Override
  public int freePositions() {
    return cachePositions - (int) used.get();
  }

  @Override
  public float[] embed(int[] tokens) {
    float[] hidden = new float[tokens.length * 4];
    for (int i = 0; i < tokens.length; i++) {
      hidden[4 * i] = tokens[i] + 1;
    }
    return hidden;
  }

  @Override
  public void forward(float[] hidden, long[] sequences, int[] positions) {
    if (sequences.length > freePositions()) {
      throw new FlotillaException(FlotillaException.Code.BUSY, "the cache is full", "");
    }
    if (delayMs > 0) {
      try {
        Thread.sleep(delayMs);
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }
    for (int i = 0; i < sequences.length; i++) {
      Cached cached = cache.computeIfAbsent(sequences[i], s -> new Cached(new int[6]));
      assertThat(positions[i]).as("continues its sequence").isEqualTo(cached.length++);
      int state = (int) hidden[4 * i];
      for (int layer = range.first(); layer <= range.last(); layer++) {
        cached.layers[layer] = (cached.layers[layer] * 31 + state + 7) & 0xfffff;
        state = (cached.layers[layer] * 131 + layer) & 0xfffff;
      }
      hidden[4 * i] = state;
      used.incrementAndGet();
      rows.incrementAndGet();
    }
  }

  @Override
  public float[] logits(float[] hidden, int[] rows) {
    float[] logits = new float[rows.length * 97];
    for (int i = 0; i < rows.length; i++) {
      int state = (int) hidden[4 * rows[i]];
      for (int token = 0; token < 97; token++) {
        state = (state * 1103 + 12345) & 0xfffff;
        logits[i * 97 + token] = state % 1000 / 250f;
      }
    }
    return logits;
  }

  @Override
  public float[] normalised(float[] hidden, int[] rows) {
    float[] states = new float[rows.length * 4];
    for (int i = 0; i < rows.length; i++) {
      int state = (int) hidden[4 * rows[i]];
      states[4 * i] = state % 1009 / 7f - 50;
      states[4 * i + 1] = state % 101 / 3f;
      states[4 * i + 2] = 1;
    }
    return states;
  }

  @Override
  public void release(long sequence) {
    Cached cached = cache.remove(sequence);
    if (cached != null) {
      used.addAndGet(-cached.length);
    }
  }

  @Override
  public void close() {
    cache.clear();
  }

  /** What one text alone, one row at a time, gives. */
  static float[] embedding(int[] tokens, Pooling pooling) {
    ToySlice whole = new ToySlice(new LayerRange(0, 5), 1000, 0);
    double[] sums = new double[4];
    for (int position = 0; position < tokens.length; position++) {
      float[] hidden = whole.embed(new int[] {tokens[position]});
      whole.forward(hidden, new long[] {1}, new int[] {position});
      boolean counts =
          switch (pooling) {
            case MEAN -> true;
            case FIRST -> position == 0;
            case LAST -> position == tokens.length - 1;
          };
      float[] states = whole.normalised(hidden, new int[] {0});
      for (int i = 0; i < 4 && counts; i++) {
        sums[i] += states[i];
      }
    }
    double length = Math.sqrt(Arrays.stream(sums).map(s -> s * s).sum());
    float[] vector = new float[4];
    for (int i = 0; i < 4; i++) {
      vector[i] = (float) (sums[i] / length);
    }
    return vector;
  }

  /** What one sequence alone, one row at a time, gives. */
  static List<Integer> expected(int[] prompt, SamplingParameters sampling, int tokens) {
    ToySlice whole = new ToySlice(new LayerRange(0, 5), 1000, 0);
    List<Integer> all = new ArrayList<>();
    for (int token : prompt) {
      all.add(token);
    }
    List<Integer> generated = new ArrayList<>();
    for (int position = 0; generated.size() < tokens; position++) {
      float[] hidden = whole.embed(new int[] {all.get(position)});
      whole.forward(hidden, new long[] {1}, new int[] {position});
      if (position == all.size() - 1) {
        float[] logits = whole.logits(hidden, new int[] {0});
        int token = Sampler.sample(logits, 0, 97, sampling, all.size());
        all.add(token);
        generated.add(token);
      }
    }
    return generated;
  }
}
