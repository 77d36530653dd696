package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.blobs.Blobs.Quota;
import dev.flotilla.data.blobs.Blobs.Reference;
import dev.flotilla.data.grid.Combiner;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.Grid.TransactionMode;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.BiConsumer;
import java.util.function.BiFunction;
import java.util.function.Function;
import javax.cache.Cache;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.apache.ignite.cache.query.ScanQuery;

/**
 * What is known of blobs, in the data grid: manifests, how many references each has, the references
 * themselves, what each bucket may and holds, uploads.
 *
 * <p>A reference is made or moved in one transaction with the counts that depend on it, so that no
 * blob is collected while something refers to it and no bucket is over its quota. Rows are locked
 * in one order: fence, buckets, references, blobs, each kind by name.
 *
 * <p>What a put writes (the blob, its content or manifest, its digest's reference and the figures
 * that count it) lies in one partition, so that one node decides and each copy is forced to disk
 * once; and puts that come at once share a transaction. A transaction costs two forced writes on
 * each copy, however much is in it.
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

  /**
   * Rows that belong together are in one of so many parts, by digest or name. A bucket without a
   * quota keeps its figures in a row per part, so that puts need not wait for each other.
   */
  private static final int PARTS = 64;

  private static final int KEPT_AT_ONCE = 64;

  private static final String ROWS = "flotilla.blob.rows";
  private static final String CONTENTS = "flotilla.blob.contents";

  // Kinds of rows, in the order in which they are locked.
  private static final char BUCKET = '1';
  private static final char REFERENCE = '2';
  private static final char BLOB = '3';
  private static final char UPLOAD = '4';

  private static final Comparator<AffinityKey<String>> ORDER =
      Comparator.comparing(AffinityKey::key);

  /** A blob to be kept under its digest. */
  private record Keep(String digest, BlobManifest manifest, String bucket) {}

  private final Grid grid;
  private final Fences fences;
  private final InstantSource clock;
  private final Combiner<Keep, Reference> puts =
      new Combiner<>(KEPT_AT_ONCE, one -> 1, this::keepAll, this::keepAll);

  BlobCatalog(Grid grid, Fences fences, InstantSource clock) {
    this.grid = grid;
    this.fences = fences;
    this.clock = clock;
  }

  private IgniteCache<AffinityKey<String>, byte[]> cache(Ignite ignite, String name) {
    return grid.cache(ignite, name);
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
    for (String name : List.of(ROWS, CONTENTS)) {
      cache(ignite, name);
    }
  }

  private <T> Optional<T> row(Ignite ignite, AffinityKey<String> key, Class<T> type) {
    byte[] value = cache(ignite, ROWS).get(key);
    return value == null ? Optional.empty() : Optional.of(Json.read(value, type));
  }

  private static AffinityKey<String> key(char kind, String name, int part) {
    return new AffinityKey<>(kind + name, part);
  }

  private static int part(String name) {
    return Math.floorMod(name.hashCode(), PARTS);
  }

  /** Of a name in a bucket; a digest's is where the blob is. */
  private static int partOf(String name) {
    return part(
        name.startsWith(BlobManifest.PREFIX) ? name.substring(BlobManifest.PREFIX.length()) : name);
  }

  private static AffinityKey<String> blobKey(String digest) {
    return key(BLOB, digest, part(digest));
  }

  private static AffinityKey<String> contentKey(String digest) {
    return new AffinityKey<>(digest, part(digest));
  }

  private static AffinityKey<String> referenceKey(String bucket, String name) {
    return key(REFERENCE, path(bucket, name), partOf(name));
  }

  private static AffinityKey<String> uploadKey(String id) {
    return key(UPLOAD, id, part(id));
  }

  private static AffinityKey<String> bucketKey(String bucket) {
    return key(BUCKET, bucket, part(bucket));
  }

  /** The rows that a transaction has locked, and what it makes of them. */
  private final class Rows {
    private final IgniteCache<AffinityKey<String>, byte[]> cache;
    private final Map<AffinityKey<String>, Optional<byte[]>> known = new HashMap<>();
    private final TreeMap<AffinityKey<String>, byte[]> puts = new TreeMap<>(ORDER);
    private final TreeSet<AffinityKey<String>> removals = new TreeSet<>(ORDER);

    Rows(Ignite ignite) {
      this.cache = cache(ignite, ROWS);
    }

    /** Locks and reads what is not locked yet, all at once. */
    void lock(Collection<AffinityKey<String>> keys) {
      TreeSet<AffinityKey<String>> missing = new TreeSet<>(ORDER);
      keys.stream().filter(key -> !known.containsKey(key)).forEach(missing::add);
      if (!missing.isEmpty()) {
        Map<AffinityKey<String>, byte[]> found = cache.getAll(missing);
        missing.forEach(key -> known.put(key, Optional.ofNullable(found.get(key))));
      }
    }

    <T> Optional<T> get(AffinityKey<String> key, Class<T> type) {
      lock(List.of(key));
      return known.getOrDefault(key, Optional.empty()).map(value -> Json.read(value, type));
    }

    void put(AffinityKey<String> key, Object row) {
      byte[] value = Json.write(row);
      known.put(key, Optional.of(value));
      puts.put(key, value);
      removals.remove(key);
    }

    void remove(AffinityKey<String> key) {
      known.put(key, Optional.empty());
      puts.remove(key);
      removals.add(key);
    }

    void write() {
      if (!puts.isEmpty()) {
        cache.putAll(puts);
      }
      if (!removals.isEmpty()) {
        cache.removeAll(removals);
      }
    }
  }

  private <T> T change(String what, BiFunction<Ignite, Rows, T> operation) {
    return transact(
        what,
        ignite -> {
          Rows rows = new Rows(ignite);
          T result = operation.apply(ignite, rows);
          rows.write();
          return result;
        });
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
    return grid.read("reading a quota", ignite -> row(ignite, bucketKey(bucket), BucketRow.class))
        .filter(row -> row.bytesMax() < Long.MAX_VALUE || row.countMax() < Long.MAX_VALUE)
        .isPresent();
  }

  /**
   * The row that counts a name: the bucket's own where a quota is to be kept, which one transaction
   * after the other must look at; else one of several. The figures are the sum of all of them, so
   * it does not matter which one counted.
   */
  private static AffinityKey<String> account(String bucket, String name, boolean bounded) {
    return bounded ? bucketKey(bucket) : accountKey(bucket, partOf(name));
  }

  private static AffinityKey<String> accountKey(String bucket, int part) {
    return key(BUCKET, bucket + "#" + part, part);
  }

  /** All rows that count a bucket. */
  private static Set<AffinityKey<String>> accounts(String bucket) {
    TreeSet<AffinityKey<String>> all = new TreeSet<>(ORDER);
    all.add(bucketKey(bucket));
    for (int part = 0; part < PARTS; part++) {
      all.add(accountKey(bucket, part));
    }
    return all;
  }

  /** A bucket's bounds and the sum of its figures. */
  private BucketRow total(Ignite ignite, String bucket) {
    Map<AffinityKey<String>, byte[]> found = cache(ignite, ROWS).getAll(accounts(bucket));
    return total(
        bucket,
        key -> Optional.ofNullable(found.get(key)).map(row -> Json.read(row, BucketRow.class)));
  }

  private static BucketRow total(Rows rows, String bucket) {
    rows.lock(accounts(bucket));
    return total(bucket, key -> rows.get(key, BucketRow.class));
  }

  private static BucketRow total(
      String bucket, Function<AffinityKey<String>, Optional<BucketRow>> rows) {
    BucketRow total = rows.apply(bucketKey(bucket)).orElse(BucketRow.NEW);
    for (int part = 0; part < PARTS; part++) {
      BucketRow one = rows.apply(accountKey(bucket, part)).orElse(BucketRow.NEW);
      total = total.plus(one.bytes(), one.count());
    }
    return total;
  }

  private static String path(String bucket, String name) {
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
            Optional.ofNullable(cache(ignite, CONTENTS).get(contentKey(digest)))
                .map(BlobManifest::decode));
  }

  /** Makes a blob known and refers to it by its digest, all or nothing. */
  Reference keep(String digest, BlobManifest manifest, String bucket) {
    Keep one = new Keep(digest, manifest, bucket);
    // A transaction of the caller's is not others' business.
    return (grid.inTransaction() ? keepAll(List.of(one)) : puts.submit(List.of(one))).getFirst();
  }

  private List<Reference> keepAll(List<Keep> all) {
    Map<String, Boolean> bounded = new HashMap<>();
    all.forEach(one -> bounded.computeIfAbsent(one.bucket, this::bounded));
    return change(
        "keeping blobs",
        (ignite, rows) -> {
          Set<AffinityKey<String>> touched = new HashSet<>();
          for (Keep one : all) {
            boolean limited = bounded.getOrDefault(one.bucket, false);
            String name = BlobManifest.PREFIX + one.digest;
            touched.addAll(
                limited ? accounts(one.bucket) : Set.of(account(one.bucket, name, false)));
            touched.add(referenceKey(one.bucket, name));
            touched.add(blobKey(one.digest));
          }
          rows.lock(touched);
          Contents contents = new Contents(ignite);
          List<Reference> made = new ArrayList<>();
          for (Keep one : all) {
            made.add(
                refer(
                    rows,
                    contents,
                    one.bucket,
                    BlobManifest.PREFIX + one.digest,
                    one.digest,
                    Optional.of(one.manifest),
                    Optional.empty(),
                    bounded.getOrDefault(one.bucket, false)));
          }
          contents.write();
          return made;
        });
  }

  /** New manifests and small contents, written together. */
  private final class Contents {
    private final IgniteCache<AffinityKey<String>, byte[]> cache;
    private final TreeMap<AffinityKey<String>, byte[]> puts = new TreeMap<>(ORDER);

    Contents(Ignite ignite) {
      this.cache = cache(ignite, CONTENTS);
    }

    void put(String digest, BlobManifest manifest) {
      puts.put(contentKey(digest), manifest.encode());
    }

    void write() {
      if (!puts.isEmpty()) {
        cache.putAll(puts);
      }
    }
  }

  /** Makes a blob of an upload. */
  Reference complete(String digest, BlobManifest manifest, String bucket, String upload) {
    boolean bounded = bounded(bucket);
    return change(
        "completing an upload to bucket " + bucket,
        (ignite, rows) -> {
          Contents contents = new Contents(ignite);
          Reference made =
              refer(
                  rows,
                  contents,
                  bucket,
                  BlobManifest.PREFIX + digest,
                  digest,
                  Optional.of(manifest),
                  Optional.empty(),
                  bounded);
          contents.write();
          rows.get(uploadKey(upload), UploadRow.class)
              .ifPresent(
                  row ->
                      rows.put(
                          uploadKey(upload),
                          new UploadRow(
                              row.bucket(),
                              row.offset(),
                              row.chunkBytes(),
                              new byte[0],
                              row.createdAtMs(),
                              clock.millis(),
                              Optional.of(digest))));
          return made;
        });
  }

  /** Makes a name refer to a blob that is known. */
  Reference name(
      String bucket, String name, String digest, Optional<Long> version, Optional<Fence> fence) {
    boolean bounded = bounded(bucket);
    return change(
        "naming " + name + " in bucket " + bucket,
        (ignite, rows) -> {
          fences.check(ignite, "blob " + path(bucket, name), fence);
          return refer(
              rows, new Contents(ignite), bucket, name, digest, Optional.empty(), version, bounded);
        });
  }

  private Reference refer(
      Rows rows,
      Contents contents,
      String bucket,
      String name,
      String digest,
      Optional<BlobManifest> manifest,
      Optional<Long> version,
      boolean bounded) {
    AffinityKey<String> account = account(bucket, name, bounded);
    AffinityKey<String> reference = referenceKey(bucket, name);
    BucketRow row = bounded ? total(rows, bucket) : BucketRow.NEW;
    rows.lock(List.of(account, reference));
    BucketRow counted = rows.get(account, BucketRow.class).orElse(BucketRow.NEW);
    Optional<ReferenceRow> before = rows.get(reference, ReferenceRow.class);
    long current = before.map(ReferenceRow::version).orElse(0L);
    if (version.isPresent() && version.get() != current) {
      throw new FlotillaException(
          Code.CONFLICT,
          name + " in bucket " + bucket + " has version " + current + ", not " + version.get(),
          "Look at it again; nothing was changed.");
    }
    TreeSet<String> touched = new TreeSet<>(Set.of(digest));
    before.ifPresent(old -> touched.add(old.digest()));
    rows.lock(touched.stream().map(BlobCatalog::blobKey).toList());
    BlobRow blob = null;
    for (String each : touched) {
      Optional<BlobRow> found = rows.get(blobKey(each), BlobRow.class);
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
        contents.put(digest, manifest.orElseThrow());
        found = Optional.of(known);
      }
      if (found.isPresent()) {
        boolean isOld = before.isPresent() && before.get().digest().equals(each);
        long change = (target ? 1L : 0L) - (isOld ? 1L : 0L);
        BlobRow changed =
            new BlobRow(found.get().size(), found.get().references() + change, clock.millis());
        rows.put(blobKey(each), changed);
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
    rows.put(account, counted.plus(moreBytes, moreCount));
    ReferenceRow made = new ReferenceRow(digest, blob.size(), current + 1, clock.millis());
    rows.put(reference, made);
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
              return row(ignite, bucketKey(bucket), BucketRow.class);
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
            row(ignite, referenceKey(bucket, name), ReferenceRow.class)
                .map(row -> reference(bucket, name, row)));
  }

  List<Reference> list(String bucket, String prefix, String after, int limit) {
    String start = REFERENCE + path(bucket, prefix);
    // Not more than are asked for, of however many there are.
    TreeMap<String, Reference> found = new TreeMap<>();
    grid.read(
        "listing bucket " + bucket,
        ignite -> {
          found.clear();
          scan(
              ignite,
              ROWS,
              (key, value) -> {
                if (key.startsWith(start)) {
                  String name = key.substring(bucket.length() + 2);
                  boolean first =
                      found.size() < limit || (limit > 0 && name.compareTo(found.lastKey()) < 0);
                  if (first && name.compareTo(after) > 0) {
                    found.put(name, reference(bucket, name, Json.read(value, ReferenceRow.class)));
                    if (found.size() > limit) {
                      found.pollLastEntry();
                    }
                  }
                }
              });
          return true;
        });
    return List.copyOf(found.values());
  }

  private void scan(Ignite ignite, String cache, BiConsumer<String, byte[]> each) {
    try (var cursor = cache(ignite, cache).query(new ScanQuery<AffinityKey<String>, byte[]>())) {
      for (Cache.Entry<AffinityKey<String>, byte[]> entry : cursor) {
        each.accept(entry.getKey().key(), entry.getValue());
      }
    }
  }

  boolean remove(String bucket, String name, Optional<Fence> fence) {
    boolean bounded = bounded(bucket);
    return change(
        "removing " + name + " from bucket " + bucket,
        (ignite, rows) -> {
          fences.check(ignite, "blob " + path(bucket, name), fence);
          AffinityKey<String> account = account(bucket, name, bounded);
          AffinityKey<String> reference = referenceKey(bucket, name);
          rows.lock(List.of(account, reference));
          Optional<ReferenceRow> before = rows.get(reference, ReferenceRow.class);
          before.ifPresent(
              old -> {
                rows.get(blobKey(old.digest()), BlobRow.class)
                    .ifPresent(
                        blob ->
                            rows.put(
                                blobKey(old.digest()),
                                new BlobRow(blob.size(), blob.references() - 1, clock.millis())));
                BucketRow row = rows.get(account, BucketRow.class).orElse(BucketRow.NEW);
                rows.put(account, row.plus(-old.size(), -1));
                rows.remove(reference);
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
    return change(
        "setting a quota",
        (ignite, rows) -> {
          rows.lock(accounts(bucket));
          BucketRow row = rows.get(bucketKey(bucket), BucketRow.class).orElse(BucketRow.NEW);
          rows.put(bucketKey(bucket), new BucketRow(row.bytes(), row.count(), bytesMax, countMax));
          return quota(bucket, total(rows, bucket));
        });
  }

  Optional<UploadRow> upload(String id) {
    return grid.read("reading an upload", ignite -> row(ignite, uploadKey(id), UploadRow.class));
  }

  /** Makes an upload, or moves it on if it still stands where the caller saw it. */
  void save(String id, Optional<UploadRow> seen, UploadRow row) {
    var _ =
        change(
            "saving an upload",
            (ignite, rows) -> {
              Optional<UploadRow> now = rows.get(uploadKey(id), UploadRow.class);
              if (!now.map(UploadRow::offset).equals(seen.map(UploadRow::offset))
                  || now.flatMap(UploadRow::digest).isPresent()) {
                throw new FlotillaException(
                    Code.CONFLICT,
                    "upload " + id + " was moved on by another at the same time",
                    "Ask where it is, and go on from there.");
              }
              rows.put(uploadKey(id), row);
              return true;
            });
  }

  void abandon(String id) {
    var _ = transact("forgetting an upload", ignite -> cache(ignite, ROWS).remove(uploadKey(id)));
  }

  /** Forgets blobs that nothing referred to since then, and uploads without progress since then. */
  int forget(long blobsBeforeMs, long uploadsBeforeMs) {
    List<String> blobs = new ArrayList<>();
    List<String> uploads = new ArrayList<>();
    var _ =
        grid.read(
            "looking for blobs to collect",
            ignite -> {
              blobs.clear();
              uploads.clear();
              scan(
                  ignite,
                  ROWS,
                  (key, value) -> {
                    String name = key.substring(1);
                    if (key.charAt(0) == BLOB
                        && unused(Json.read(value, BlobRow.class), blobsBeforeMs)) {
                      blobs.add(name);
                    }
                    if (key.charAt(0) == UPLOAD
                        && Json.read(value, UploadRow.class).touchedAtMs() < uploadsBeforeMs) {
                      uploads.add(name);
                    }
                  });
              return true;
            });
    for (String digest : blobs) {
      var _ =
          transact(
              "collecting a blob",
              ignite -> {
                // It may have been referred to since the look.
                if (row(ignite, blobKey(digest), BlobRow.class)
                    .filter(row -> unused(row, blobsBeforeMs))
                    .isPresent()) {
                  var _ = cache(ignite, ROWS).remove(blobKey(digest));
                  var _ = cache(ignite, CONTENTS).remove(contentKey(digest));
                }
                return true;
              });
    }
    for (String id : uploads) {
      var _ =
          transact(
              "forgetting an upload",
              ignite ->
                  row(ignite, uploadKey(id), UploadRow.class)
                          .filter(row -> row.touchedAtMs() < uploadsBeforeMs)
                          .isPresent()
                      && cache(ignite, ROWS).remove(uploadKey(id)));
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
              long before = (long) size(ignite, CONTENTS) + size(ignite, ROWS);
              long[] seen = new long[1];
              scan(
                  ignite,
                  CONTENTS,
                  (digest, value) -> {
                    seen[0]++;
                    live.addAll(BlobManifest.decode(value).chunks());
                  });
              scan(
                  ignite,
                  ROWS,
                  (key, value) -> {
                    seen[0]++;
                    if (key.charAt(0) == UPLOAD) {
                      live.addAll(Json.read(value, UploadRow.class).list());
                    }
                  });
              long after = (long) size(ignite, CONTENTS) + size(ignite, ROWS);
              return before == seen[0]
                  && after == seen[0]
                  && ignite.cluster().topologyVersion() == topology;
            });
    return whole ? Optional.of(live) : Optional.empty();
  }

  private int size(Ignite ignite, String cache) {
    return cache(ignite, cache).size(CachePeekMode.PRIMARY);
  }
}
