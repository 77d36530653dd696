package dev.flotilla.data.cache;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Optional;

/**
 * Embeddings by what they are embeddings of: a typed face of a {@link Cache}. The key is the
 * SHA-256 of the model's digest, a zero byte and the text in UTF-8, in hexadecimal; the value is
 * the vector as little-endian 32-bit floats. Other weights have another digest, so that nothing
 * needs to be invalidated when a model is replaced.
 */
public final class EmbeddingCache {

  private final Cache cache;

  /** Over this cache, which should hold nothing else. */
  public EmbeddingCache(Cache cache) {
    this.cache = cache;
  }

  private static String key(String modelDigest, String text) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      digest.update(modelDigest.getBytes(StandardCharsets.UTF_8));
      digest.update((byte) 0);
      digest.update(text.getBytes(StandardCharsets.UTF_8));
      return HexFormat.of().formatHex(digest.digest());
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  /** The vector [dimensions], if it was put. */
  public Optional<float[]> find(String modelDigest, String text) {
    return cache
        .get(key(modelDigest, text))
        .map(
            bytes -> {
              float[] vector = new float[bytes.length / Float.BYTES];
              ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(vector);
              return vector;
            });
  }

  /** Keeps a vector [dimensions], at most 262,144 of them. */
  public void put(String modelDigest, String text, float[] vector) {
    ByteBuffer bytes =
        ByteBuffer.allocate(vector.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asFloatBuffer().put(vector);
    var _ = cache.put(key(modelDigest, text), bytes.array(), Optional.<Duration>empty());
  }
}
