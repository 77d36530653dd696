package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Random;

/** Prints a digest of every kernel's bits; run in processes with different vector widths. */
final class KernelDigest {

  private KernelDigest() {}

  public static void main(String[] args) {
    System.out.println("lanes " + Kernels.lanes() + " digest " + Long.toHexString(digest()));
  }

  static long digest() {
    Random random = new Random(11);
    long digest = 1;
    try (Arena arena = Arena.ofConfined();
        SimdOps ops = new SimdOps(1);
        KvBlocks blocks = new KvBlocks(ops, new KvLayout(KvType.F32, 1, 2, 48), 4, 2);
        KvBlocks halves = new KvBlocks(ops, new KvLayout(KvType.F16, 1, 2, 48), 4, 2);
        KvBlocks quants = new KvBlocks(ops, new KvLayout(KvType.Q8_0, 1, 2, 48), 4, 2)) {
      for (WeightType type : WeightType.values()) {
        int in = Math.max(160, type.blockElements());
        MemorySegment bytes =
            ScalarReference.encode(type, ScalarReference.random(random, 70 * in), arena);
        PackedMatrix packed = PackedMatrix.pack(type, 70, in, bytes, row -> row, arena);
        for (int rows : new int[] {1, 3, 6}) {
          Matrix x = new Matrix(rows, in, ScalarReference.random(random, rows * in));
          digest = mix(digest, ops.linear(x, packed));
        }
      }
      Matrix x = new Matrix(3, 101, ScalarReference.random(random, 303));
      digest = mix(digest, ops.swiGlu(x, x));
      digest = mix(digest, ops.rmsNorm(x, new Gain(ScalarReference.random(random, 101)), 1e-5f));
      Matrix heads = new Matrix(1, 96, ScalarReference.random(random, 96));
      digest = mix(digest, ops.rope(heads, Rope.plain(48, 10000), new int[] {12345}));
      int[] table = {1, 0};
      for (int t = 0; t < 40; t++) {
        Matrix key = new Matrix(1, 96, ScalarReference.random(random, 96));
        for (KvBlocks each : List.of(blocks, halves, quants)) {
          each.write(0, table[t / 32], t % 32, key, key, 0);
        }
      }
      Matrix query = new Matrix(1, 192, ScalarReference.random(random, 192));
      for (KvBlocks each : List.of(blocks, halves, quants)) {
        digest =
            mix(
                digest,
                each.attend(0, query, new int[][] {table}, new int[] {40}, Scoring.plain(48)));
      }
    }
    return digest;
  }

  private static long mix(long digest, Matrix matrix) {
    for (float value : matrix.values()) {
      digest = digest * 0x9E3779B97F4A7C15L + Float.floatToRawIntBits(value);
    }
    return digest;
  }
}
