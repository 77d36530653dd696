package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.blobs.BlobCatalog.UploadRow;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.proto.ChunksGrpc;
import dev.flotilla.data.proto.NodeStatus;
import dev.flotilla.data.proto.ScrubRequest;
import dev.flotilla.data.proto.StatusRequest;
import io.grpc.StatusRuntimeException;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.DoubleConsumer;
import java.util.function.LongSupplier;
import java.util.random.RandomGenerator;

/**
 * Blobs whose chunks lie in files on the nodes, or in an object store, and the rest in the grid.
 */
public final class GridBlobs implements Blobs, AutoCloseable {

  static final long BLOB_BYTES_MAX = 256L << 30;

  private static final int PIECE_BYTES = 64 << 10;
  private static final int LIST_MAX = 10_000;

  /** Digests of uploads that this node took from the first byte to this offset. */
  private record Hashed(long offset, MessageDigest digest) {}

  private final Cluster cluster;
  private final BlobConfig config;
  private final InstantSource clock;
  private final LongSupplier nanoTime;
  private final RandomGenerator random;
  private final ExecutorService threads =
      Executors.newThreadPerTaskExecutor(Thread.ofVirtual().name("blob-", 0).factory());
  private final ChunkFiles files;
  private final ReplicatedChunks replicated;
  private final Optional<S3Chunks> objects;
  private final ChunkVault vault;
  private final BlobCatalog catalog;
  private final BlobScrubber scrubber;
  private final BlobKeeper keeper;
  private final ChunkBudget budget;
  private final Map<String, Hashed> hashed =
      new LinkedHashMap<>() {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Hashed> eldest) {
          return size() > 1_000;
        }
      };
  private final Counter bytesWritten;
  private final Counter bytesRead;
  private final Timer puts;

  /** Wires it, and adds its service to the cluster's. */
  public GridBlobs(
      Cluster cluster,
      Grid grid,
      Fences fences,
      Path dataFolder,
      BlobConfig config,
      MeterRegistry metrics,
      InstantSource clock,
      LongSupplier nanoTime,
      RandomGenerator random) {
    this.cluster = cluster;
    this.config = config;
    this.clock = clock;
    this.nanoTime = nanoTime;
    this.random = random;
    Path folder = dataFolder.toAbsolutePath().resolve("data").resolve("blobs");
    files =
        ChunkFiles.on(
            folder, Math.max(config.reserveBytes(), cluster.disk().reserveBytes()), clock);
    replicated = new ReplicatedChunks(cluster, files, config.copies(), threads);
    objects =
        config
            .s3()
            .map(
                store ->
                    new S3Chunks(
                        store,
                        store.cached() ? Optional.of(files) : Optional.empty(),
                        grid,
                        clock,
                        config.collectDelay()));
    vault = objects.isPresent() ? objects.get() : replicated;
    catalog = new BlobCatalog(grid, fences, clock);
    scrubber =
        new BlobScrubber(
            folder.resolve("scrub.json"),
            files::list,
            files::read,
            this::replace,
            config.scrubBytesPerSecond(),
            config.scrubInterval(),
            clock);
    keeper = new BlobKeeper(cluster, catalog, config, objects, threads, clock, nanoTime);
    budget = ChunkBudget.ofHeap(config.chunkBytes());
    cluster.addService(
        new ChunkService(
            files,
            replicated::fetch,
            cluster::registry,
            scrubber,
            this::status,
            keeper::wake,
            config.chunkBytes()));
    cluster.addReconciler(keeper::reconcile);
    bytesWritten =
        Counter.builder("flotilla.blob.bytes.written")
            .description("Bytes of blobs that this node took")
            .register(metrics);
    bytesRead =
        Counter.builder("flotilla.blob.bytes.read")
            .description("Bytes of blobs that this node handed out")
            .register(metrics);
    puts =
        Timer.builder("flotilla.blob.put")
            .description("From the first byte of a blob until it was safe")
            .register(metrics);
    FunctionCounter.builder("flotilla.blob.chunks.damaged", files, ChunkFiles::damaged)
        .description("Chunks found damaged on this node")
        .register(metrics);
    FunctionCounter.builder("flotilla.blob.chunks.repaired", replicated, ReplicatedChunks::repaired)
        .description("Chunks of which this node got a new copy")
        .register(metrics);
  }

  /** After the grid. */
  public void start() {
    files.open();
    catalog.start();
    files.tidy(config.scrubInterval());
    scrubber.start();
    keeper.start();
  }

  /** For tests and operators: look now. */
  void repair() {
    keeper.wake();
  }

  ChunkFiles files() {
    return files;
  }

  /** A damaged one of the nodes' copies is got anew; of a store's, the next read gets it. */
  private void replace(String chunk) {
    if (objects.isPresent()) {
      var _ = objects.get().load(chunk);
    } else {
      replicated.fetch(chunk);
    }
  }

  @Override
  public Blob put(String bucket, InputStream content) {
    BlobNames.bucket(bucket);
    long start = nanoTime.getAsLong();
    long room = Math.min(BLOB_BYTES_MAX, catalog.room(bucket));
    byte[] first = firstBytes(content);
    // What lies in an object store outlives the cluster: small ones too.
    boolean small = objects.isEmpty() && first.length <= smallBytes();
    Blob blob = small ? putSmall(bucket, first, room) : putLarge(bucket, first, content, room);
    bytesWritten.increment((double) blob.size());
    puts.record(nanoTime.getAsLong() - start, TimeUnit.NANOSECONDS);
    return blob;
  }

  private int smallBytes() {
    return BlobManifest.smallBytes(config.chunkBytes());
  }

  /** All of a small content, or enough to see that it is none. */
  private byte[] firstBytes(InputStream content) {
    try {
      return content.readNBytes(smallBytes() + 1);
    } catch (IOException e) {
      throw unreadable(e);
    }
  }

  private static UncheckedIOException unreadable(IOException e) {
    return new UncheckedIOException("the content could not be read to its end", e);
  }

  private Blob putSmall(String bucket, byte[] content, long room) {
    bound(bucket, content.length, room);
    String digest = BlobManifest.sha256(content, content.length);
    var _ = catalog.keep(digest, BlobManifest.of(content, config.chunkBytes()), bucket);
    return new Blob(BlobManifest.PREFIX + digest, content.length);
  }

  private Blob putLarge(String bucket, byte[] first, InputStream content, long room) {
    BlobManifest manifest;
    String digest;
    try (BlobWriter writer = writer(List.of(), true)) {
      writer.write(first, 0, first.length);
      bound(bucket, writer.size(), room);
      byte[] piece = new byte[PIECE_BYTES];
      for (int count = read(content, piece); count >= 0; count = read(content, piece)) {
        writer.write(piece, 0, count);
        bound(bucket, writer.size(), room);
      }
      manifest = new BlobManifest(writer.size(), config.chunkBytes(), writer.flush());
      digest = writer.digest();
    }
    var _ = catalog.keep(digest, manifest, bucket);
    return new Blob(BlobManifest.PREFIX + digest, manifest.size());
  }

  private void bound(String bucket, long size, long room) {
    if (size > BLOB_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "a blob has at most " + BLOB_BYTES_MAX + " bytes",
          "Split the content over several.");
    }
    if (size > room) {
      throw catalog.overQuota(bucket, size);
    }
  }

  private static int read(InputStream content, byte[] piece) {
    try {
      return content.read(piece);
    } catch (IOException e) {
      throw unreadable(e);
    }
  }

  private BlobWriter writer(List<String> kept, boolean digested) {
    return new BlobWriter(
        vault,
        kept,
        config.chunkBytes(),
        threads,
        budget,
        nanoTime,
        config.collectDelay().dividedBy(4),
        digested);
  }

  @Override
  public Optional<Blob> find(String digest) {
    return catalog
        .manifest(BlobManifest.hex(digest))
        .map(manifest -> new Blob(digest, manifest.size()));
  }

  @Override
  public InputStream read(String digest, long offset, long length) {
    BlobManifest manifest = manifest(digest);
    if (offset < 0 || length < 0 || offset > manifest.size()) {
      throw new FlotillaException(
          Code.INVALID,
          "bytes from " + offset + " are not in " + digest + ", which has " + manifest.size(),
          "Ask for bytes that are there.");
    }
    return manifest.content().length > 0
        ? small(digest, manifest.content(), offset, length)
        : reader(manifest, offset, length, bytesRead::increment);
  }

  private InputStream small(String digest, byte[] content, long offset, long length) {
    if (!digest.equals(BlobManifest.PREFIX + BlobManifest.sha256(content, content.length))) {
      throw new FlotillaException(
          Code.BAD_FILE, "blob " + digest + " is damaged in the data grid", "Put it again.");
    }
    int count = (int) Math.min(length, content.length - offset);
    bytesRead.increment(count);
    return new ByteArrayInputStream(content, (int) offset, count);
  }

  private BlobReader reader(
      BlobManifest manifest, long offset, long length, DoubleConsumer handedOut) {
    return new BlobReader(manifest, offset, length, vault::load, threads, budget, handedOut);
  }

  private BlobManifest manifest(String digest) {
    return catalog
        .manifest(BlobManifest.hex(digest))
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND, "there is no blob " + digest, "Put its content first."));
  }

  @Override
  public Reference name(
      String bucket, String name, String digest, Optional<Long> version, Optional<Fence> fence) {
    BlobNames.bucket(bucket);
    BlobNames.name(name);
    return catalog.name(bucket, name, BlobManifest.hex(digest), version, fence);
  }

  @Override
  public Optional<Reference> reference(String bucket, String name) {
    BlobNames.bucket(bucket);
    BlobNames.nameOrDigest(name);
    return catalog.reference(bucket, name);
  }

  @Override
  public List<Reference> list(String bucket, String prefix, String after, int limit) {
    BlobNames.bucket(bucket);
    return catalog.list(bucket, prefix, after, Math.max(0, Math.min(LIST_MAX, limit)));
  }

  @Override
  public boolean remove(String bucket, String name, Optional<Fence> fence) {
    BlobNames.bucket(bucket);
    BlobNames.nameOrDigest(name);
    return catalog.remove(bucket, name, fence);
  }

  @Override
  public Upload startUpload(String bucket) {
    BlobNames.bucket(bucket);
    byte[] bytes = new byte[16];
    random.nextBytes(bytes);
    String id = HexFormat.of().formatHex(bytes);
    UploadRow row =
        new UploadRow(
            bucket,
            0,
            config.chunkBytes(),
            new byte[0],
            clock.millis(),
            clock.millis(),
            Optional.empty());
    catalog.save(id, Optional.empty(), row);
    hash(id, new Hashed(0, BlobManifest.sha256()));
    return upload(id, row);
  }

  private static Upload upload(String id, UploadRow row) {
    return new Upload(id, row.bucket(), row.offset(), row.createdAtMs());
  }

  private UploadRow row(String id) {
    if (!id.matches("[0-9a-f]{32}")) {
      throw new FlotillaException(Code.INVALID, "that is no upload's id", "Begin an upload.");
    }
    return catalog
        .upload(id)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND,
                    "there is no upload " + id,
                    "It was abandoned or rested for too long; begin another."));
  }

  @Override
  public Upload upload(String id) {
    return upload(id, row(id));
  }

  @Override
  public Upload append(String id, long offset, InputStream content) {
    UploadRow row = row(id);
    if (row.digest().isPresent()) {
      throw new FlotillaException(
          Code.CONFLICT, "upload " + id + " is complete", "Begin another for more.");
    }
    if (offset != row.offset()) {
      throw new FlotillaException(
          Code.CONFLICT,
          "upload " + id + " is at offset " + row.offset() + ", not " + offset,
          "Go on from there.");
    }
    return append(id, row, content);
  }

  /**
   * Adds to an upload, and saves where it is every few chunks and at the end, also at a broken one.
   * A short last chunk is taken back and filled up, so that the chunks of a content do not depend
   * on how it came.
   */
  private Upload append(String id, UploadRow from, InputStream content) {
    long room = Math.min(BLOB_BYTES_MAX, catalog.room(from.bucket()));
    Optional<MessageDigest> whole = hashed(id, from.offset());
    List<String> kept = new ArrayList<>(from.list());
    UploadRow saved = from;
    byte[] tail = new byte[0];
    if (from.offset() % from.chunkBytes() != 0) {
      tail = vault.load(kept.removeLast());
    }
    try (BlobWriter writer = writer(kept, false)) {
      writer.write(tail, 0, tail.length);
      byte[] piece = new byte[PIECE_BYTES];
      Optional<RuntimeException> broken = Optional.empty();
      while (true) {
        int count;
        try {
          count = read(content, piece);
        } catch (RuntimeException e) {
          broken = Optional.of(e);
          break;
        }
        if (count < 0) {
          break;
        }
        whole.ifPresent(digest -> digest.update(piece, 0, count));
        writer.write(piece, 0, count);
        bound(from.bucket(), writer.size(), room);
        if (writer.size() - saved.offset() >= saveEvery(from.chunkBytes(), writer.size())) {
          saved = save(id, saved, writer.flushFull());
        }
      }
      long size = writer.size();
      if (size > saved.offset()) {
        saved = save(id, saved, writer.flush(), size);
      }
      UploadRow reached = saved;
      whole.ifPresent(digest -> hash(id, new Hashed(reached.offset(), digest)));
      bytesWritten.increment((double) (size - from.offset()));
      if (broken.isPresent()) {
        throw broken.get();
      }
    }
    return upload(id, saved);
  }

  /** Rarer for longer ones, since each time the whole list is written. */
  private static long saveEvery(int chunkBytes, long size) {
    return Math.max(16L * chunkBytes, size / 16);
  }

  private UploadRow save(String id, UploadRow seen, List<String> full) {
    return save(id, seen, full, (long) full.size() * seen.chunkBytes());
  }

  private UploadRow save(String id, UploadRow seen, List<String> chunks, long offset) {
    UploadRow row =
        new UploadRow(
            seen.bucket(),
            offset,
            seen.chunkBytes(),
            UploadRow.join(chunks),
            seen.createdAtMs(),
            clock.millis(),
            Optional.empty());
    catalog.save(id, Optional.of(seen), row);
    return row;
  }

  private Optional<MessageDigest> hashed(String id, long offset) {
    synchronized (hashed) {
      Hashed known = hashed.remove(id);
      return known != null && known.offset() == offset
          ? Optional.of(known.digest())
          : Optional.empty();
    }
  }

  private void hash(String id, Hashed state) {
    synchronized (hashed) {
      hashed.put(id, state);
    }
  }

  @Override
  public Blob complete(String id, Optional<String> expected) {
    expected.ifPresent(BlobManifest::hex);
    UploadRow row = row(id);
    if (row.digest().isPresent()) {
      Blob before = new Blob(BlobManifest.PREFIX + row.digest().get(), row.offset());
      return matching(id, before, expected);
    }
    BlobManifest manifest = new BlobManifest(row.offset(), row.chunkBytes(), row.list());
    vault.touch(manifest.chunks());
    Optional<MessageDigest> known = hashed(id, row.offset());
    String digest =
        known
            .map(whole -> HexFormat.of().formatHex(whole.digest()))
            .orElseGet(() -> digest(manifest));
    Blob blob = new Blob(BlobManifest.PREFIX + digest, manifest.size());
    var _ = matching(id, blob, expected);
    var _ = catalog.complete(digest, manifest, row.bucket(), id);
    return blob;
  }

  private static Blob matching(String id, Blob blob, Optional<String> expected) {
    if (expected.isPresent() && !expected.get().equals(blob.digest())) {
      throw new FlotillaException(
          Code.INVALID,
          "the content of upload "
              + id
              + " has digest "
              + blob.digest()
              + ", not "
              + expected.get(),
          "Abandon it and send the content again.");
    }
    return blob;
  }

  /** Reads it all: the upload came in part through another node, or before a restart. */
  private String digest(BlobManifest manifest) {
    MessageDigest whole = BlobManifest.sha256();
    byte[] piece = new byte[PIECE_BYTES];
    try (BlobReader reader = reader(manifest, 0, manifest.size(), bytes -> {})) {
      for (int count = reader.read(piece, 0, piece.length);
          count >= 0;
          count = reader.read(piece, 0, piece.length)) {
        whole.update(piece, 0, count);
      }
    }
    return HexFormat.of().formatHex(whole.digest());
  }

  @Override
  public void abandon(String id) {
    var _ = row(id);
    catalog.abandon(id);
  }

  @Override
  public Quota quota(String bucket) {
    BlobNames.bucket(bucket);
    return catalog.quota(bucket);
  }

  @Override
  public Quota limit(String bucket, long bytesMax, long countMax) {
    BlobNames.bucket(bucket);
    if (bytesMax < 0 || countMax < 0) {
      throw new FlotillaException(
          Code.INVALID, "a quota of less than nothing", "Give figures from 0 on.");
    }
    return catalog.limit(bucket, bytesMax, countMax);
  }

  private NodeStatus status() {
    List<String> chunks = files.list();
    return NodeStatus.newBuilder()
        .setChunks(chunks.size())
        .setBytes(files.bytes())
        .setFreeBytes(Math.max(0, files.usableBytes() - config.reserveBytes()))
        .setDamaged(files.damaged())
        .setRepaired(replicated.repaired())
        .setScrubbed(scrubber.scrubbed())
        .setScrubbing(scrubber.running())
        .setScrubFinishedAtMs(scrubber.finishedAtMs())
        .build();
  }

  @Override
  public List<NodeState> scrub() {
    return each(stub -> stub.scrub(ScrubRequest.getDefaultInstance()));
  }

  /** How many chunks of blobs are on no node that answers but this one. */
  public long chunksOnlyOn(String nodeId) {
    return keeper.onlyOn(nodeId);
  }

  @Override
  public List<NodeState> nodes() {
    return each(stub -> stub.status(StatusRequest.getDefaultInstance()));
  }

  private List<NodeState> each(
      java.util.function.Function<ChunksGrpc.ChunksBlockingStub, NodeStatus> call) {
    List<Future<NodeState>> asked = new ArrayList<>();
    for (NodeInfo node : cluster.nodes()) {
      asked.add(
          threads.submit(
              () -> {
                try {
                  NodeStatus status =
                      Objects.requireNonNull(
                          call.apply(
                              ChunksGrpc.newBlockingStub(cluster.channel(node.id()))
                                  .withDeadlineAfter(
                                      ReplicatedChunks.CALL_SECONDS, TimeUnit.SECONDS)));
                  return new NodeState(
                      node.id(),
                      true,
                      status.getChunks(),
                      status.getBytes(),
                      status.getFreeBytes(),
                      status.getDamaged(),
                      status.getRepaired(),
                      status.getScrubbed(),
                      status.getScrubbing(),
                      status.getScrubFinishedAtMs());
                } catch (StatusRuntimeException | FlotillaException e) {
                  return new NodeState(node.id(), false, 0, 0, 0, 0, 0, 0, false, 0);
                }
              }));
    }
    return asked.stream().map(BlobReader::result).toList();
  }

  @Override
  public void close() {
    keeper.close();
    scrubber.close();
    threads.shutdownNow();
    objects.ifPresent(S3Chunks::close);
  }
}
