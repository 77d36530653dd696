package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.Grid.TransactionMode;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.Collection;
import java.util.Optional;
import java.util.Set;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.checksums.RequestChecksumCalculation;
import software.amazon.awssdk.core.checksums.ResponseChecksumValidation;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3ClientBuilder;
import software.amazon.awssdk.services.s3.model.MetadataDirective;
import software.amazon.awssdk.services.s3.model.NoSuchKeyException;
import software.amazon.awssdk.services.s3.model.S3Exception;
import software.amazon.awssdk.services.s3.model.S3Object;

/**
 * Chunks in an object store that speaks S3, which keeps them safe; nodes may keep what passes
 * through them, to read it faster.
 *
 * <p>An object's time says when somebody last said to need it, as a file's does. A store offers no
 * deletion on a condition, so a collection goes in two steps with a row in the grid between them:
 * the chunk is marked, and in a later pass, under the row's lock, deleted if it is still old. Who
 * stores or touches a chunk removes the mark first, under the same lock, so either the deletion
 * came before, and the chunk is sent again, or it does not come.
 */
final class S3Chunks implements ChunkVault, AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(S3Chunks.class);
  private static final String MARKS = "flotilla.blob.marks";

  private final S3Client client;
  private final BlobConfig.S3 config;
  private final Optional<ChunkFiles> cache;
  private final Grid grid;
  private final InstantSource clock;
  private final Duration freshFor;
  private final Duration grace;

  /**
   * @param cache where the node keeps what passes through
   * @param collectDelay how long what nobody touches stays
   */
  S3Chunks(
      BlobConfig.S3 config,
      Optional<ChunkFiles> cache,
      Grid grid,
      InstantSource clock,
      Duration collectDelay) {
    this.config = config;
    this.cache = cache;
    this.grid = grid;
    this.clock = clock;
    this.freshFor = collectDelay.dividedBy(4);
    this.grace =
        collectDelay.compareTo(Duration.ofMinutes(1)) < 0 ? collectDelay : Duration.ofMinutes(1);
    S3ClientBuilder builder =
        S3Client.builder()
            .httpClientBuilder(
                UrlConnectionHttpClient.builder()
                    .connectionTimeout(Duration.ofSeconds(5))
                    .socketTimeout(Duration.ofSeconds(30)))
            .region(Region.of(config.region()))
            // Each chunk is compared with its own digest; not every store knows Amazon's checksums.
            .requestChecksumCalculation(RequestChecksumCalculation.WHEN_REQUIRED)
            .responseChecksumValidation(ResponseChecksumValidation.WHEN_REQUIRED);
    config.endpoint().ifPresent(address -> builder.endpointOverride(address).forcePathStyle(true));
    config
        .credentials()
        .ifPresent(
            known ->
                builder.credentialsProvider(
                    StaticCredentialsProvider.create(
                        AwsBasicCredentials.create(known.access(), known.secret()))));
    this.client = builder.build();
  }

  private String key(String chunk) {
    return config.prefix() + chunk.substring(0, 2) + "/" + chunk;
  }

  private IgniteCache<String, Long> marks(Ignite ignite) {
    return grid.cache(ignite, MARKS);
  }

  private void unmark(String chunk) {
    grid.ensureCache(MARKS);
    grid.transact(
        "removing a mark",
        TransactionMode.PESSIMISTIC,
        ignite -> {
          // Even an absent row must be locked: a deletion may be under way.
          Long mark = marks(ignite).get(chunk);
          return mark != null && marks(ignite).remove(chunk);
        });
  }

  @Override
  public void store(String chunk, byte[] content, int length) {
    unmark(chunk);
    try {
      if (age(chunk).filter(age -> age.compareTo(freshFor) < 0).isEmpty()) {
        byte[] exact =
            content.length == length ? content : java.util.Arrays.copyOf(content, length);
        client.putObject(
            request -> request.bucket(config.bucket()).key(key(chunk)),
            RequestBody.fromBytes(exact));
      }
    } catch (SdkException e) {
      throw failure("storing chunk " + chunk, e);
    }
    keep(chunk, content, length);
  }

  private void keep(String chunk, byte[] content, int length) {
    cache.ifPresent(
        files -> {
          try {
            files.write(chunk, content, length);
          } catch (FlotillaException full) {
            log.debug("chunk {} is not kept here: {}", chunk, full.getMessage());
          }
        });
  }

  private Optional<Duration> age(String chunk) {
    try {
      Instant touched =
          client
              .headObject(request -> request.bucket(config.bucket()).key(key(chunk)))
              .lastModified();
      return Optional.of(Duration.between(touched, clock.instant()));
    } catch (NoSuchKeyException absent) {
      return Optional.empty();
    } catch (S3Exception e) {
      if (e.statusCode() == 404) {
        return Optional.empty();
      }
      throw e;
    }
  }

  @Override
  public byte[] load(String chunk) {
    if (cache.isPresent()) {
      try {
        Optional<byte[]> kept = cache.get().read(chunk);
        if (kept.isPresent()) {
          var _ = cache.get().touch(chunk);
          return kept.get();
        }
      } catch (FlotillaException damaged) {
        log.warn("chunk {} kept here was damaged; it is read from the store", chunk);
      }
    }
    byte[] content;
    try {
      content =
          client
              .getObjectAsBytes(request -> request.bucket(config.bucket()).key(key(chunk)))
              .asByteArrayUnsafe();
    } catch (SdkException e) {
      throw failure("reading chunk " + chunk, e);
    }
    if (!BlobManifest.sha256(content, content.length).equals(chunk)) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "object " + key(chunk) + " in bucket " + config.bucket() + " is damaged",
          "Put the blob's content again, after deleting that object.");
    }
    keep(chunk, content, content.length);
    return content;
  }

  @Override
  public void touch(Collection<String> chunks) {
    for (String chunk : chunks) {
      unmark(chunk);
      try {
        Duration age =
            age(chunk)
                .orElseThrow(
                    () ->
                        new FlotillaException(
                            Code.UNAVAILABLE,
                            "chunk " + chunk + ", stored before, is not in the store",
                            "Send the content again."));
        if (age.compareTo(freshFor) >= 0) {
          renew(chunk);
        }
      } catch (SdkException e) {
        throw failure("touching chunk " + chunk, e);
      }
    }
  }

  /** A copy onto itself gives an object a new time. */
  private void renew(String chunk) {
    client.copyObject(
        request ->
            request
                .sourceBucket(config.bucket())
                .sourceKey(key(chunk))
                .destinationBucket(config.bucket())
                .destinationKey(key(chunk))
                .metadata(java.util.Map.of("touched", clock.instant().toString()))
                .metadataDirective(MetadataDirective.REPLACE));
  }

  /** Marks what nothing mentions and nobody touched for the delay; deletes what was marked. */
  void collect(Set<String> live, Duration delay) {
    try {
      for (S3Object object :
          client
              .listObjectsV2Paginator(
                  request -> request.bucket(config.bucket()).prefix(config.prefix()))
              .contents()) {
        String chunk = object.key().substring(object.key().lastIndexOf('/') + 1);
        if (chunk.length() == 64
            && !live.contains(chunk)
            && object.lastModified().isBefore(clock.instant().minus(delay))) {
          collect(chunk, delay);
        }
      }
    } catch (SdkException e) {
      throw failure("collecting chunks", e);
    }
  }

  private void collect(String chunk, Duration delay) {
    grid.ensureCache(MARKS);
    boolean deleted =
        grid.transact(
            "collecting a chunk",
            TransactionMode.PESSIMISTIC,
            ignite -> {
              Long marked = marks(ignite).get(chunk);
              if (marked == null) {
                marks(ignite).put(chunk, clock.millis());
                return false;
              }
              if (clock.millis() - marked < grace.toMillis()) {
                return false;
              }
              marks(ignite).remove(chunk);
              if (age(chunk).filter(age -> age.compareTo(delay) > 0).isEmpty()) {
                return false;
              }
              client.deleteObject(request -> request.bucket(config.bucket()).key(key(chunk)));
              return true;
            });
    if (deleted) {
      log.info("chunk {} that nothing mentions is deleted from the store", chunk);
    }
  }

  private FlotillaException failure(String what, SdkException e) {
    boolean full =
        e instanceof S3Exception known && (known.statusCode() == 507 || known.statusCode() == 413);
    return new FlotillaException(
        full ? Code.STORAGE : Code.UNAVAILABLE,
        what + " in bucket " + config.bucket() + " of the object store failed: " + e.getMessage(),
        "Check FLOTILLA_S3_ENDPOINT, _BUCKET and the keys, and that the store answers.",
        e);
  }

  @Override
  public void close() {
    client.close();
  }
}
