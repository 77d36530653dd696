package dev.flotilla.gateway;

import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.Caches;
import dev.flotilla.model.Pooling;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * Embeddings by what determines them: the digest of the model's file (other weights under the same
 * name are another model, so nothing needs to be invalidated when a model is replaced), how its
 * deployment computes, the way of pooling, and the token ids. Kept in the grid as little-endian
 * 32-bit floats, and read from this node's own memory where they were read before.
 */
final class EmbeddingCache {

  private static final String NAME = "flotilla.embeddings";
  private static final CacheConfig CONFIG =
      CacheConfig.DEFAULT
          .withTtlMs(TimeUnit.DAYS.toMillis(30))
          .withBounds(1_000_000, 512L << 20)
          .withNearBytes(32L << 20);
  private static final long PATIENCE_MS = 500;

  private final PatientCache cache;

  EmbeddingCache(Caches caches) {
    cache = new PatientCache(caches, NAME, CONFIG, PATIENCE_MS);
  }

  /**
   * @param model its {@link ServedModel#form}
   */
  static String key(String model, Pooling pooling, int[] tokens) {
    ByteBuffer ids = ByteBuffer.allocate(tokens.length * Integer.BYTES);
    ids.order(ByteOrder.LITTLE_ENDIAN).asIntBuffer().put(tokens);
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      digest.update((model + "\0" + pooling + "\0").getBytes(StandardCharsets.UTF_8));
      digest.update(ids);
      return HexFormat.of().formatHex(digest.digest());
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  /** Those that are there; empty if the cache does not answer at once. */
  Optional<Map<String, float[]>> find(Collection<String> keys) {
    return cache
        .find(keys)
        .map(
            there -> {
              Map<String, float[]> vectors = new HashMap<>();
              there.forEach((key, bytes) -> vectors.put(key, floats(bytes)));
              return vectors;
            });
  }

  private static float[] floats(byte[] bytes) {
    float[] vector = new float[bytes.length / Float.BYTES];
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(vector);
    return vector;
  }

  /** Keeps vectors, later and if it can. */
  void keep(Map<String, float[]> vectors) {
    Map<String, byte[]> entries = new HashMap<>();
    vectors.forEach((key, vector) -> entries.put(key, bytes(vector)));
    cache.keep(entries);
  }

  /** Little-endian 32-bit floats. */
  static byte[] bytes(float[] vector) {
    ByteBuffer bytes =
        ByteBuffer.allocate(vector.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asFloatBuffer().put(vector);
    return bytes.array();
  }
}
