package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.time.Instant;
import java.util.Base64;
import java.util.HexFormat;
import java.util.zip.CRC32C;

/**
 * An invitation that works once: a secret, the fingerprint of the authority that gives it, and when
 * it expires. As text it is one word, {@code flotilla1_} and 80 letters, digits, hyphens and
 * underscores; a checksum tells a word that was cut short from one that is wrong.
 *
 * @param secret 16 random bytes
 * @param authorityFingerprint SHA-256 of the authority's certificate
 */
record JoinToken(byte[] secret, byte[] authorityFingerprint, Instant expiresAt) {

  private static final String PREFIX = "flotilla1_";
  private static final int SECRET_BYTES = 16;
  private static final int FINGERPRINT_BYTES = 32;
  private static final int TOTAL_BYTES = SECRET_BYTES + FINGERPRINT_BYTES + Long.BYTES + 4;
  private static final SecureRandom RANDOM = new SecureRandom();

  static JoinToken create(byte[] authorityFingerprint, Instant expiresAt) {
    byte[] secret = new byte[SECRET_BYTES];
    RANDOM.nextBytes(secret);
    return new JoinToken(secret, authorityFingerprint, expiresAt);
  }

  String text() {
    ByteBuffer bytes = ByteBuffer.allocate(TOTAL_BYTES);
    bytes.put(secret).put(authorityFingerprint).putLong(expiresAt.getEpochSecond());
    bytes.putInt(checksum(bytes.array()));
    return PREFIX + Base64.getUrlEncoder().withoutPadding().encodeToString(bytes.array());
  }

  /**
   * @throws FlotillaException {@code INVALID} if it is not such a word
   */
  static JoinToken parse(String text) {
    String trimmed = text.strip();
    byte[] bytes = new byte[0];
    if (trimmed.startsWith(PREFIX)) {
      try {
        bytes = Base64.getUrlDecoder().decode(trimmed.substring(PREFIX.length()));
      } catch (IllegalArgumentException e) {
        // Falls through: the length does not fit.
      }
    }
    if (bytes.length != TOTAL_BYTES
        || ByteBuffer.wrap(bytes).getInt(TOTAL_BYTES - 4) != checksum(bytes)) {
      throw new FlotillaException(
          Code.INVALID,
          "the join token is malformed or was not copied whole",
          "Copy the whole word that `flotilla invite` printed; it starts with " + PREFIX + ".");
    }
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    byte[] secret = new byte[SECRET_BYTES];
    byte[] fingerprint = new byte[FINGERPRINT_BYTES];
    buffer.get(secret).get(fingerprint);
    return new JoinToken(secret, fingerprint, Instant.ofEpochSecond(buffer.getLong()));
  }

  /** Under which name the registry knows a secret, without holding it. */
  static String hash(byte[] secret) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(secret));
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("no SHA-256 in this JDK", e);
    }
  }

  private static int checksum(byte[] bytes) {
    CRC32C checksum = new CRC32C();
    checksum.update(bytes, 0, TOTAL_BYTES - 4);
    return (int) checksum.getValue();
  }
}
