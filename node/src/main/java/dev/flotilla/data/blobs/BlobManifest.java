package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/**
 * What a content consists of: chunks of one size, the last one shorter. The same content and chunk
 * size give the same manifest.
 *
 * @param chunks their digests in hexadecimal, in order; none for an empty content
 */
record BlobManifest(long size, int chunkBytes, List<String> chunks) {

  static final String PREFIX = "sha256:";
  private static final byte VERSION = 1;
  private static final HexFormat HEX = HexFormat.of();

  BlobManifest {
    chunks = List.copyOf(chunks);
  }

  /** How long a chunk is. */
  int length(int index) {
    return (int) Math.min(chunkBytes, size - (long) index * chunkBytes);
  }

  /** Version, size, chunk size, then 32 bytes per chunk. */
  byte[] encode() {
    ByteBuffer bytes = ByteBuffer.allocate(13 + 32 * chunks.size());
    bytes.put(VERSION).putLong(size).putInt(chunkBytes);
    chunks.forEach(chunk -> bytes.put(HEX.parseHex(chunk)));
    return bytes.array();
  }

  static BlobManifest decode(byte[] encoded) {
    try {
      ByteBuffer bytes = ByteBuffer.wrap(encoded);
      byte version = bytes.get();
      if (version != VERSION) {
        throw new FlotillaException(
            Code.BAD_FILE,
            "a blob's manifest has version " + version + ", and this node knows " + VERSION,
            "Upgrade this node.");
      }
      long size = bytes.getLong();
      int chunkBytes = bytes.getInt();
      List<String> chunks = new ArrayList<>();
      byte[] digest = new byte[32];
      while (bytes.hasRemaining()) {
        bytes.get(digest);
        chunks.add(HEX.formatHex(digest));
      }
      return new BlobManifest(size, chunkBytes, chunks);
    } catch (BufferUnderflowException e) {
      throw new FlotillaException(
          Code.BAD_FILE, "a blob's manifest is cut short", "Put the blob again.", e);
    }
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  /** In hexadecimal. */
  static String sha256(byte[] content, int length) {
    MessageDigest digest = sha256();
    digest.update(content, 0, length);
    return HEX.formatHex(digest.digest());
  }

  /**
   * The hexadecimal part of a digest that a caller gave.
   *
   * @throws FlotillaException {@code INVALID} if it is none
   */
  static String hex(String digest) {
    if (!digest.matches("sha256:[0-9a-f]{64}")) {
      throw new FlotillaException(
          Code.INVALID,
          (digest.length() > 100 ? digest.substring(0, 100) + "…" : digest) + " is not a digest",
          "It is sha256: and 64 hexadecimal digits in lower case.");
    }
    return digest.substring(PREFIX.length());
  }
}
