package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.proto.ChunkRequest;
import dev.flotilla.data.proto.ChunksGrpc;
import dev.flotilla.data.proto.DropRequest;
import dev.flotilla.data.proto.HeldRequest;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * On the controller: forgets blobs that nothing refers to, and makes the nodes hold what they
 * should. {@link BlobPlan} says what is to be done; the nodes do it.
 *
 * <p>No chunk in use is deleted. A chunk is deleted only if nothing mentioned it when a whole look
 * was had, and if nobody touched it for the delay before that look; the node itself compares the
 * time, under the lock that a touch takes. Whoever mentions a chunk touches it first, and again
 * before the delay is over. A controller that was replaced is refused by its epoch.
 */
final class BlobKeeper implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(BlobKeeper.class);
  private static final int COPIES_AT_ONCE = 4;
  private static final int DROPS_AT_ONCE = 1_000;
  private static final long CLOSE_PATIENCE_MS = 2_000;

  private final Cluster cluster;
  private final BlobCatalog catalog;
  private final BlobConfig config;
  private final Optional<S3Chunks> objects;
  private final ExecutorService threads;
  private final InstantSource clock;
  private final LongSupplier nanoTime;
  private final Semaphore signals = new Semaphore(0);

  /** Nodes that do not answer, or are to stop: they may be back soon. */
  private final Map<String, Long> awaySinceNs = new HashMap<>();

  private final Thread thread;
  private Set<String> alive = Set.of();
  private volatile boolean leading;
  private volatile boolean closed;

  BlobKeeper(
      Cluster cluster,
      BlobCatalog catalog,
      BlobConfig config,
      Optional<S3Chunks> objects,
      ExecutorService threads,
      InstantSource clock,
      LongSupplier nanoTime) {
    this.cluster = cluster;
    this.catalog = catalog;
    this.config = config;
    this.objects = objects;
    this.threads = threads;
    this.clock = clock;
    this.nanoTime = nanoTime;
    this.thread = Thread.ofVirtual().name("blob-keeper").unstarted(this::run);
  }

  void start() {
    thread.start();
  }

  /** Look soon. */
  void wake() {
    signals.release();
  }

  /** As the controller's reconciler: notes who answers. */
  void reconcile(Cluster.Leadership leadership) {
    Set<String> now = new HashSet<>();
    Set<String> staying = new HashSet<>();
    for (NodeInfo node : leadership.aliveNodes()) {
      now.add(node.id());
      if (node.state() != NodeInfo.State.DRAINING) {
        staying.add(node.id());
      }
    }
    boolean different;
    synchronized (awaySinceNs) {
      cluster.nodes().stream()
          .map(NodeInfo::id)
          .filter(id -> !staying.contains(id))
          .forEach(id -> awaySinceNs.putIfAbsent(id, nanoTime.getAsLong()));
      awaySinceNs.keySet().removeAll(staying);
      different = !now.equals(alive);
      alive = now;
    }
    if (different || !leading) {
      wake();
    }
    leading = true;
  }

  private void run() {
    long lastNs = nanoTime.getAsLong() - config.repairInterval().toNanos();
    while (!closed) {
      try {
        long waitNs = lastNs + config.repairInterval().toNanos() - nanoTime.getAsLong();
        if (signals.tryAcquire(Math.max(1, waitNs), TimeUnit.NANOSECONDS)) {
          // Changes that come together are looked at together.
          Thread.sleep(200);
          signals.drainPermits();
        }
        lastNs = nanoTime.getAsLong();
        if (!cluster.leader().equals(Optional.of(cluster.self()))) {
          leading = false;
          continue;
        }
        if (leading) {
          pass();
        }
      } catch (InterruptedException e) {
        return;
      } catch (FlotillaException e) {
        log.info("blobs could not be looked after now: {}", e.explanation());
      } catch (RuntimeException e) {
        if (!closed) {
          log.error("looking after blobs failed, and goes on", e);
        }
      }
    }
  }

  /** One look, and what follows from it. */
  private void pass() throws InterruptedException {
    Optional<Registry.Entry> controller = cluster.registry().get(ChunkService.CONTROLLER);
    if (controller.isEmpty()) {
      return;
    }
    long nowMs = clock.millis();
    int forgotten =
        catalog.forget(
            nowMs - config.collectDelay().toMillis(), nowMs - config.uploadLifetime().toMillis());
    if (forgotten > 0) {
      log.info("{} blobs that nothing referred to are forgotten", forgotten);
    }
    long beganNs = nanoTime.getAsLong();
    Optional<Set<String>> live = catalog.live();
    if (live.isEmpty()) {
      wake();
      return;
    }
    if (objects.isPresent()) {
      objects.get().collect(live.get(), config.collectDelay());
    }
    Map<String, Set<String>> held = held();
    // With an object store the nodes keep only what passes through them.
    List<BlobPlan.Action> actions =
        BlobPlan.actions(
            objects.isPresent() ? Set.of() : live.get(),
            members(),
            leaving(),
            held,
            config.copies());
    long elapsedMs = TimeUnit.NANOSECONDS.toMillis(nanoTime.getAsLong() - beganNs);
    carryOut(actions, config.collectDelay().plusMillis(elapsedMs), controller.get().epoch());
  }

  private Set<String> members() {
    Set<String> members = new HashSet<>();
    cluster.nodes().forEach(node -> members.add(node.id()));
    synchronized (awaySinceNs) {
      awaySinceNs.forEach(
          (node, sinceNs) -> {
            if (nanoTime.getAsLong() - sinceNs > config.lostPatience().toNanos()) {
              members.remove(node);
            }
          });
    }
    return members;
  }

  private Set<String> leaving() {
    return cluster.nodes().stream()
        .filter(node -> node.state() == NodeInfo.State.DRAINING)
        .map(NodeInfo::id)
        .collect(Collectors.toSet());
  }

  /** How many chunks in use are on no node that answers but this one; from any node. */
  long onlyOn(String nodeId) {
    if (objects.isPresent()) {
      return 0;
    }
    Set<String> live = new HashSet<>(catalog.live().orElse(Set.of()));
    Set<String> others = new HashSet<>();
    for (NodeInfo node : cluster.nodes()) {
      if (node.state() != NodeInfo.State.LOST && !node.id().equals(nodeId)) {
        others.add(node.id());
      }
    }
    held(others).values().forEach(live::removeAll);
    return live.size();
  }

  private Map<String, Set<String>> held() {
    Set<String> answering;
    synchronized (awaySinceNs) {
      answering = alive;
    }
    return held(answering);
  }

  private Map<String, Set<String>> held(Set<String> nodes) {
    Map<String, Future<Set<String>>> asked = new TreeMap<>();
    for (String node : nodes) {
      asked.put(node, threads.submit(() -> heldBy(node)));
    }
    Map<String, Set<String>> held = new TreeMap<>();
    asked.forEach(
        (node, answer) -> {
          try {
            held.put(node, BlobReader.result(answer));
          } catch (StatusRuntimeException | FlotillaException e) {
            log.info("node {} does not say which chunks it has: {}", node, e.getMessage());
          }
        });
    return held;
  }

  private Set<String> heldBy(String node) {
    Set<String> chunks = new HashSet<>();
    ChunksGrpc.newBlockingStub(cluster.channel(node))
        .withDeadlineAfter(60, TimeUnit.SECONDS)
        .held(HeldRequest.getDefaultInstance())
        .forEachRemaining(
            list ->
                list.getDigestsList().forEach(digest -> chunks.add(ReplicatedChunks.hex(digest))));
    return chunks;
  }

  private void carryOut(List<BlobPlan.Action> actions, Duration untouched, long epoch)
      throws InterruptedException {
    Semaphore slots = new Semaphore(COPIES_AT_ONCE);
    List<Future<Boolean>> copies = new ArrayList<>();
    Map<String, List<String>> drops = new TreeMap<>();
    int missing = 0;
    for (BlobPlan.Action action : actions) {
      switch (action) {
        case BlobPlan.Copy copy -> {
          slots.acquire();
          copies.add(
              threads.submit(
                  () -> {
                    try {
                      return copy(copy);
                    } finally {
                      slots.release();
                    }
                  }));
        }
        case BlobPlan.Missing lost -> {
          missing++;
          if (missing <= 10) {
            log.warn("chunk {} is on no node that answers", lost.chunk());
          }
        }
        case BlobPlan.DropSurplus drop ->
            drops.computeIfAbsent(drop.node(), n -> new ArrayList<>()).add(drop.chunk());
        case BlobPlan.DropGarbage drop ->
            drops.computeIfAbsent(drop.node(), n -> new ArrayList<>()).add(drop.chunk());
      }
    }
    long copied = copies.stream().filter(copy -> BlobReader.result(copy)).count();
    int dropped = 0;
    for (Map.Entry<String, List<String>> drop : drops.entrySet()) {
      dropped += drop(drop.getKey(), drop.getValue(), untouched, epoch);
    }
    if (copied > 0 || copied < copies.size() || dropped > 0 || missing > 0) {
      log.info(
          "chunks: {} of {} copies made, {} deleted, {} out of reach",
          copied,
          copies.size(),
          dropped,
          missing);
    }
  }

  private boolean copy(BlobPlan.Copy copy) {
    try {
      var _ =
          ChunksGrpc.newBlockingStub(cluster.channel(copy.to()))
              .withDeadlineAfter(30, TimeUnit.SECONDS)
              .fetch(
                  ChunkRequest.newBuilder()
                      .setDigest(ReplicatedChunks.bytes(copy.chunk()))
                      .build());
      return true;
    } catch (StatusRuntimeException | FlotillaException e) {
      log.warn("node {} cannot get chunk {}: {}", copy.to(), copy.chunk(), e.getMessage());
      return false;
    }
  }

  private int drop(String node, List<String> chunks, Duration untouched, long epoch) {
    int dropped = 0;
    try {
      for (int from = 0; from < chunks.size(); from += DROPS_AT_ONCE) {
        DropRequest.Builder request =
            DropRequest.newBuilder()
                .setUntouchedForMs(untouched.toMillis())
                .setControllerEpoch(epoch);
        chunks
            .subList(from, Math.min(chunks.size(), from + DROPS_AT_ONCE))
            .forEach(chunk -> request.addDigests(ReplicatedChunks.bytes(chunk)));
        dropped +=
            ChunksGrpc.newBlockingStub(cluster.channel(node))
                .withDeadlineAfter(30, TimeUnit.SECONDS)
                .drop(request.build())
                .getDropped();
      }
    } catch (StatusRuntimeException | FlotillaException e) {
      log.info("node {} does not delete chunks: {}", node, e.getMessage());
    }
    return dropped;
  }

  @Override
  public void close() {
    closed = true;
    thread.interrupt();
    try {
      thread.join(CLOSE_PATIENCE_MS); // it may never have started
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
