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
 * What a content consists of: chunks of one size, the last one shorter; or, where it is small
 * against a chunk, itself.
 *
 * @param chunks their digests in hexadecimal, in order; none for an empty or small content
 * @param content of a small one; empty where there are chunks
 */
record BlobManifest(long size, int chunkBytes, List<String> chunks, byte[] content) {

  static final String PREFIX = "sha256:";
  private static final byte VERSION = 1;
  private static final byte SMALL = 2;
  private static final HexFormat HEX = HexFormat.of();

  BlobManifest {
    chunks = List.copyOf(chunks);
  }

  BlobManifest(long size, int chunkBytes, List<String> chunks) {
    this(size, chunkBytes, chunks, new byte[0]);
  }

  /** Of a small content. */
  static BlobManifest of(byte[] content, int chunkBytes) {
    return new BlobManifest(content.length, chunkBytes, List.of(), content);
  }

  /** Up to how many bytes a content is kept in the data grid itself. */
  static int smallBytes(int chunkBytes) {
    return chunkBytes / 256;
  }

  /** How long a chunk is. */
  int length(int index) {
    return (int) Math.min(chunkBytes, size - (long) index * chunkBytes);
  }

  /** Version, size, chunk size, then 32 bytes per chunk, or the content. */
  byte[] encode() {
    if (content.length > 0) {
      ByteBuffer small = ByteBuffer.allocate(13 + content.length);
      return small.put(SMALL).putLong(size).putInt(chunkBytes).put(content).array();
    }
    ByteBuffer bytes = ByteBuffer.allocate(13 + 32 * chunks.size());
    bytes.put(VERSION).putLong(size).putInt(chunkBytes);
    chunks.forEach(chunk -> bytes.put(HEX.parseHex(chunk)));
    return bytes.array();
  }

  static BlobManifest decode(byte[] encoded) {
    try {
      ByteBuffer bytes = ByteBuffer.wrap(encoded);
      byte version = bytes.get();
      if (version != VERSION && version != SMALL) {
        throw new FlotillaException(
            Code.BAD_FILE,
            "a blob's manifest has version " + version + ", and this node knows " + SMALL,
            "Upgrade this node.");
      }
      long size = bytes.getLong();
      int chunkBytes = bytes.getInt();
      if (version == SMALL) {
        byte[] content = new byte[bytes.remaining()];
        bytes.get(content);
        return new BlobManifest(size, chunkBytes, List.of(), content);
      }
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
