package dev.flotilla.model;

import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.WeightType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;
import java.util.function.DoubleSupplier;
import java.util.function.LongSupplier;
import java.util.stream.IntStream;

/**
 * Measures {@link LayerSpeeds} with real slices of made-up models: whatever a step costs in serving
 * it costs here. Two shapes are run. The narrow one shows what a layer costs whatever its size, and
 * what attention does; the wide one, in each weight type, what its bytes cost besides.
 */
public final class LayerProbe {

  private static final int NARROW_LAYERS = 4;
  private static final int FAR = 1024;
  private static final Wide WIDE = new Wide(2048, 32, 8, 4096, 256L << 20);

  /** Until the compiler has seen the code, a step takes a hundred times longer. */
  private static final long WARM_UP_NS = TimeUnit.MILLISECONDS.toNanos(1500);

  /** The same for the kernels of one more type. */
  private static final long WARM_UP_TYPE_NS = TimeUnit.MILLISECONDS.toNanos(400);

  private static final long PASSES_NS = TimeUnit.MILLISECONDS.toNanos(60);
  private static final int PASSES_MIN = 3;

  /** Passes are repeated until they get no faster than this, so many times at most. */
  private static final double STEADY = 0.9;

  private static final int REPEATS_MAX = 12;

  /** Of the passes: what else the machine does makes some of them slower. */
  private static final double QUANTILE = 0.5;

  /** Compiled code is the process's. */
  private static final AtomicBoolean WARM = new AtomicBoolean();

  private final int threads;
  private final BooleanSupplier goOn;
  private final LongSupplier nanoTime;
  private final Wide wide;

  /**
   * The wide shape.
   *
   * @param bytesMin of its layers together, so that they do not stay in the caches
   */
  record Wide(int width, int heads, int kvHeads, int inner, long bytesMin) {}

  /**
   * @param threads how many compute, the caller's among them
   * @param goOn asked between passes, which take milliseconds; the measurement ends when it says no
   */
  public LayerProbe(int threads, BooleanSupplier goOn, LongSupplier nanoTime) {
    this(threads, goOn, nanoTime, WIDE);
  }

  LayerProbe(int threads, BooleanSupplier goOn, LongSupplier nanoTime, Wide wide) {
    this.wide = wide;
    this.threads = threads;
    this.goOn = goOn;
    this.nanoTime = nanoTime;
  }

  /**
   * Measures.
   *
   * @return nothing if it was broken off
   */
  public Optional<LayerSpeeds> measure() {
    try {
      return Optional.of(speeds());
    } catch (BrokenOff e) {
      return Optional.empty();
    }
  }

  /**
   * Runs steps of all kinds until the compiler has seen their code; what is served first would else
   * take seconds. Once in a process, however often it is called.
   *
   * @return false if it was broken off
   */
  public boolean warmUp() {
    if (!WARM.compareAndSet(false, true)) {
      return true;
    }
    try (LayerSlice slice = slice(narrow(), WeightType.Q8_0)) {
      warmUp(slice);
      return true;
    } catch (BrokenOff e) {
      WARM.set(false);
      return false;
    }
  }

  private void warmUp(LayerSlice slice) {
    // Few rows first: many would take seconds before the compiler has seen the code.
    long fewNs = nanoTime.getAsLong() + WARM_UP_NS;
    while (nanoTime.getAsLong() < fewNs) {
      LayerSpeeds.ROWS.stream()
          .filter(rows -> rows != LayerSpeeds.PROMPT)
          .forEach(rows -> run(slice, rows, 0));
    }
    for (int position = 0; position < FAR; position += LayerSpeeds.PROMPT) {
      run(slice, LayerSpeeds.PROMPT, position); // what rows far behind see must be there
    }
    long warmNs = nanoTime.getAsLong() + WARM_UP_NS;
    while (nanoTime.getAsLong() < warmNs) {
      LayerSpeeds.ROWS.forEach(rows -> run(slice, rows, 0));
      run(slice, 1, FAR);
    }
  }

  private static ModelConfig narrow() {
    return shape(256, 16, 4, 256, NARROW_LAYERS);
  }

  /** Bytes of the cache that attention was measured over, for each position and query element. */
  static double cacheBytesPerElement() {
    return (double) KvCache.layout(narrow(), 1, KvFormat.F16).positionBytes()
        / narrow().queryWidth();
  }

  private LayerSpeeds speeds() {
    List<Double> fixed = new ArrayList<>();
    double decode;
    double prompt;
    ModelConfig narrow = narrow();
    try (LayerSlice slice = slice(narrow, WeightType.Q8_0)) {
      warmUp(slice);
      for (int rows : LayerSpeeds.ROWS) {
        fixed.add(seconds(slice, rows, 0) / NARROW_LAYERS);
      }
      double seen = (double) FAR * narrow.queryWidth() * NARROW_LAYERS;
      decode = Math.max(0, seconds(slice, 1, FAR) - fixed.getFirst() * NARROW_LAYERS) / seen;
      prompt =
          Math.max(0, seconds(slice, LayerSpeeds.PROMPT, FAR) - fixed.getLast() * NARROW_LAYERS)
              / (seen * LayerSpeeds.PROMPT);
      fixed.addLast(Math.max(0, fixed.removeLast() - ownAttention(prompt, narrow)));
    }
    Map<String, List<Double>> perByte = new TreeMap<>();
    for (WeightType type : WeightType.values()) {
      perByte.put(LayerSpeeds.label(type), wide(type, fixed, prompt));
    }
    return new LayerSpeeds(fixed, perByte, decode, prompt, true);
  }

  /** What a prompt's rows, in a layer, take to attend to each other. */
  private static double ownAttention(double promptAttention, ModelConfig config) {
    double seen = LayerSpeeds.PROMPT / 2.0;
    return promptAttention * LayerSpeeds.PROMPT * seen * config.queryWidth();
  }

  private List<Double> wide(WeightType type, List<Double> fixed, double promptAttention) {
    ModelConfig one = wideShape(1);
    long bytes = type.bytes(parameters(one));
    int layers = (int) Math.ceilDiv(wide.bytesMin(), bytes);
    List<Double> perByte = new ArrayList<>();
    try (LayerSlice slice = slice(wideShape(layers), type)) {
      long warmNs = nanoTime.getAsLong() + WARM_UP_TYPE_NS;
      while (nanoTime.getAsLong() < warmNs) {
        LayerSpeeds.ROWS.subList(0, fixed.size() - 1).forEach(rows -> run(slice, rows, 0));
      }
      for (int i = 0; i < fixed.size() - 1; i++) {
        double layer = seconds(slice, LayerSpeeds.ROWS.get(i), 0) / layers;
        perByte.add(Math.max(0, layer - fixed.get(i)) / bytes);
      }
    }
    try (LayerSlice slice = slice(one, type)) {
      double layer = seconds(slice, LayerSpeeds.PROMPT, 0) - ownAttention(promptAttention, one);
      perByte.add(Math.max(0, layer - fixed.getLast()) / bytes);
    }
    return perByte;
  }

  private ModelConfig wideShape(int layers) {
    return shape(wide.width(), wide.heads(), wide.kvHeads(), wide.inner(), layers);
  }

  private static long parameters(ModelConfig config) {
    return ModelTensors.all(config).values().stream()
        .filter(part -> part.name().startsWith(ModelTensors.block(0)) && !part.vector())
        .mapToLong(
            part -> part.shape().stream().mapToLong(Integer::longValue).reduce(1, (a, b) -> a * b))
        .sum();
  }

  private static ModelConfig shape(int width, int heads, int kvHeads, int inner, int layers) {
    return new ModelConfig(32, width, layers, heads, kvHeads, 64, inner, 4096, 10_000, 1e-5f, true);
  }

  private LayerSlice slice(ModelConfig config, WeightType type) {
    try (Source source = new Source(config, type)) {
      return PackedSlice.load(
          source, new LayerRange(0, config.layers() - 1), threads, KvFormat.F16, 2 * FAR);
    }
  }

  /** Seconds of a step of so many rows behind so many positions, once it gets no faster. */
  private double seconds(LayerSlice slice, int rows, int position) {
    return steady(() -> passes(slice, rows, position));
  }

  /** The least of what is measured again and again, until it gets no faster: code warms up. */
  public static double steady(DoubleSupplier seconds) {
    double before = seconds.getAsDouble();
    double now = seconds.getAsDouble();
    for (int i = 2; i < REPEATS_MAX && now < before * STEADY; i++) {
      before = now;
      now = seconds.getAsDouble();
    }
    return Math.min(before, now);
  }

  private double passes(LayerSlice slice, int rows, int position) {
    List<Long> passes = new ArrayList<>();
    long endNs = nanoTime.getAsLong() + PASSES_NS;
    while (passes.size() < PASSES_MIN || nanoTime.getAsLong() < endNs) {
      passes.add(run(slice, rows, position));
    }
    Collections.sort(passes);
    return passes.get((int) (passes.size() * QUANTILE)) / 1e9;
  }

  /** One step, of a prompt's chunk or of as many texts as rows; returns nanoseconds. */
  private long run(LayerSlice slice, int rows, int position) {
    if (!goOn.getAsBoolean()) {
      throw new BrokenOff();
    }
    boolean prompt = rows == LayerSpeeds.PROMPT;
    int texts = prompt ? 1 : rows;
    int share = slice.blocks() / texts;
    List<Rows.Run> runs = new ArrayList<>();
    for (int text = 0; text < texts; text++) {
      int[] blocks = IntStream.range(text * share, (text + 1) * share).toArray();
      for (int row = 0; row < rows / texts; row += Rows.CHUNK) {
        int count = Math.min(Rows.CHUNK, rows / texts - row);
        runs.add(new Rows.Run(blocks, position + row, count, prompt));
      }
    }
    Rows step = new Rows(runs);
    float[] hidden = new float[rows * slice.config().width()];
    for (int i = 0; i < hidden.length; i++) {
      hidden[i] = (i % 13 - 6) / 8f;
    }
    long startNs = nanoTime.getAsLong();
    slice.forward(hidden, step);
    return nanoTime.getAsLong() - startNs;
  }

  /** A model whose tensors all have the same few rows over and over. */
  private static final class Source implements TensorSource {
    private final GgufHeader header;
    private final Arena arena = Arena.ofShared();

    Source(ModelConfig config, WeightType type) {
      Map<String, Object> metadata = new LinkedHashMap<>();
      GgufConfig.metadata("probe", config, type)
          .forEach((key, value) -> metadata.put(key, read(value)));
      Map<String, TensorInfo> tensors = new LinkedHashMap<>();
      ModelTensors.all(config)
          .forEach(
              (name, part) -> {
                WeightType kept = part.vector() ? WeightType.F32 : type;
                long elements =
                    part.shape().stream().mapToLong(Integer::longValue).reduce(1, (a, b) -> a * b);
                tensors.put(
                    name, new TensorInfo(name, part.shape(), kept, 0, kept.bytes(elements)));
              });
      header = new GgufHeader(3, 32, 0, 0, metadata, tensors);
    }

    /** As a parser has it. */
    private static Object read(Object value) {
      return switch (value) {
        case Integer number -> (long) number;
        case Float number -> (double) number;
        default -> value;
      };
    }

    @Override
    public GgufHeader header() {
      return header;
    }

    @Override
    public MemorySegment tensor(String name) {
      TensorInfo info = header.tensor(name).orElseThrow();
      MemorySegment bytes = arena.allocate(info.bytes(), 64);
      int columns = info.columns();
      SplittableRandom random = new SplittableRandom(1);
      double range = Math.sqrt(3.0 / columns);
      float[] row = new float[columns];
      for (int i = 0; i < columns; i++) {
        row[i] = info.rows() == 1 ? 1 : (float) (range * (2 * random.nextDouble() - 1));
      }
      Blocks.encode(info.type(), row, 0, columns, bytes, 0);
      long rowBytes = info.type().bytes(columns);
      for (long at = rowBytes; at < bytes.byteSize(); at += rowBytes) {
        MemorySegment.copy(bytes, 0, bytes, at, rowBytes);
      }
      return bytes;
    }

    @Override
    public void close() {
      arena.close();
    }
  }

  /** There is something better to do. */
  private static final class BrokenOff extends RuntimeException {
    private static final long serialVersionUID = 1;
  }
}
