package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Pooling;
import dev.flotilla.model.Rows;
import dev.flotilla.model.Sequences;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenMask;
import dev.flotilla.text.TokenTrie;
import java.nio.ByteBuffer;
import java.nio.IntBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

/**
 * A slice whose output depends on every earlier token of its own sequence, as its blocks have them,
 * on the route that each went, and on nothing else, like a real one's; and which refuses rows of a
 * prompt that are not in one chunk.
 */
final class ToySlice implements LayerSlice {

  static final ModelConfig CONFIG =
      new ModelConfig(97, 4, 6, 1, 1, 4, 8, 200, 10_000f, 1e-5f, false);

  /** Ends a text that is held to a grammar. */
  static final int END = 96;

  /** Printable ASCII, a word or two of it, and the end. */
  static final TokenTrie VOCABULARY =
      new TokenTrie(
          IntStream.range(0, 97)
              .mapToObj(id -> id < 90 ? Character.toString(' ' + id) : id < END ? "ab" + id : "")
              .map(text -> text.getBytes(StandardCharsets.UTF_8))
              .toList());

  private final LayerRange range;
  private final int chunk;
  private final long delayMs;

  /** What each layer remembers of each position: {@code [block][layer][position]}. */
  private final int[][][] cache;

  final AtomicLong rows = new AtomicLong();

  /** Whether the routes of tokens differ, as they may. */
  boolean routesDiffer = true;

  ToySlice(LayerRange range, int cachePositions, int chunk, long delayMs) {
    this.range = range;
    this.chunk = chunk;
    this.delayMs = delayMs;
    this.cache = new int[cachePositions / 32][6][32];
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
  public int blocks() {
    return cache.length;
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
  public void forward(float[] hidden, Rows step) {
    if (delayMs > 0) {
      try {
        Thread.sleep(delayMs);
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }
    assertThat(hidden).hasSize(4 * step.count());
    int row = 0;
    for (Rows.Run run : step.runs()) {
      if (run.prompt()) {
        assertThat((run.end() - 1) / chunk).as("one chunk").isEqualTo(run.position() / chunk);
      }
      for (int position = run.position(); position < run.end(); position++, row++) {
        int state = (int) hidden[4 * row];
        for (int layer = range.first(); layer <= range.last(); layer++) {
          int kept = (state * 31 + (run.prompt() && routesDiffer ? 7 : 11)) & 0xfffff;
          cache[run.blocks()[position / 32]][layer][position % 32] = kept;
          int sum = layer;
          for (int seen = 0; seen <= position; seen++) {
            sum = sum * 131 + cache[run.blocks()[seen / 32]][layer][seen % 32];
          }
          state = sum & 0xfffff;
        }
        hidden[4 * row] = state;
        rows.incrementAndGet();
      }
    }
  }

  @Override
  public int blockBytesOfLayer() {
    return 4 * 32;
  }

  @Override
  public ByteBuffer readBlock(int block, LayerRange layers) {
    ByteBuffer content = ByteBuffer.allocate(blockBytesOfLayer() * layers.count());
    IntBuffer values = content.asIntBuffer();
    for (int layer = layers.first(); layer <= layers.last(); layer++) {
      values.put(cache[block][layer]);
    }
    return content;
  }

  @Override
  public void writeBlock(int block, LayerRange layers, ByteBuffer content) {
    IntBuffer values = content.asIntBuffer();
    assertThat(values.remaining()).isEqualTo(32 * layers.count());
    for (int layer = layers.first(); layer <= layers.last(); layer++) {
      assertThat(layer).isBetween(range.first(), range.last());
      values.get(cache[block][layer]);
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
  public void close() {}

  /** What one text alone gives. */
  static float[] embedding(int[] tokens, Pooling pooling) {
    ToySlice whole = new ToySlice(new LayerRange(0, 5), 1024, Rows.CHUNK, 0);
    float[] hidden = whole.embed(tokens);
    whole.forward(hidden, new Sequences(whole.blocks()).prompt(1, tokens.length));
    double[] sums = new double[4];
    for (int position = 0; position < tokens.length; position++) {
      boolean counts =
          switch (pooling) {
            case MEAN -> true;
            case FIRST -> position == 0;
            case LAST -> position == tokens.length - 1;
          };
      float[] states = whole.normalised(hidden, new int[] {position});
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

  /** What one sequence alone gives: a prompt, then token after token. */
  static List<Integer> expected(int[] prompt, SamplingParameters sampling, int tokens) {
    return expected(prompt, sampling, tokens, Optional.empty());
  }

  /**
   * The same, held to a grammar.
   *
   * @return with an end token as the last one, if it came to one
   */
  static List<Integer> expected(
      int[] prompt, SamplingParameters sampling, int tokens, Optional<TokenConstraint> held) {
    Optional<TokenConstraint.State> state = held.map(TokenConstraint::start);
    ToySlice whole = new ToySlice(new LayerRange(0, 5), 1024, Rows.CHUNK, 0);
    Sequences sequences = new Sequences(whole.blocks());
    List<Integer> generated = new ArrayList<>();
    float[] hidden = whole.embed(prompt);
    whole.forward(hidden, sequences.prompt(1, prompt.length));
    int row = prompt.length - 1;
    while (true) {
      float[] logits = whole.logits(hidden, new int[] {row});
      int position = prompt.length + generated.size();
      if (held.isPresent()) {
        TokenMask allowed = held.get().allowed(state.orElseThrow());
        for (int i = 0; i < 97; i++) {
          logits[i] = allowed.contains(i) ? logits[i] : Float.NEGATIVE_INFINITY;
        }
      }
      int token = Sampler.sample(logits, 0, 97, sampling, position);
      generated.add(token);
      if (generated.size() == tokens || (held.isPresent() && token == END)) {
        return generated;
      }
      state = state.map(before -> held.get().after(before, token));
      hidden = whole.embed(new int[] {token});
      whole.forward(hidden, sequences.rows(new long[] {1}, new int[] {position}));
      row = 0;
    }
  }
}
