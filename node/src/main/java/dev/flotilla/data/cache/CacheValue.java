package dev.flotilla.data.cache;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.ByteBuffer;

/**
 * A value as the grid keeps it: format 1 (1 byte), version, expiry and writing time in milliseconds
 * since 1970 (8 bytes each, big-endian), then the bytes.
 */
public record CacheValue(long version, long expiresAtMs, long writtenAtMs, byte[] bytes) {

  static final int HEADER_BYTES = 25;
  private static final byte FORMAT = 1;

  byte[] encode() {
    return ByteBuffer.allocate(HEADER_BYTES + bytes.length)
        .put(FORMAT)
        .putLong(version)
        .putLong(expiresAtMs)
        .putLong(writtenAtMs)
        .put(bytes)
        .array();
  }

  public static CacheValue decode(byte[] encoded) {
    if (encoded.length < HEADER_BYTES || encoded[0] != FORMAT) {
      throw new FlotillaException(
          Code.FAILED,
          "a cached value has a format that this version does not know",
          "Upgrade this node, or drop the cache.");
    }
    ByteBuffer buffer = ByteBuffer.wrap(encoded, 1, encoded.length - 1);
    long version = buffer.getLong();
    long expiresAtMs = buffer.getLong();
    long writtenAtMs = buffer.getLong();
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return new CacheValue(version, expiresAtMs, writtenAtMs, bytes);
  }

  boolean liveAt(long nowMs) {
    return expiresAtMs == 0 || nowMs < expiresAtMs;
  }

  Cache.Entry entry() {
    return new Cache.Entry(bytes, version, expiresAtMs);
  }
}
