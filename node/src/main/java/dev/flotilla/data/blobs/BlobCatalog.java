package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.blobs.Blobs.Quota;
import dev.flotilla.data.blobs.Blobs.Reference;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.Grid.TransactionMode;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.BiConsumer;
import java.util.function.Function;
import javax.cache.Cache;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.cache.query.ScanQuery;

/**
 * What is known of blobs, in the data grid: manifests, how many references each has, the references
 * themselves, what each bucket may and holds, uploads.
 *
 * <p>A reference is made or moved in one transaction with the counts that depend on it, so that no
 * blob is collected while something refers to it and no bucket is over its quota. Rows are locked
 * in one order: fence, bucket, reference, blobs by digest.
 */
final class BlobCatalog {

  /** How a blob stands: collected when nothing refers to it for long. */
  private record BlobRow(long size, long references, long touchedAtMs) {}

  private record ReferenceRow(String digest, long size, long version, long updatedAtMs) {}

  private record BucketRow(long bytes, long count, long bytesMax, long countMax) {
    static final BucketRow NEW = new BucketRow(0, 0, Long.MAX_VALUE, Long.MAX_VALUE);

    BucketRow plus(long moreBytes, long moreCount) {
      return new BucketRow(bytes + moreBytes, count + moreCount, bytesMax, countMax);
    }
  }

  /**
   * An upload.
   *
   * @param chunks their digests, run together; the last one is short while the offset lies inside
   *     it
   * @param digest of the blob it became, or empty
   */
  record UploadRow(
      String bucket,
      long offset,
      int chunkBytes,
      byte[] chunks,
      long createdAtMs,
      long touchedAtMs,
      Optional<String> digest) {

    List<String> list() {
      List<String> list = new ArrayList<>();
      for (int i = 0; i < chunks.length; i += 32) {
        list.add(HexFormat.of().formatHex(chunks, i, i + 32));
      }
      return list;
    }

    static byte[] join(List<String> chunks) {
      return HexFormat.of().parseHex(String.join("", chunks));
    }
  }

  /** A bucket without a quota keeps its figures in so many rows, so that puts need not wait. */
  private static final int PARTS = 16;

  private static final String MANIFESTS = "flotilla.blob.manifests";
  private static final String BLOBS = "flotilla.blob.blobs";
  private static final String REFERENCES = "flotilla.blob.references";
  private static final String BUCKETS = "flotilla.blob.buckets";
  private static final String UPLOADS = "flotilla.blob.uploads";

  private final Grid grid;
  private final Fences fences;
  private final InstantSource clock;

  BlobCatalog(Grid grid, Fences fences, InstantSource clock) {
    this.grid = grid;
    this.fences = fences;
    this.clock = clock;
  }

  private <V> IgniteCache<String, V> cache(Ignite ignite, String name) {
    IgniteCache<String, V> there = ignite.cache(name);
    return there == null
        ? ignite.getOrCreateCache(
            grid.<String, V>cacheConfig(name, CacheAtomicityMode.TRANSACTIONAL))
        : there;
  }

  /** Makes the tables where they are not there yet: a transaction cannot. */
  void start() {
    grid.read(
        "looking for the tables of blobs",
        ignite -> {
          prepare(ignite);
          return true;
        });
  }

  private void prepare(Ignite ignite) {
    for (String name : List.of(MANIFESTS, BLOBS, REFERENCES, BUCKETS, UPLOADS)) {
      cache(ignite, name);
    }
  }

  private <T> Optional<T> row(Ignite ignite, String cache, String key, Class<T> type) {
    byte[] value = this.<byte[]>cache(ignite, cache).get(key);
    return value == null ? Optional.empty() : Optional.of(Json.read(value, type));
  }

  private void put(Ignite ignite, String cache, String key, Object row) {
    this.<byte[]>cache(ignite, cache).put(key, Json.write(row));
  }

  private <T> T transact(String what, Function<Ignite, T> operation) {
    grid.read(
        what,
        ignite -> {
          prepare(ignite);
          return true;
        });
    return grid.transact(what, TransactionMode.PESSIMISTIC, operation);
  }

  private boolean bounded(String bucket) {
    return grid.read("reading a quota", ignite -> row(ignite, BUCKETS, bucket, BucketRow.class))
        .filter(row -> row.bytesMax() < Long.MAX_VALUE || row.countMax() < Long.MAX_VALUE)
        .isPresent();
  }

  /**
   * The row that counts a name: the bucket's own where a quota is to be kept, which one transaction
   * after the other must look at; else one of several. The figures are the sum of all of them, so
   * it does not matter which one counted.
   */
  private static String account(String bucket, String name, boolean bounded) {
    return bounded ? bucket : bucket + "#" + Math.floorMod(name.hashCode(), PARTS);
  }

  /** A bucket's bounds and the sum of its figures. */
  private BucketRow total(Ignite ignite, String bucket) {
    BucketRow total = row(ignite, BUCKETS, bucket, BucketRow.class).orElse(BucketRow.NEW);
    TreeSet<String> parts = new TreeSet<>();
    for (int part = 0; part < PARTS; part++) {
      parts.add(bucket + "#" + part);
    }
    for (byte[] value : this.<byte[]>cache(ignite, BUCKETS).getAll(parts).values()) {
      BucketRow part = Json.read(value, BucketRow.class);
      total = total.plus(part.bytes(), part.count());
    }
    return total;
  }

  private static String key(String bucket, String name) {
    return bucket + "/" + name;
  }

  private static Reference reference(String bucket, String name, ReferenceRow row) {
    return new Reference(
        bucket,
        name,
        BlobManifest.PREFIX + row.digest(),
        row.size(),
        row.version(),
        row.updatedAtMs());
  }

  /** The manifest of a digest in hexadecimal. */
  Optional<BlobManifest> manifest(String digest) {
    return grid.read(
        "reading a blob's manifest",
        ignite ->
            Optional.ofNullable(this.<byte[]>cache(ignite, MANIFESTS).get(digest))
                .map(BlobManifest::decode));
  }

  /** Makes a blob known and refers to it, all or nothing. */
  Reference keep(String digest, BlobManifest manifest, String bucket, Optional<String> upload) {
    boolean bounded = bounded(bucket);
    return transact(
        "keeping a blob in bucket " + bucket,
        ignite -> {
          Reference made =
              refer(
                  ignite,
                  bucket,
                  BlobManifest.PREFIX + digest,
                  digest,
                  Optional.of(manifest),
                  Optional.empty(),
                  bounded);
          upload.ifPresent(
              id ->
                  row(ignite, UPLOADS, id, UploadRow.class)
                      .ifPresent(
                          row ->
                              put(
                                  ignite,
                                  UPLOADS,
                                  id,
                                  new UploadRow(
                                      row.bucket(),
                                      row.offset(),
                                      row.chunkBytes(),
                                      new byte[0],
                                      row.createdAtMs(),
                                      clock.millis(),
                                      Optional.of(digest)))));
          return made;
        });
  }

  /** Makes a name refer to a blob that is known. */
  Reference name(
      String bucket, String name, String digest, Optional<Long> version, Optional<Fence> fence) {
    boolean bounded = bounded(bucket);
    return transact(
        "naming " + name + " in bucket " + bucket,
        ignite -> {
          fences.check(ignite, "blob " + key(bucket, name), fence);
          return refer(ignite, bucket, name, digest, Optional.empty(), version, bounded);
        });
  }

  private Reference refer(
      Ignite ignite,
      String bucket,
      String name,
      String digest,
      Optional<BlobManifest> manifest,
      Optional<Long> version,
      boolean bounded) {
    String account = account(bucket, name, bounded);
    BucketRow counted = row(ignite, BUCKETS, account, BucketRow.class).orElse(BucketRow.NEW);
    BucketRow row = bounded ? total(ignite, bucket) : counted;
    Optional<ReferenceRow> before = row(ignite, REFERENCES, key(bucket, name), ReferenceRow.class);
    long current = before.map(ReferenceRow::version).orElse(0L);
    if (version.isPresent() && version.get() != current) {
      throw new FlotillaException(
          Code.CONFLICT,
          name + " in bucket " + bucket + " has version " + current + ", not " + version.get(),
          "Look at it again; nothing was changed.");
    }
    TreeSet<String> touched = new TreeSet<>(Set.of(digest));
    before.ifPresent(old -> touched.add(old.digest()));
    BlobRow blob = null;
    for (String each : touched) {
      Optional<BlobRow> found = row(ignite, BLOBS, each, BlobRow.class);
      boolean target = each.equals(digest);
      if (target && found.isEmpty()) {
        found = manifest.map(m -> new BlobRow(m.size(), 0, clock.millis()));
        BlobRow known =
            found.orElseThrow(
                () ->
                    new FlotillaException(
                        Code.NOT_FOUND,
                        "there is no blob " + BlobManifest.PREFIX + digest,
                        "Put its content first."));
        this.<byte[]>cache(ignite, MANIFESTS).put(digest, manifest.orElseThrow().encode());
        found = Optional.of(known);
      }
      if (found.isPresent()) {
        boolean isOld = before.isPresent() && before.get().digest().equals(each);
        long change = (target ? 1L : 0L) - (isOld ? 1L : 0L);
        BlobRow changed =
            new BlobRow(found.get().size(), found.get().references() + change, clock.millis());
        put(ignite, BLOBS, each, changed);
        blob = target ? changed : blob;
      }
    }
    if (blob == null) {
      throw new IllegalStateException("the blob was just put");
    }
    long moreBytes = blob.size() - before.map(ReferenceRow::size).orElse(0L);
    long moreCount = before.isPresent() ? 0 : 1;
    BucketRow after = row.plus(moreBytes, moreCount);
    if ((after.bytes() > row.bytes() && after.bytes() > row.bytesMax())
        || (after.count() > row.count() && after.count() > row.countMax())) {
      throw overQuota(bucket, row, blob.size());
    }
    put(ignite, BUCKETS, account, counted.plus(moreBytes, moreCount));
    ReferenceRow made = new ReferenceRow(digest, blob.size(), current + 1, clock.millis());
    put(ignite, REFERENCES, key(bucket, name), made);
    return reference(bucket, name, made);
  }

  private static FlotillaException overQuota(String bucket, BucketRow row, long size) {
    return new FlotillaException(
        Code.TOO_LARGE,
        "bucket "
            + bucket
            + " holds "
            + row.bytes()
            + bound(row.bytesMax())
            + " bytes in "
            + row.count()
            + bound(row.countMax())
            + " blobs, and "
            + size
            + " bytes more are over its quota",
        "Remove some, or raise the quota.");
  }

  private static String bound(long max) {
    return max == Long.MAX_VALUE ? "" : " of " + max;
  }

  /**
   * Refuses early what cannot fit: a bucket that is full, or more bytes than it may hold at all.
   *
   * @return the most bytes that a blob of this bucket can have
   */
  long room(String bucket) {
    Optional<BucketRow> row =
        grid.read(
            "reading a quota",
            ignite -> {
              prepare(ignite);
              return row(ignite, BUCKETS, bucket, BucketRow.class);
            });
    return row.map(BucketRow::bytesMax).orElse(Long.MAX_VALUE);
  }

  FlotillaException overQuota(String bucket, long size) {
    return overQuota(bucket, grid.read("reading a quota", ignite -> total(ignite, bucket)), size);
  }

  Optional<Reference> reference(String bucket, String name) {
    return grid.read(
        "reading a name",
        ignite ->
            row(ignite, REFERENCES, key(bucket, name), ReferenceRow.class)
                .map(row -> reference(bucket, name, row)));
  }

  List<Reference> list(String bucket, String prefix, String after, int limit) {
    String start = key(bucket, prefix);
    List<Reference> found = new ArrayList<>();
    grid.read(
        "listing bucket " + bucket,
        ignite -> {
          found.clear();
          scan(
              ignite,
              REFERENCES,
              (key, value) -> {
                if (key.startsWith(start)) {
                  String name = key.substring(bucket.length() + 1);
                  if (name.compareTo(after) > 0) {
                    found.add(reference(bucket, name, Json.read(value, ReferenceRow.class)));
                  }
                }
              });
          return true;
        });
    return found.stream().sorted(Comparator.comparing(Reference::name)).limit(limit).toList();
  }

  private void scan(Ignite ignite, String cache, BiConsumer<String, byte[]> each) {
    try (var cursor = this.<byte[]>cache(ignite, cache).query(new ScanQuery<String, byte[]>())) {
      for (Cache.Entry<String, byte[]> entry : cursor) {
        each.accept(entry.getKey(), entry.getValue());
      }
    }
  }

  boolean remove(String bucket, String name, Optional<Fence> fence) {
    boolean bounded = bounded(bucket);
    return transact(
        "removing " + name + " from bucket " + bucket,
        ignite -> {
          fences.check(ignite, "blob " + key(bucket, name), fence);
          String account = account(bucket, name, bounded);
          BucketRow row = row(ignite, BUCKETS, account, BucketRow.class).orElse(BucketRow.NEW);
          Optional<ReferenceRow> before =
              row(ignite, REFERENCES, key(bucket, name), ReferenceRow.class);
          before.ifPresent(
              old -> {
                row(ignite, BLOBS, old.digest(), BlobRow.class)
                    .ifPresent(
                        blob ->
                            put(
                                ignite,
                                BLOBS,
                                old.digest(),
                                new BlobRow(blob.size(), blob.references() - 1, clock.millis())));
                put(ignite, BUCKETS, account, row.plus(-old.size(), -1));
                this.<byte[]>cache(ignite, REFERENCES).remove(key(bucket, name));
              });
          return before.isPresent();
        });
  }

  Quota quota(String bucket) {
    return quota(bucket, grid.read("reading a quota", ignite -> total(ignite, bucket)));
  }

  private static Quota quota(String bucket, BucketRow row) {
    return new Quota(bucket, row.bytes(), row.count(), row.bytesMax(), row.countMax());
  }

  Quota limit(String bucket, long bytesMax, long countMax) {
    return transact(
        "setting a quota",
        ignite -> {
          BucketRow row = row(ignite, BUCKETS, bucket, BucketRow.class).orElse(BucketRow.NEW);
          BucketRow bounded = new BucketRow(row.bytes(), row.count(), bytesMax, countMax);
          put(ignite, BUCKETS, bucket, bounded);
          return quota(bucket, total(ignite, bucket));
        });
  }

  Optional<UploadRow> upload(String id) {
    return grid.read("reading an upload", ignite -> row(ignite, UPLOADS, id, UploadRow.class));
  }

  /** Makes an upload, or moves it on if it still stands where the caller saw it. */
  void save(String id, Optional<UploadRow> seen, UploadRow row) {
    transact(
        "saving an upload",
        ignite -> {
          Optional<UploadRow> now = row(ignite, UPLOADS, id, UploadRow.class);
          if (!now.map(UploadRow::offset).equals(seen.map(UploadRow::offset))
              || now.flatMap(UploadRow::digest).isPresent()) {
            throw new FlotillaException(
                Code.CONFLICT,
                "upload " + id + " was moved on by another at the same time",
                "Ask where it is, and go on from there.");
          }
          put(ignite, UPLOADS, id, row);
          return true;
        });
  }

  void abandon(String id) {
    transact("forgetting an upload", ignite -> this.<byte[]>cache(ignite, UPLOADS).remove(id));
  }

  /** Forgets blobs that nothing referred to since then, and uploads without progress since then. */
  int forget(long blobsBeforeMs, long uploadsBeforeMs) {
    List<String> blobs = new ArrayList<>();
    List<String> uploads = new ArrayList<>();
    grid.read(
        "looking for blobs to collect",
        ignite -> {
          blobs.clear();
          uploads.clear();
          scan(
              ignite,
              BLOBS,
              (digest, value) -> {
                if (unused(Json.read(value, BlobRow.class), blobsBeforeMs)) {
                  blobs.add(digest);
                }
              });
          scan(
              ignite,
              UPLOADS,
              (id, value) -> {
                if (Json.read(value, UploadRow.class).touchedAtMs() < uploadsBeforeMs) {
                  uploads.add(id);
                }
              });
          return true;
        });
    for (String digest : blobs) {
      transact(
          "collecting a blob",
          ignite -> {
            // It may have been referred to since the look.
            if (row(ignite, BLOBS, digest, BlobRow.class)
                .filter(row -> unused(row, blobsBeforeMs))
                .isPresent()) {
              this.<byte[]>cache(ignite, BLOBS).remove(digest);
              this.<byte[]>cache(ignite, MANIFESTS).remove(digest);
            }
            return true;
          });
    }
    for (String id : uploads) {
      transact(
          "forgetting an upload",
          ignite ->
              row(ignite, UPLOADS, id, UploadRow.class)
                      .filter(row -> row.touchedAtMs() < uploadsBeforeMs)
                      .isPresent()
                  && this.<byte[]>cache(ignite, UPLOADS).remove(id));
    }
    return blobs.size();
  }

  private static boolean unused(BlobRow row, long beforeMs) {
    return row.references() <= 0 && row.touchedAtMs() < beforeMs;
  }

  /**
   * All chunks that blobs and uploads mention, or empty if the look may have missed some: the grid
   * was moving its rows meanwhile. What is not mentioned is deleted, so a look must be whole.
   */
  Optional<Set<String>> live() {
    Set<String> live = new HashSet<>();
    boolean whole =
        grid.read(
            "looking for chunks in use",
            ignite -> {
              live.clear();
              long topology = ignite.cluster().topologyVersion();
              long before = (long) size(ignite, MANIFESTS) + size(ignite, UPLOADS);
              long[] seen = new long[1];
              scan(
                  ignite,
                  MANIFESTS,
                  (digest, value) -> {
                    seen[0]++;
                    live.addAll(BlobManifest.decode(value).chunks());
                  });
              scan(
                  ignite,
                  UPLOADS,
                  (id, value) -> {
                    seen[0]++;
                    live.addAll(Json.read(value, UploadRow.class).list());
                  });
              long after = (long) size(ignite, MANIFESTS) + size(ignite, UPLOADS);
              return before == seen[0]
                  && after == seen[0]
                  && ignite.cluster().topologyVersion() == topology;
            });
    return whole ? Optional.of(live) : Optional.empty();
  }

  private int size(Ignite ignite, String cache) {
    return this.<byte[]>cache(ignite, cache).size(CachePeekMode.PRIMARY);
  }
}
