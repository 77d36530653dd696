package dev.flotilla.simulate;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Pooling;
import dev.flotilla.model.Rows;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Sampler;
import dev.flotilla.serve.ServingCore;
import dev.flotilla.tensor.KvBlocks;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenTrie;
import java.nio.ByteBuffer;
import java.nio.IntBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;

/**
 * A model whose next token is a pure function of all tokens before it and of the route that each
 * went, through a cache in blocks as a real one has it: a row that sees another sequence's block, a
 * lost, doubled or altered token, or a replay by another route, and the text is another.
 */
final class ToyModel {

  static final String NAME = "toy";
  static final int WORDS = 61;
  static final int LAYERS = 6;
  static final int CONTEXT = 160;
  static final long LAYER_BYTES = 100_000_000;

  private static final int WIDTH = 2;
  private static final ModelConfig CONFIG =
      new ModelConfig(WORDS, WIDTH, LAYERS, 1, 1, WIDTH, 8, CONTEXT, 10_000f, 1e-5f, false);
  private static final int MASK = 0xfffff;

  /** Each word is a letter or another character of ASCII, from 'A' on. */
  static final TokenTrie VOCABULARY =
      new TokenTrie(
          IntStream.range(0, WORDS).mapToObj(id -> new byte[] {(byte) ('A' + id)}).toList());

  private final World world;
  private final int blocks;
  private final long stepNs;
  private final long loadNs;
  private final double torn;

  /**
   * @param blocks of each slice's cache; few make sequences give way to others
   * @param stepNs of a step in a slice
   * @param loadNs of a slice
   * @param torn how often a slice's file is found damaged, and has to be fetched again
   */
  ToyModel(World world, int blocks, long stepNs, long loadNs, double torn) {
    this.world = world;
    this.blocks = blocks;
    this.stepNs = stepNs;
    this.loadNs = loadNs;
    this.torn = torn;
  }

  /** The model's entry in the registry. */
  static Registry.Write entry() {
    return entry(NAME);
  }

  /** The entry of one like it, under another name. */
  static Registry.Write entry(String name) {
    Map<String, Object> record = new HashMap<>();
    record.put("name", name);
    record.put("digest", "00");
    record.put("manifestDigest", "00");
    record.put("bytes", LAYERS * LAYER_BYTES);
    record.put("createdAtMs", 0);
    record.put("config", CONFIG);
    record.put("layerBytes", LAYER_BYTES);
    record.put("embeddingBytes", 1_000_000);
    record.put("headBytes", 1_000_000);
    record.put("holders", List.of());
    return new Registry.Write(new Registry.Key("model", name), Optional.of(Json.write(record)));
  }

  /** What it takes of a machine's memory, with its cache. */
  static long bytes() {
    return LAYERS * (LAYER_BYTES + 10_000_000) + 2_000_000;
  }

  /** Where a process has its layers from. */
  ServingCore.Layers on(SimulatedNode process) {
    return (layers, positions) -> {
      sleep(process, process.diskNs(loadNs));
      if (world.chance(torn)) {
        throw new FlotillaException(
            Code.BAD_FILE, "layers " + layers + " are damaged on the disk", "They come again.");
      }
      return new Slice(layers, blocks, () -> sleep(process, world.between(stepNs / 2, 2 * stepNs)));
    };
  }

  private static void sleep(SimulatedNode process, long durationNs) {
    try {
      process.threads().sleep(durationNs);
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  /** What a request gives on one machine that nothing happens to. */
  static List<Integer> text(GenerationRequest request) {
    int[] prompt = request.prompt();
    Optional<TokenConstraint> held =
        request
            .grammar()
            .map(gbnf -> new TokenConstraint(Grammar.parse(gbnf), VOCABULARY, request.endTokens()));
    Optional<TokenConstraint.State> state = held.map(TokenConstraint::start);
    Slice whole = whole();
    int[] blocks = IntStream.range(0, whole.blocks()).toArray();
    List<Integer> text = new ArrayList<>();
    float[] hidden = whole.embed(prompt);
    whole.forward(hidden, new Rows(chunks(prompt.length)));
    int row = prompt.length - 1;
    while (text.size() < request.maxTokens() && prompt.length + text.size() < CONTEXT) {
      int position = prompt.length + text.size();
      float[] logits = whole.logits(hidden, new int[] {row});
      if (held.isPresent()) {
        Sampler.restrict(logits, 0, WORDS, held.get().allowed(state.orElseThrow()));
      }
      int token = Sampler.sample(logits, 0, WORDS, request.sampling(), position);
      if (IntStream.of(request.endTokens()).anyMatch(end -> end == token)) {
        break;
      }
      state = state.map(before -> held.get().after(before, token));
      text.add(token);
      hidden = whole.embed(new int[] {token});
      whole.forward(hidden, new Rows(List.of(new Rows.Run(blocks, position, 1, false))));
      row = 0;
    }
    return text;
  }

  /** What a text's embedding is. */
  static float[] vector(int[] text, Pooling pooling) {
    Slice whole = whole();
    float[] hidden = whole.embed(text);
    whole.forward(hidden, new Rows(chunks(text.length)));
    double[] sums = new double[WIDTH];
    for (int position = 0; position < text.length; position++) {
      if (pooling.takes(position, text.length)) {
        float[] state = whole.normalised(hidden, new int[] {position});
        for (int i = 0; i < WIDTH; i++) {
          sums[i] += state[i];
        }
      }
    }
    double length = Math.sqrt(Arrays.stream(sums).map(s -> s * s).sum());
    float[] vector = new float[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
      vector[i] = (float) (sums[i] / length);
    }
    return vector;
  }

  private static Slice whole() {
    return new Slice(new LayerRange(0, LAYERS - 1), CONTEXT / KvBlocks.POSITIONS + 1, () -> {});
  }

  private static List<Rows.Run> chunks(int length) {
    int[] blocks = IntStream.rangeClosed(0, CONTEXT / KvBlocks.POSITIONS).toArray();
    List<Rows.Run> runs = new ArrayList<>();
    for (int start = 0; start < length; start += Rows.CHUNK) {
      runs.add(new Rows.Run(blocks, start, Math.min(Rows.CHUNK, length - start), true));
    }
    return runs;
  }

  /** Some layers of it. */
  private static final class Slice implements LayerSlice {
    private final LayerRange range;
    private final Runnable step;

    /** What each layer keeps of each position: {@code [block][layer][position]}. */
    private final int[][][] cache;

    Slice(LayerRange range, int blocks, Runnable step) {
      this.range = range;
      this.step = step;
      this.cache = new int[blocks][LAYERS][KvBlocks.POSITIONS];
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
      return range.count() * LAYER_BYTES;
    }

    @Override
    public int blocks() {
      return cache.length;
    }

    @Override
    public float[] embed(int[] tokens) {
      float[] hidden = new float[tokens.length * WIDTH];
      for (int i = 0; i < tokens.length; i++) {
        hidden[WIDTH * i] = tokens[i] + 1;
      }
      return hidden;
    }

    @Override
    public void forward(float[] hidden, Rows rows) {
      step.run();
      int row = 0;
      for (Rows.Run run : rows.runs()) {
        if (run.prompt() && (run.end() - 1) / Rows.CHUNK != run.position() / Rows.CHUNK) {
          throw new Violation("a prompt's rows go beyond their chunk: " + run);
        }
        for (int position = run.position(); position < run.end(); position++, row++) {
          int value = (int) hidden[WIDTH * row];
          for (int layer = range.first(); layer <= range.last(); layer++) {
            int kept = (value * 31 + (run.prompt() ? 7 : 11)) & MASK;
            put(run, layer, position, kept);
            int sum = layer;
            for (int seen = 0; seen <= position; seen++) {
              sum = sum * 131 + at(run, layer, seen);
            }
            value = (sum ^ (sum >>> 15)) & MASK;
          }
          hidden[WIDTH * row] = value;
        }
      }
    }

    private void put(Rows.Run run, int layer, int position, int value) {
      cache[run.blocks()[position / KvBlocks.POSITIONS]][layer][position % KvBlocks.POSITIONS] =
          value;
    }

    private int at(Rows.Run run, int layer, int position) {
      return cache[run.blocks()[position / KvBlocks.POSITIONS]][layer][
          position % KvBlocks.POSITIONS];
    }

    @Override
    public int blockBytesOfLayer() {
      return Integer.BYTES * KvBlocks.POSITIONS;
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
      for (int layer = layers.first(); layer <= layers.last(); layer++) {
        values.get(cache[block][layer]);
      }
    }

    @Override
    public float[] logits(float[] hidden, int[] rows) {
      float[] logits = new float[rows.length * WORDS];
      for (int i = 0; i < rows.length; i++) {
        int value = (int) hidden[WIDTH * rows[i]];
        for (int token = 0; token < WORDS; token++) {
          value = (value * 1103 + 12345) & MASK;
          logits[i * WORDS + token] = value % 1000 / 250f;
        }
      }
      return logits;
    }

    @Override
    public float[] normalised(float[] hidden, int[] rows) {
      float[] states = new float[rows.length * WIDTH];
      for (int i = 0; i < rows.length; i++) {
        states[WIDTH * i] = hidden[WIDTH * rows[i]];
        states[WIDTH * i + 1] = 1;
      }
      return states;
    }

    @Override
    public void close() {
      // Its memory goes with it.
    }
  }
}
