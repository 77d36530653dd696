package dev.flotilla.bench;

import dev.flotilla.tensor.KvBlocks;
import dev.flotilla.tensor.KvLayout;
import dev.flotilla.tensor.KvType;
import dev.flotilla.tensor.Matrix;
import dev.flotilla.tensor.Scoring;
import dev.flotilla.tensor.SimdOps;
import java.util.Arrays;
import java.util.Random;
import java.util.stream.IntStream;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/** Attention of rows over a long text in the KV cache, as JMH runs it. */
@State(Scope.Benchmark)
@SuppressWarnings("NullAway.Init") // JMH sets the fields
public class AttentionBenchmark {

  private static final int HEADS = 32;
  private static final int KV_HEADS = 8;
  private static final int HEAD_WIDTH = 64;
  private static final int POSITIONS = 8192;

  @Param KvType type;

  @Param({"1", "512"})
  int rows;

  @Param("1")
  int threads;

  private SimdOps ops;
  private KvBlocks cache;
  private Matrix query;
  private int[][] tables;
  private int[] lengths;

  /** Rows, positions and elements of queries that an operation goes over, multiplied. */
  static double elements(int rows) {
    return (double) layers(rows) * rows * POSITIONS * HEADS * HEAD_WIDTH;
  }

  /** Bytes of a position's keys and values, for each element of a row's queries. */
  static double bytesPerElement(KvType type) {
    return (double) new KvLayout(type, 1, KV_HEADS, HEAD_WIDTH).positionBytes()
        / (HEADS * HEAD_WIDTH);
  }

  /** One row reads several, so that no core's cache holds them; many rows have enough in one. */
  private static int layers(int rows) {
    return rows == 1 ? 4 : 1;
  }

  @Setup
  public void make() {
    Random random = new Random(1);
    ops = new SimdOps(threads);
    KvLayout layout = new KvLayout(type, layers(rows), KV_HEADS, HEAD_WIDTH);
    int blocks = POSITIONS / KvBlocks.POSITIONS;
    cache = new KvBlocks(ops, layout, HEADS, blocks);
    Matrix one = random(random, KvBlocks.POSITIONS, KV_HEADS * HEAD_WIDTH);
    for (int layer = 0; layer < layers(rows); layer++) {
      for (int position = 0; position < POSITIONS; position++) {
        int slot = position % KvBlocks.POSITIONS;
        cache.write(layer, position / KvBlocks.POSITIONS, slot, one, one, slot);
      }
    }
    query = random(random, rows, HEADS * HEAD_WIDTH);
    int[] table = IntStream.range(0, blocks).toArray();
    tables = new int[rows][];
    lengths = new int[rows];
    Arrays.fill(tables, table);
    Arrays.fill(lengths, POSITIONS);
  }

  private static Matrix random(Random random, int rows, int width) {
    float[] values = new float[rows * width];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return new Matrix(rows, width, values);
  }

  @Benchmark
  public float attend() {
    float sum = 0;
    for (int layer = 0; layer < layers(rows); layer++) {
      Matrix result = cache.attend(layer, query, tables, lengths, Scoring.plain(HEAD_WIDTH));
      sum += result.values()[0];
    }
    return sum;
  }

  @TearDown
  public void close() {
    cache.close();
    ops.close();
  }
}
