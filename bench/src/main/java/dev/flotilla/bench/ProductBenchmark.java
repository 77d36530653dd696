package dev.flotilla.bench;

import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.Matrix;
import dev.flotilla.tensor.PackedMatrix;
import dev.flotilla.tensor.SimdOps;
import dev.flotilla.tensor.WeightType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Random;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/** Products of rows with a matrix that no core's cache holds, as JMH runs them. */
@State(Scope.Benchmark)
@SuppressWarnings("NullAway.Init") // JMH sets the fields
public class ProductBenchmark {

  private static final int WIDTH = 2048;

  /** Rows of weights that are made; the others repeat them. */
  private static final int MADE = 32;

  /** About how many of weights. */
  static final long BYTES = 64L << 20;

  @Param WeightType type;

  @Param({"1", "4", "8", "512"})
  int rows;

  @Param("1")
  int threads;

  private SimdOps ops;
  private PackedMatrix weights;
  private Matrix x;

  /** Bytes of weights that an operation reads. */
  static long bytes(WeightType type) {
    return type.bytes(WIDTH) * out(type);
  }

  private static int out(WeightType type) {
    return (int) (BYTES / type.bytes(WIDTH)) / MADE * MADE;
  }

  @Setup
  public void make() {
    Arena arena = Arena.ofAuto();
    ops = new SimdOps(threads);
    Random random = new Random(1);
    MemorySegment source = arena.allocate(bytes(type), 64);
    long part = type.bytes((long) MADE * WIDTH);
    Blocks.encode(type, random(random, MADE * WIDTH), 0, MADE * WIDTH, source, 0);
    for (long at = part; at < source.byteSize(); at += part) {
      MemorySegment.copy(source, 0, source, at, part);
    }
    weights = ops.pack(type, out(type), WIDTH, source, row -> row, arena);
    x = new Matrix(rows, WIDTH, random(random, rows * WIDTH));
    if (rows == LayerSpeeds.PROMPT) {
      boolean[] prompt = new boolean[rows];
      Arrays.fill(prompt, true);
      ops.promptRows(prompt);
    }
  }

  private static float[] random(Random random, int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  @Benchmark
  public Matrix multiply() {
    return ops.linear(x, weights);
  }

  @TearDown
  public void close() {
    ops.close();
  }
}
