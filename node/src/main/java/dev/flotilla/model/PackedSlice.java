package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.model.TensorShare.Span;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.Gain;
import dev.flotilla.tensor.Matrix;
import dev.flotilla.tensor.SimdOps;
import dev.flotilla.tensor.Weights;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntUnaryOperator;
import org.jspecify.annotations.Nullable;

/** A slice on this machine's vector unit, its weights packed outside the heap. */
public final class PackedSlice implements LayerSlice {

  private final ModelConfig config;
  private final LayerRange range;
  private final Arena arena;
  private final SimdOps ops;
  private final KvCache cache;
  private final Decoder<Matrix, Weights> decoder;
  private final @Nullable Weights embedding;
  private final @Nullable Weights finalNorm;
  private final @Nullable Weights output;
  private final long weightBytes;

  /**
   * Loads and packs the weights of some layers, the embedding with layer 0, the output with the
   * last. The source is no longer needed afterwards.
   *
   * @param threads how many threads compute, the caller's among them
   * @param kv how keys and values are kept
   * @param cachePositions how many positions the KV cache may hold over all sequences; rounded up
   *     to a multiple of 32. Memory is taken as it fills
   * @throws FlotillaException {@code BAD_FILE} if the model is not one that runs here, {@code
   *     NOT_FOUND} if a tensor is missing from the source, {@code BUSY} if memory does not suffice;
   *     nothing stays allocated then
   */
  @SuppressWarnings("MustBeClosedChecker") // the slice that is returned owns the arena
  public static PackedSlice load(
      TensorSource source, LayerRange range, int threads, KvFormat kv, int cachePositions) {
    TensorShare whole = TensorShare.whole(source.header().modelConfig());
    return load(source, range, threads, kv, cachePositions, whole, AllReduce.ALONE);
  }

  /**
   * As above, one machine's share of the layers: with other ranks' slices, it makes the same steps
   * at the same time.
   *
   * @param share what of every layer is here; only rank 0 embeds and computes logits
   * @param allReduce adds up the ranks' parts of a layer, twice in each
   * @throws FlotillaException as above, and {@code INVALID} if the share cuts through blocks of the
   *     weights' type
   */
  @SuppressWarnings("MustBeClosedChecker") // the slice that is returned owns the arena
  public static PackedSlice load(
      TensorSource source,
      LayerRange range,
      int threads,
      KvFormat kv,
      int cachePositions,
      TensorShare share,
      AllReduce allReduce) {
    ModelConfig config = source.header().modelConfig();
    Loader loader = null;
    try {
      loader = new Loader(source, config, share, new SimdOps(threads), Arena.ofShared());
      return new PackedSlice(config, range, kv, cachePositions, loader, allReduce);
    } catch (OutOfMemoryError e) {
      giveBack(loader);
      throw new FlotillaException(
          Code.BUSY,
          "not enough memory for layers " + range.first() + " to " + range.last(),
          "Free memory, or spread the model over more nodes",
          e);
    } catch (RuntimeException e) {
      giveBack(loader);
      throw e;
    }
  }

  private static void giveBack(@Nullable Loader loader) {
    if (loader != null) {
      loader.ops.close();
      loader.arena.close();
    }
  }

  private PackedSlice(
      ModelConfig config,
      LayerRange range,
      KvFormat kv,
      int cachePositions,
      Loader loader,
      AllReduce allReduce) {
    this.config = config;
    this.range = range;
    this.arena = loader.arena;
    boolean leads = loader.share.rank() == 0;
    boolean first = leads && range.first() == 0;
    boolean last = leads && range.last() == config.layers() - 1;
    List<String> needed = ModelTensors.names(config, range);
    Weights table = leads && needed.contains(ModelTensors.EMBEDDING) ? loader.embedding() : null;
    List<Map<String, Weights>> blocks = new ArrayList<>();
    for (int layer = range.first(); layer <= range.last(); layer++) {
      blocks.add(loader.block(layer));
    }
    embedding = first ? table : null;
    finalNorm = last ? loader.gain(ModelTensors.FINAL_NORM) : null;
    output = !last ? null : config.tiedEmbeddings() ? table : loader.matrix(ModelTensors.OUTPUT);
    weightBytes = loader.bytes;
    ops = loader.ops;
    ModelConfig here = loader.share.of(config);
    cache = new KvCache(ops, here, range, kv, cachePositions);
    float[] factors = ModelTensors.usedFactors(config).map(loader::vector).orElse(new float[0]);
    decoder =
        new Decoder<>(
            here,
            ops,
            range.first(),
            blocks,
            factors,
            product -> {
              allReduce.sum(product.values());
              return product;
            });
  }

  /** Bytes of KV cache that a position takes in a slice of so many layers. */
  public static long cacheBytesPerPosition(ModelConfig config, KvFormat kv, int layers) {
    return KvCache.layout(config, layers, kv).positionBytes();
  }

  @Override
  public ModelConfig config() {
    return config;
  }

  @Override
  public LayerRange range() {
    return range;
  }

  @Override
  public long weightBytes() {
    return weightBytes;
  }

  @Override
  public int blocks() {
    return cache.blocks();
  }

  @Override
  public float[] embed(int[] tokens) {
    for (int token : tokens) {
      if (token < 0 || token >= config.vocabularySize()) {
        throw new FlotillaException(
            Code.INVALID,
            "token " + token + " is not in the vocabulary of " + config.vocabularySize(),
            "");
      }
    }
    return decoder.embed(held(embedding, "embedding"), tokens).values();
  }

  @Override
  public void forward(float[] hidden, Rows rows) {
    Matrix x = new Matrix(rows.count(), config.width(), hidden);
    ops.promptRows(rows.prompts());
    try {
      Matrix result = decoder.layers(x, rows.positions(), cache.attention(rows));
      System.arraycopy(result.values(), 0, hidden, 0, hidden.length);
    } finally {
      ops.promptRows(new boolean[0]);
    }
  }

  @Override
  public int blockBytesOfLayer() {
    return cache.layerBytes();
  }

  @Override
  public ByteBuffer readBlock(int block, LayerRange layers) {
    return cache.read(block, layers);
  }

  @Override
  public void writeBlock(int block, LayerRange layers, ByteBuffer content) {
    cache.write(block, layers, content);
  }

  @Override
  public float[] logits(float[] hidden, int[] rows) {
    return decoder
        .logits(chosen(hidden, rows), held(finalNorm, "output norm"), held(output, "output"))
        .values();
  }

  @Override
  public float[] normalised(float[] hidden, int[] rows) {
    return decoder.normalised(chosen(hidden, rows), held(finalNorm, "output norm")).values();
  }

  private Matrix chosen(float[] hidden, int[] rows) {
    int width = config.width();
    Matrix chosen = new Matrix(rows.length, width);
    for (int i = 0; i < rows.length; i++) {
      System.arraycopy(hidden, rows[i] * width, chosen.values(), i * width, width);
    }
    return chosen;
  }

  private Weights held(@Nullable Weights weights, String what) {
    if (weights == null) {
      throw new IllegalStateException("the " + what + " is not in layers " + range);
    }
    return weights;
  }

  @Override
  public void close() {
    ops.close();
    cache.close();
    arena.close();
  }

  /** Reads tensors into packed weights. */
  private static final class Loader {

    private final TensorSource source;
    private final ModelConfig config;
    private final TensorShare share;
    private final SimdOps ops;
    private final Arena arena;
    private long bytes;

    Loader(TensorSource source, ModelConfig config, TensorShare share, SimdOps ops, Arena arena) {
      this.source = source;
      this.config = config;
      this.share = share;
      this.ops = ops;
      this.arena = arena;
    }

    /** A layer's weights, cut from its tensors where these hold several. */
    Map<String, Weights> block(int layer) {
      Map<String, Weights> block = new HashMap<>();
      for (Part part : config.architecture().definition().parts(config)) {
        String tensor = part.at(layer).name();
        if (part.vector()) {
          block.put(part.name(), gain(tensor, part.name()));
        } else {
          int first = 0;
          for (Part.Cut weight : part.weights()) {
            Span rows = share.rows(config, weight.name(), weight.rows());
            Span columns = share.columns(config, weight.name(), info(tensor).columns());
            Span inTensor = new Span(first + rows.first(), rows.count());
            block.put(weight.name(), matrix(tensor, inTensor, columns, part.interleaved()));
            first += weight.rows();
          }
        }
      }
      return block;
    }

    Weights embedding() {
      return matrix(ModelTensors.EMBEDDING);
    }

    Weights matrix(String name) {
      TensorInfo info = info(name);
      return matrix(name, new Span(0, info.rows()), new Span(0, info.columns()), false);
    }

    private Weights matrix(String name, Span rows, Span columns, boolean interleaved) {
      TensorInfo info = info(name);
      long rowBytes = info.type().bytes(info.columns());
      MemorySegment data =
          source.tensor(name).asSlice(rows.first() * rowBytes, rows.count() * rowBytes);
      IntUnaryOperator sourceRow =
          interleaved
              ? row -> ModelTensors.interleavedRow(row, config.headWidth())
              : IntUnaryOperator.identity();
      if (columns.count() == info.columns()) {
        return count(ops.pack(info.type(), rows.count(), columns.count(), data, sourceRow, arena));
      }
      TensorShare.requireBlocks(columns, info.type(), name);
      long from = info.type().bytes(columns.first());
      long width = info.type().bytes(columns.count());
      // Several threads read it.
      try (Arena passing = Arena.ofShared()) {
        MemorySegment cut = passing.allocate(width * rows.count(), 64);
        for (long row = 0; row < rows.count(); row++) {
          MemorySegment.copy(data, row * rowBytes + from, cut, row * width, width);
        }
        return count(ops.pack(info.type(), rows.count(), columns.count(), cut, sourceRow, arena));
      }
    }

    Weights gain(String name) {
      return count(new Gain(vector(name)));
    }

    /** A bias has an element for each row of its matrix; other vectors are here whole. */
    private Weights gain(String tensor, String name) {
      float[] all = vector(tensor);
      Span here =
          name.endsWith(".bias") ? share.rows(config, name, all.length) : new Span(0, all.length);
      return count(new Gain(Arrays.copyOfRange(all, here.first(), here.first() + here.count())));
    }

    float[] vector(String name) {
      TensorInfo info = info(name);
      float[] values = new float[info.columns()];
      Blocks.decode(info.type(), source.tensor(name), 0, values, 0, values.length);
      return values;
    }

    private TensorInfo info(String name) {
      return source.header().tensor(name).orElseThrow();
    }

    private Weights count(Weights weights) {
      bytes += weights.bytes();
      return weights;
    }
  }
}
