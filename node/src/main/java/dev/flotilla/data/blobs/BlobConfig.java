package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.net.URI;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * How blobs are kept.
 *
 * @param copies of each chunk, on as many nodes; fewer where there are fewer nodes
 * @param chunkBytes of all chunks of a blob but its last
 * @param collectDelay what nothing refers to stays for so long
 * @param lostPatience a node lost for longer no longer counts as keeping copies
 * @param repairInterval the controller compares what is there with what should be
 * @param scrubInterval from the end of one scrub to the start of the next
 * @param scrubBytesPerSecond how fast a node reads its chunks to check them
 * @param reserveBytes of each node's disk, left to others
 * @param uploadLifetime an upload without progress for so long is forgotten
 */
public record BlobConfig(
    int copies,
    int chunkBytes,
    Duration collectDelay,
    Duration lostPatience,
    Duration repairInterval,
    Duration scrubInterval,
    long scrubBytesPerSecond,
    long reserveBytes,
    Duration uploadLifetime,
    Optional<S3> s3) {

  /**
   * An object store that keeps the chunks in the nodes' place.
   *
   * @param cached whether each node also keeps what passes through it
   */
  record S3(
      Optional<URI> endpoint,
      String region,
      String bucket,
      String prefix,
      Optional<Credentials> credentials,
      boolean cached) {}

  /** An access key and its secret. */
  record Credentials(String access, String secret) {

    @Override
    public String toString() {
      return "credentials " + access;
    }
  }

  static final BlobConfig DEFAULTS =
      new BlobConfig(
          3,
          4 << 20,
          Duration.ofDays(1),
          Duration.ofMinutes(10),
          Duration.ofMinutes(5),
          Duration.ofDays(7),
          16L << 20,
          256L << 20,
          Duration.ofDays(1),
          Optional.empty());

  BlobConfig withS3(S3 store) {
    return new BlobConfig(
        copies,
        chunkBytes,
        collectDelay,
        lostPatience,
        repairInterval,
        scrubInterval,
        scrubBytesPerSecond,
        reserveBytes,
        uploadLifetime,
        Optional.of(store));
  }

  /**
   * The usual one, with an object store where {@code FLOTILLA_S3_BUCKET} names one: {@code
   * FLOTILLA_S3_ENDPOINT} (else Amazon's), {@code …_REGION} (us-east-1), {@code …_PREFIX}, {@code
   * …_ACCESS_KEY} and {@code …_SECRET_KEY} (else found as Amazon's tools do), {@code
   * FLOTILLA_S3_CACHE=off} to keep nothing on the nodes.
   */
  public static BlobConfig of(Map<String, String> environment) {
    Optional<String> bucket = value(environment, "FLOTILLA_S3_BUCKET");
    if (bucket.isEmpty()) {
      return DEFAULTS;
    }
    Optional<URI> endpoint = value(environment, "FLOTILLA_S3_ENDPOINT").map(BlobConfig::address);
    Optional<Credentials> credentials =
        value(environment, "FLOTILLA_S3_ACCESS_KEY")
            .flatMap(
                access ->
                    value(environment, "FLOTILLA_S3_SECRET_KEY")
                        .map(secret -> new Credentials(access, secret)));
    return DEFAULTS.withS3(
        new S3(
            endpoint,
            value(environment, "FLOTILLA_S3_REGION").orElse("us-east-1"),
            bucket.get(),
            value(environment, "FLOTILLA_S3_PREFIX").orElse("flotilla/"),
            credentials,
            !value(environment, "FLOTILLA_S3_CACHE").orElse("on").equals("off")));
  }

  private static URI address(String text) {
    try {
      URI address = URI.create(text);
      if (address.getHost() != null && address.getScheme() != null) {
        return address;
      }
    } catch (IllegalArgumentException notAnAddress) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID,
        "FLOTILLA_S3_ENDPOINT is " + text + ", which is not an address",
        "It looks like https://HOST:PORT.");
  }

  private static Optional<String> value(Map<String, String> environment, String name) {
    return Optional.ofNullable(environment.get(name)).filter(text -> !text.isBlank());
  }
}
