package dev.flotilla.serve;

import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.GgufHeader;
import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.model.TensorFiles;
import dev.flotilla.model.TensorShare;
import dev.flotilla.model.TensorSource;
import dev.flotilla.plan.Footprint;
import dev.flotilla.serve.Manifest.TensorPart;
import dev.flotilla.serve.proto.ModelsGrpc;
import dev.flotilla.serve.proto.ReadReply;
import dev.flotilla.serve.proto.ReadRequest;
import io.grpc.BindableService;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongConsumer;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The models on this node, under {@code data/models/DIGEST/}: the whole file ({@code model.gguf}),
 * or its header and the tensors that this node's stages needed. Names live in the registry only; on
 * disk everything is named by what it hashes to, and nothing has its name before it was verified.
 *
 * <p>Two nodes keep the whole file, so that losing one does not lose the model: a node that finds
 * itself next in the model's own order of the nodes fetches it in the background and adds itself to
 * the holders.
 */
public final class ModelStore implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(ModelStore.class);
  private static final Pattern DIGEST = Pattern.compile("[0-9a-f]{64}");
  private static final String WHOLE = "model.gguf";
  private static final String PARTS = "parts";
  private static final String MANIFEST = "manifest.json";
  private static final String INCOMING = "incoming-";
  private static final int CHUNK_BYTES = 1 << 20;
  private static final int COPIES = 2;
  private static final long CALL_SECONDS = 10;

  private final Cluster cluster;
  private final Path folder;
  private final int threads;
  private final InstantSource clock;
  private final Map<String, GgufHeader> headers = new ConcurrentHashMap<>();

  /** Files that are on their way into the registry, which the sweep spares. */
  private final Set<String> arriving = ConcurrentHashMap.newKeySet();

  private final Map<Path, ReentrantLock> fetching = new ConcurrentHashMap<>();
  private final Semaphore changed = new Semaphore(0);
  private volatile boolean closed;
  private @Nullable Thread thread;
  private @Nullable AutoCloseable subscription;

  /**
   * @param threads that each loaded slice computes with
   */
  ModelStore(Cluster cluster, Path dataFolder, int threads, InstantSource clock) {
    this.cluster = cluster;
    this.folder = dataFolder.resolve("data").resolve("models");
    this.threads = threads;
    this.clock = clock;
  }

  BindableService service() {
    return new ReadService();
  }

  void start() {
    try {
      Files.createDirectories(folder);
    } catch (IOException e) {
      throw DurableFiles.failure("cannot create " + folder, e);
    }
    for (String name : entries()) {
      if (name.startsWith(INCOMING)) {
        DurableFiles.deleteFolder(folder.resolve(name));
      }
    }
    subscription = cluster.registry().subscribe(changed::release);
    thread = Thread.ofPlatform().name("model-copies").daemon().start(this::loop);
  }

  @Override
  public void close() {
    closed = true;
    Closing.unsubscribe(subscription);
    changed.release();
    Closing.join(thread);
  }

  // Adding and removing.

  /** Whether this node has any part of any model on its disk. */
  public boolean hasFiles() {
    return Files.isDirectory(folder) && !entries().isEmpty();
  }

  /**
   * Copies a GGUF file into the cluster under a name. It is checked completely first; when this
   * returns, the copy is on this node's disk and the registry knows it.
   *
   * @throws FlotillaException {@code BAD_FILE} if it is not a whole GGUF file of a known model,
   *     {@code CONFLICT} if the name is taken by another file
   */
  public Deployments.ModelView add(String name, Path gguf) {
    ModelRecord.checkedName(name);
    Path incoming = folder.resolve(INCOMING + UUID.randomUUID());
    String digest = "";
    try {
      GgufHeader header = GgufHeader.read(gguf);
      ModelConfig config = header.modelConfig();
      Files.createDirectories(incoming);
      Imported imported = copy(gguf, incoming.resolve(WHOLE), header);
      if (!sameTensors(GgufHeader.read(incoming.resolve(WHOLE)), header)) {
        throw new FlotillaException(
            FlotillaException.Code.BAD_FILE,
            gguf + " changed while it was read",
            "Add it again when nothing writes to it.");
      }
      byte[] manifest = Json.write(imported.manifest());
      DurableFiles.write(incoming.resolve(MANIFEST), manifest);
      digest = imported.digest();
      arriving.add(digest);
      move(incoming, digest);
      return register(record(name, imported, manifest, header, config));
    } catch (IOException e) {
      throw DurableFiles.failure("cannot add " + gguf, e);
    } finally {
      arriving.remove(digest);
      DurableFiles.deleteFolder(incoming);
    }
  }

  private static boolean sameTensors(GgufHeader one, GgufHeader other) {
    return one.tensors().equals(other.tensors()) && one.headBytes() == other.headBytes();
  }

  private record Imported(String digest, Manifest manifest) {}

  /** Copies in one pass, and hashes the file, its header and each tensor on the way. */
  private static Imported copy(Path from, Path to, GgufHeader head) throws IOException {
    List<TensorInfo> tensors =
        head.tensors().stream().sorted(Comparator.comparingLong(TensorInfo::offset)).toList();
    MessageDigest whole = DurableFiles.sha256();
    List<TensorPart> parts = new ArrayList<>();
    Path temporary = to.resolveSibling(WHOLE + ".new");
    String header;
    try (FileChannel in = FileChannel.open(from, StandardOpenOption.READ);
        FileChannel out =
            FileChannel.open(temporary, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      long position = 0;
      header = pass(in, out, position, head.headBytes(), whole);
      position = head.headBytes();
      for (TensorInfo tensor : tensors) {
        pass(in, out, position, tensor.offset() - position, whole); // padding
        String sha256 = pass(in, out, tensor.offset(), tensor.bytes(), whole);
        parts.add(new TensorPart(tensor.name(), tensor.offset(), tensor.bytes(), sha256));
        position = tensor.offset() + tensor.bytes();
      }
      pass(in, out, position, head.fileBytes() - position, whole);
    }
    DurableFiles.publish(temporary, to);
    return new Imported(
        DurableFiles.hex(whole), new Manifest(head.headBytes(), header, List.copyOf(parts)));
  }

  private static String pass(
      FileChannel in, FileChannel out, long offset, long length, MessageDigest whole)
      throws IOException {
    MessageDigest part = DurableFiles.sha256();
    ByteBuffer buffer = ByteBuffer.allocate(Math.clamp(length, 1, CHUNK_BYTES));
    long end = offset + length;
    for (long at = offset; at < end; ) {
      buffer.clear().limit((int) Math.min(buffer.capacity(), end - at));
      int read = in.read(buffer, at);
      if (read < 0) {
        throw new IOException("the file became shorter while it was read");
      }
      buffer.flip();
      part.update(buffer.duplicate());
      whole.update(buffer.duplicate());
      while (buffer.hasRemaining()) {
        out.write(buffer);
      }
      at += read;
    }
    return DurableFiles.hex(part);
  }

  private void move(Path incoming, String digest) throws IOException {
    Path target = place(digest);
    if (Files.exists(target.resolve(WHOLE))) {
      return; // the very same file is here already
    }
    Files.createDirectories(target);
    Files.move(
        incoming.resolve(MANIFEST),
        target.resolve(MANIFEST),
        StandardCopyOption.ATOMIC_MOVE,
        StandardCopyOption.REPLACE_EXISTING);
    DurableFiles.publish(incoming.resolve(WHOLE), target.resolve(WHOLE));
  }

  private ModelRecord record(
      String name, Imported imported, byte[] manifest, GgufHeader header, ModelConfig config) {
    long layerBytes = 0;
    for (int layer = 0; layer < config.layers(); layer++) {
      layerBytes = Math.max(layerBytes, blockBytes(header, layer));
    }
    int last = config.layers() - 1;
    return new ModelRecord(
        name,
        imported.digest(),
        DurableFiles.sha256(manifest),
        header.fileBytes(),
        clock.millis(),
        config,
        layerBytes,
        header.tensor("token_embd.weight").orElseThrow().bytes(),
        sliceBytes(header, last)
            - blockBytes(header, last)
            - (last == 0 && !config.tiedEmbeddings()
                ? header.tensor("token_embd.weight").orElseThrow().bytes()
                : 0),
        streams(header, config),
        List.of(cluster.self()));
  }

  private static Footprint.Streams streams(GgufHeader header, ModelConfig config) {
    String output = config.tiedEmbeddings() ? "token_embd.weight" : "output.weight";
    return new Footprint.Streams(
        ofOneLayer(header.bytesByType(n -> n.startsWith("blk.") && !n.contains("_exps.")), config),
        ofOneLayer(header.bytesByType(n -> n.startsWith("blk.") && n.contains("_exps.")), config),
        header.bytesByType(output::equals));
  }

  private static Map<String, Long> ofOneLayer(Map<String, Long> ofAll, ModelConfig config) {
    return ofAll.entrySet().stream()
        .collect(Collectors.toMap(Map.Entry::getKey, e -> e.getValue() / config.layers()));
  }

  private static long blockBytes(GgufHeader header, int layer) {
    return header.tensors().stream()
        .filter(t -> t.name().startsWith("blk." + layer + "."))
        .mapToLong(TensorInfo::bytes)
        .sum();
  }

  private static long sliceBytes(GgufHeader header, int layer) {
    return header.sliceTensors(new LayerRange(layer, layer)).stream()
        .mapToLong(TensorInfo::bytes)
        .sum();
  }

  private Deployments.ModelView register(ModelRecord record) {
    Registry registry = cluster.registry();
    for (int attempt = 0; attempt < 10; attempt++) {
      Optional<Registry.Entry> there = registry.get(ModelRecord.key(record.name()));
      ModelRecord wanted = record;
      if (there.isPresent()) {
        ModelRecord other = ModelRecord.read(there.get());
        if (!other.digest().equals(record.digest())) {
          throw new FlotillaException(
              FlotillaException.Code.CONFLICT,
              "there is another model " + record.name() + " already",
              "Remove it first, or choose another name.");
        }
        List<String> holders = new ArrayList<>(other.holders());
        holders.add(cluster.self());
        wanted = other.withHolders(holders);
      }
      Optional<Long> epoch =
          registry.commit(
              List.of(
                  new Registry.Condition(
                      ModelRecord.key(record.name()), there.map(Registry.Entry::epoch).orElse(0L))),
              List.of(
                  new Registry.Write(
                      ModelRecord.key(record.name()), Optional.of(Json.write(wanted)))));
      if (epoch.isPresent()) {
        log.info("model {} is on node {}: {}", record.name(), cluster.self(), record.digest());
        return new Deployments.ModelView(
            wanted.name(), wanted.digest(), wanted.bytes(), wanted.createdAtMs(), wanted.config());
      }
      registry.sync();
    }
    throw new FlotillaException(
        FlotillaException.Code.CONFLICT,
        "model " + record.name() + " is being changed by others",
        "Try again.");
  }

  /**
   * Removes a model from the cluster; every node then deletes its files.
   *
   * @throws FlotillaException {@code CONFLICT} while it is deployed
   */
  public void remove(String name) {
    Registry registry = cluster.registry();
    registry.sync();
    ModelRecord.existing(registry, name);
    boolean done =
        registry
            .commit(
                List.of(new Registry.Condition(DeploymentService.key(name), 0)),
                List.of(new Registry.Write(ModelRecord.key(name), Optional.empty())))
            .isPresent();
    if (!done) {
      throw new FlotillaException(
          FlotillaException.Code.CONFLICT,
          "model " + name + " is deployed",
          "Stop its deployment first.");
    }
    log.info("model {} is removed", name);
  }

  // Reading.

  /** The metadata of a model's file; see {@link Deployments#metadata}. */
  Map<String, Object> metadata(String name) {
    return header(ModelRecord.existing(cluster.registry(), name)).metadata();
  }

  private GgufHeader header(ModelRecord model) {
    GgufHeader known = headers.get(model.digest());
    if (known == null) {
      known = readHeader(model);
      headers.put(model.digest(), known);
    }
    return known;
  }

  private GgufHeader readHeader(ModelRecord model) {
    Path whole = place(model.digest()).resolve(WHOLE);
    if (Files.exists(whole)) {
      return GgufHeader.read(whole);
    }
    Manifest manifest = manifest(model);
    Path head = place(model.digest()).resolve(PARTS).resolve("head");
    try {
      fetch(model, head, 0, manifest.headerBytes(), manifest.headerSha256(), LoadProgress.NONE);
    } catch (FlotillaException e) {
      if (e.code() != FlotillaException.Code.STORAGE) {
        throw e;
      }
      log.warn(
          "node {} has the beginning of {} in memory only: {}",
          cluster.self(),
          model.name(),
          e.explanation());
      return headerInMemory(model, manifest);
    }
    try {
      return GgufHeader.parse(model.name(), Files.readAllBytes(head), model.bytes());
    } catch (IOException e) {
      throw DurableFiles.failure("cannot read " + head, e);
    }
  }

  /** A request for a model takes its beginning, not its layers: no room on the disk is needed. */
  private GgufHeader headerInMemory(ModelRecord model, Manifest manifest) {
    byte[] content =
        fromAnyHolder(
            model,
            holder -> {
              byte[] read =
                  read(
                      holder,
                      model.digest(),
                      ReadRequest.Part.FILE,
                      Math.toIntExact(manifest.headerBytes()));
              if (!DurableFiles.sha256(read).equals(manifest.headerSha256())) {
                throw damaged("the beginning of " + model.name(), holder);
              }
              return read;
            });
    return GgufHeader.parse(model.name(), content, model.bytes());
  }

  private Manifest manifest(ModelRecord model) {
    Path file = place(model.digest()).resolve(MANIFEST);
    return alone(file, () -> manifest(model, file));
  }

  /** Two threads must not fetch the same file; other files do not wait for it. */
  private <T> T alone(Path file, Supplier<T> work) {
    ReentrantLock lock = fetching.computeIfAbsent(file, f -> new ReentrantLock());
    lock.lock();
    try {
      return work.get();
    } finally {
      lock.unlock();
    }
  }

  private Manifest manifest(ModelRecord model, Path file) {
    try {
      if (Files.exists(file)) {
        byte[] content = Files.readAllBytes(file);
        if (DurableFiles.sha256(content).equals(model.manifestDigest())) {
          return Json.read(content, Manifest.class);
        }
        log.warn("node {}: {} is damaged and fetched again", cluster.self(), file);
      }
      byte[] content = fromAnyHolder(model, holder -> readManifest(holder, model));
      keep(file, content);
      return Json.read(content, Manifest.class);
    } catch (IOException e) {
      throw DurableFiles.failure("cannot read " + file, e);
    }
  }

  /** For the next start; without, it is fetched again. */
  private void keep(Path file, byte[] content) {
    try {
      DurableFiles.write(file, content);
    } catch (FlotillaException e) {
      log.warn("node {} goes on without {}: {}", cluster.self(), file, e.explanation());
    }
  }

  private byte[] readManifest(String holder, ModelRecord model) {
    byte[] bytes = read(holder, model.digest(), ReadRequest.Part.MANIFEST, Integer.MAX_VALUE);
    if (!DurableFiles.sha256(bytes).equals(model.manifestDigest())) {
      throw damaged("the manifest of " + model.name(), holder);
    }
    return bytes;
  }

  private static FlotillaException damaged(String what, String holder) {
    return new FlotillaException(
        FlotillaException.Code.BAD_FILE,
        what + " from node " + holder + " does not match its SHA-256",
        "Its copy is damaged; add the model again there.");
  }

  /** Loads one stage's layers; what this node lacks of them it fetches, verified, and keeps. */
  LayerSlice load(Placement placement, int stage, AllReduce allReduce, LoadProgress progress) {
    ModelRecord model = ModelRecord.existing(cluster.registry(), placement.model());
    if (!model.digest().equals(placement.digest())) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND,
          "model " + model.name() + " is another file now",
          "The controller will place it anew.");
    }
    LayerRange layers = placement.layers(stage);
    KvFormat kv = placement.engine().kv();
    int positions = placement.cachePositions();
    Optional<TensorShare> share = placement.share(stage);
    try (TensorSource source = source(model, layers, progress)) {
      return share.isPresent()
          ? PackedSlice.load(source, layers, threads, kv, positions, share.get(), allReduce)
          : PackedSlice.load(source, layers, threads, kv, positions);
    }
  }

  /** Loads the whole of a placement's draft model. */
  LayerSlice draft(Placement placement) {
    ModelRecord model = ModelRecord.existing(cluster.registry(), placement.engine().draft());
    LayerRange all = new LayerRange(0, model.config().layers() - 1);
    try (TensorSource source = source(model, all, LoadProgress.NONE)) {
      return PackedSlice.load(source, all, threads, KvFormat.DEFAULT, model.cachePositions());
    }
  }

  private TensorSource source(ModelRecord model, LayerRange layers, LoadProgress progress) {
    Set<String> needed =
        header(model).sliceTensors(layers).stream()
            .map(TensorInfo::name)
            .collect(Collectors.toSet());
    List<TensorPart> tensors =
        manifest(model).tensors().stream().filter(t -> needed.contains(t.name())).toList();
    return verifiedSource(model, tensors, progress);
  }

  private TensorSource verifiedSource(
      ModelRecord model, List<TensorPart> tensors, LoadProgress progress) {
    Path whole = place(model.digest()).resolve(WHOLE);
    long all = tensors.stream().mapToLong(TensorPart::bytes).sum();
    if (Files.exists(whole)) {
      Optional<TensorPart> damaged = firstDamaged(whole, tensors, here -> progress.at(here, all));
      if (damaged.isEmpty()) {
        return GgufFile.open(whole);
      }
      discardWhole(whole, damaged.get());
    }
    Map<String, TensorFiles.Location> locations = new HashMap<>();
    long before = 0;
    for (TensorPart tensor : tensors) {
      Path file = place(model.digest()).resolve(PARTS).resolve("tensor-" + tensor.sha256());
      long others = before;
      LoadProgress ofTensor = (bytes, _) -> progress.at(others + bytes, all);
      fetch(model, file, tensor.offset(), tensor.bytes(), tensor.sha256(), ofTensor);
      before += tensor.bytes();
      progress.at(before, all);
      locations.put(tensor.name(), new TensorFiles.Location(file, 0));
    }
    return new TensorFiles(
        header(model),
        name ->
            Optional.ofNullable(locations.get(name))
                .orElseThrow(() -> new IllegalStateException("tensor " + name + " not foreseen")));
  }

  /** Reads tensors of a whole file until one does not match its hash. */
  private static Optional<TensorPart> firstDamaged(
      Path whole, List<TensorPart> tensors, LongConsumer onVerified) {
    long here = 0;
    for (TensorPart tensor : tensors) {
      if (!verified(whole, tensor.offset(), tensor.bytes(), tensor.sha256())) {
        return Optional.of(tensor);
      }
      here += tensor.bytes();
      onVerified.accept(here);
    }
    return Optional.empty();
  }

  private void discardWhole(Path whole, TensorPart tensor) {
    log.error(
        "node {}: tensor {} in {} does not match its SHA-256; the copy is discarded",
        cluster.self(),
        tensor.name(),
        whole);
    try {
      Files.deleteIfExists(whole);
    } catch (IOException e) {
      throw DurableFiles.failure("cannot delete the damaged " + whole, e);
    }
    changed.release();
  }

  private static boolean verified(Path file, long offset, long bytes, String sha256) {
    try (FileChannel in = FileChannel.open(file, StandardOpenOption.READ)) {
      MessageDigest digest = DurableFiles.sha256();
      hash(in, offset, bytes, digest);
      return DurableFiles.hex(digest).equals(sha256);
    } catch (IOException e) {
      throw DurableFiles.failure("cannot read " + file, e);
    }
  }

  private static void hash(FileChannel in, long offset, long bytes, MessageDigest digest)
      throws IOException {
    ByteBuffer buffer = ByteBuffer.allocate(Math.clamp(bytes, 1, CHUNK_BYTES));
    for (long at = offset; at < offset + bytes; ) {
      buffer.clear().limit((int) Math.min(buffer.capacity(), offset + bytes - at));
      int read = in.read(buffer, at);
      if (read < 0) {
        return; // shorter: the digest will not match
      }
      digest.update(buffer.flip());
      at += read;
    }
  }

  /**
   * Fetches a range of the model's file into a file of its own, unless it is there and whole. What
   * an earlier try left in {@code FILE.part} is gone on with.
   */
  private void fetch(
      ModelRecord model, Path file, long offset, long bytes, String sha256, LoadProgress progress) {
    boolean _ =
        alone(
            file,
            () -> {
              if (Files.exists(file)) {
                if (verified(file, 0, Math.max(bytes, sizeOf(file)), sha256)) {
                  return true;
                }
                log.warn("node {}: {} is damaged and fetched again", cluster.self(), file);
              }
              return fromAnyHolder(
                  model,
                  holder -> {
                    fetchFrom(holder, model, file, offset, bytes, sha256, progress);
                    return true;
                  });
            });
  }

  private static long sizeOf(Path file) {
    try {
      return Files.size(file);
    } catch (IOException e) {
      throw DurableFiles.failure("cannot read " + file, e);
    }
  }

  private void fetchFrom(
      String holder,
      ModelRecord model,
      Path file,
      long offset,
      long bytes,
      String sha256,
      LoadProgress progress) {
    Path part = file.resolveSibling(file.getFileName() + ".part");
    try {
      Files.createDirectories(place(model.digest()).resolve(PARTS));
      try (FileChannel out =
          FileChannel.open(
              part, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
        if (out.size() > bytes) {
          out.truncate(0);
        }
        MessageDigest digest = DurableFiles.sha256();
        hash(out, 0, out.size(), digest);
        out.position(out.size());
        for (long at = out.size(); at < bytes; ) {
          int length = (int) Math.min(CHUNK_BYTES, bytes - at);
          ByteBuffer chunk =
              read(holder, model.digest(), ReadRequest.Part.FILE, offset + at, length)
                  .asReadOnlyByteBuffer();
          if (chunk.remaining() != length || closed) {
            throw new FlotillaException(
                FlotillaException.Code.UNAVAILABLE,
                closed ? "this node stops" : "node " + holder + " has a shorter file",
                "");
          }
          digest.update(chunk.duplicate());
          while (chunk.hasRemaining()) {
            out.write(chunk);
          }
          at += length;
          progress.at(at, bytes);
        }
        if (!DurableFiles.hex(digest).equals(sha256)) {
          out.truncate(0);
          throw damaged(file.getFileName() + " of model " + model.name(), holder);
        }
      }
      DurableFiles.publish(part, file);
    } catch (IOException e) {
      throw DurableFiles.failure("cannot write " + file, e);
    }
  }

  private interface FromHolder<T> {
    T read(String holder);
  }

  /** Asks the holders that answer, in the model's own order, until one delivers. */
  private <T> T fromAnyHolder(ModelRecord model, FromHolder<T> read) {
    FlotillaException last =
        new FlotillaException(
            FlotillaException.Code.UNAVAILABLE,
            "no node that has model " + model.name() + " answers",
            "Bring back one of " + model.holders() + ", or add the model again.");
    Set<String> up = up();
    for (String holder : ranked(model, new HashSet<>(model.holders()))) {
      if (holder.equals(cluster.self()) || !up.contains(holder)) {
        continue;
      }
      try {
        return read.read(holder);
      } catch (FlotillaException e) {
        if (e.code() == FlotillaException.Code.STORAGE) {
          throw e; // our own disk: another holder does not help
        }
        log.warn("node {}: {}", cluster.self(), e.explanation());
        last = e;
      }
    }
    throw last;
  }

  /** The beginning of a part, all of it at most. */
  private byte[] read(String holder, String digest, ReadRequest.Part part, int max) {
    ByteArrayOutputStream content = new ByteArrayOutputStream();
    ByteString chunk;
    do {
      int length = Math.min(CHUNK_BYTES, max - content.size());
      chunk = read(holder, digest, part, content.size(), length);
      content.writeBytes(chunk.toByteArray());
    } while (chunk.size() == CHUNK_BYTES && content.size() < max);
    return content.toByteArray();
  }

  private ByteString read(
      String holder, String digest, ReadRequest.Part part, long offset, int length) {
    try {
      return ModelsGrpc.newBlockingStub(cluster.channel(holder))
          .withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS)
          .read(
              ReadRequest.newBuilder()
                  .setDigest(digest)
                  .setPart(part)
                  .setOffset(offset)
                  .setLength(length)
                  .build())
          .getContent();
    } catch (StatusRuntimeException e) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE,
          "node " + holder + " does not deliver model " + digest + ": " + e.getStatus(),
          "",
          e);
    }
  }

  private Path place(String digest) {
    return folder.resolve(digest);
  }

  // Keeping copies.

  private void loop() {
    while (!closed) {
      try {
        boolean _ = changed.tryAcquire(1, TimeUnit.SECONDS);
        changed.drainPermits();
        reconcile();
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        log.warn("node {}: copies of models: {}; it tries again", cluster.self(), e.toString());
      }
    }
  }

  private void reconcile() {
    Set<String> up = up();
    for (ModelRecord model : ModelRecord.all(cluster.registry())) {
      boolean here = Files.exists(place(model.digest()).resolve(WHOLE));
      if (!here && up.contains(cluster.self()) && isNext(model, up)) {
        Manifest _ = manifest(model); // whoever asks for the file asks for this first
        fetch(
            model,
            place(model.digest()).resolve(WHOLE),
            0,
            model.bytes(),
            model.digest(),
            LoadProgress.NONE);
        log.info("node {} has a copy of model {}", cluster.self(), model.name());
        here = true;
      }
      if (here != model.holders().contains(cluster.self()) && !closed) {
        announce(model.name(), here);
      }
    }
    sweep();
  }

  private boolean isNext(ModelRecord model, Set<String> up) {
    Set<String> others = new HashSet<>(model.holders());
    others.retainAll(up);
    others.remove(cluster.self());
    int missing = Math.min(COPIES, up.size()) - others.size();
    Set<String> without = new HashSet<>(up);
    without.removeAll(others);
    return !others.isEmpty()
        && missing > 0
        && ranked(model, without).stream().limit(missing).anyMatch(cluster.self()::equals);
  }

  /** Rendezvous hashing (Thaler and Ravishankar 1998): each model has its own order of nodes. */
  private static List<String> ranked(ModelRecord model, Set<String> nodes) {
    return nodes.stream()
        .sorted(
            Comparator.comparing(
                node ->
                    DurableFiles.sha256(
                        (model.digest() + node).getBytes(java.nio.charset.StandardCharsets.UTF_8))))
        .toList();
  }

  private void announce(String name, boolean here) {
    Registry registry = cluster.registry();
    Optional<Registry.Entry> entry = registry.get(ModelRecord.key(name));
    if (entry.isEmpty()) {
      return;
    }
    ModelRecord model = ModelRecord.read(entry.get());
    List<String> holders = new ArrayList<>(model.holders());
    holders.remove(cluster.self());
    if (here) {
      holders.add(cluster.self());
    }
    // If another node was quicker, the next pass tries again.
    Optional<Long> _ =
        registry.commit(
            List.of(new Registry.Condition(entry.get().key(), entry.get().epoch())),
            List.of(
                new Registry.Write(
                    entry.get().key(), Optional.of(Json.write(model.withHolders(holders))))));
  }

  /** Deletes the files of models that are no more. */
  private void sweep() {
    Set<String> strangers = strangers();
    if (strangers.isEmpty()) {
      return;
    }
    cluster.registry().sync(); // this copy may lag, or not have caught up since the start
    strangers.retainAll(strangers());
    for (String digest : strangers) {
      DurableFiles.deleteFolder(place(digest));
      headers.remove(digest);
      log.info("node {} deleted the files of removed model {}", cluster.self(), digest);
    }
  }

  private Set<String> strangers() {
    Set<String> strangers = new HashSet<>();
    for (String name : entries()) {
      if (DIGEST.matcher(name).matches() && !arriving.contains(name)) {
        strangers.add(name);
      }
    }
    ModelRecord.all(cluster.registry()).forEach(m -> strangers.remove(m.digest()));
    return strangers;
  }

  private List<String> entries() {
    List<String> names = new ArrayList<>();
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(folder)) {
      entries.forEach(e -> names.add(String.valueOf(e.getFileName())));
    } catch (IOException e) {
      throw DurableFiles.failure("cannot list " + folder, e);
    }
    return names;
  }

  private Set<String> up() {
    Set<String> up = new HashSet<>();
    for (NodeInfo node : cluster.nodes()) {
      if (node.state() != NodeInfo.State.LOST) {
        up.add(node.id());
      }
    }
    return up;
  }

  private final class ReadService extends ModelsGrpc.ModelsImplBase {

    @Override
    public void read(ReadRequest request, StreamObserver<ReadReply> reply) {
      try {
        reply.onNext(ReadReply.newBuilder().setContent(content(request)).build());
        reply.onCompleted();
      } catch (FlotillaException e) {
        reply.onError(Wire.status(e));
      }
    }

    private ByteString content(ReadRequest request) {
      if (!DIGEST.matcher(request.getDigest()).matches()
          || request.getOffset() < 0
          || request.getLength() < 0
          || request.getLength() > CHUNK_BYTES) {
        throw new FlotillaException(FlotillaException.Code.INVALID, "no such part of a model", "");
      }
      String name = request.getPart() == ReadRequest.Part.MANIFEST ? MANIFEST : WHOLE;
      Path file = place(request.getDigest()).resolve(name);
      try (FileChannel in = FileChannel.open(file, StandardOpenOption.READ)) {
        ByteBuffer buffer = ByteBuffer.allocate(request.getLength());
        long at = request.getOffset();
        while (buffer.hasRemaining()) {
          int read = in.read(buffer, at);
          if (read < 0) {
            break;
          }
          at += read;
        }
        return ByteString.copyFrom(buffer.flip());
      } catch (NoSuchFileException e) {
        throw new FlotillaException(
            FlotillaException.Code.NOT_FOUND,
            "node " + cluster.self() + " does not have " + request.getDigest(),
            "",
            e);
      } catch (IOException e) {
        throw DurableFiles.failure("cannot read " + file, e);
      }
    }
  }
}
