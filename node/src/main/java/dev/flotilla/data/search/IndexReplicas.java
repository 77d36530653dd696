package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.IndexShardsGrpc;
import dev.flotilla.data.proto.ShardAddress;
import dev.flotilla.data.proto.ShardState;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The shards that this node searches: takes those that fall to it, follows their changes, and gives
 * up those that fell to others once these are ready.
 */
public final class IndexReplicas implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(IndexReplicas.class);
  private static final long RETRY_MS = 1000;
  private static final long ASK_MS = 1000;
  private static final long WAITED_FOR_MS = 10;
  private static final long TIDY_NS = 60_000_000_000L;

  /** A shard of one index, told from a former index of its name. */
  record Address(String index, String generation, int shard) {}

  /**
   * Times.
   *
   * @param lookMs how often to look which shards fall to this node
   * @param replaceAfterMs how long a silent node keeps its shards
   * @param hedgeAfterMs after how long another replica is asked too
   */
  public record Tuning(long lookMs, long replaceAfterMs, long hedgeAfterMs) {
    public static final Tuning DEFAULT = new Tuning(500, 30_000, 250);
  }

  private final Cluster cluster;
  private final IndexCatalog catalog;
  private final Path folder;
  private final Tuning tuning;
  private final LongSupplier nanoTime;
  private final Map<Address, IndexShard> held = new ConcurrentHashMap<>();
  private final Map<String, Long> awaySinceNs = new ConcurrentHashMap<>();
  private final ScheduledThreadPoolExecutor workers;
  private volatile List<String> seen = List.of();
  private volatile AutoCloseable changes = () -> {};
  private boolean tidied;
  private long tidiedNs;

  IndexReplicas(
      Cluster cluster, IndexCatalog catalog, Path folder, Tuning tuning, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.catalog = catalog;
    this.folder = folder;
    this.tuning = tuning;
    this.nanoTime = nanoTime;
    this.tidiedNs = nanoTime.getAsLong();
    this.workers =
        new ScheduledThreadPoolExecutor(
            Math.max(2, Runtime.getRuntime().availableProcessors()),
            Thread.ofPlatform().daemon().name("index-follow-", 0).factory());
    workers.setExecuteExistingDelayedTasksAfterShutdownPolicy(false);
  }

  Tuning tuning() {
    return tuning;
  }

  void start() {
    workers.execute(this::lookAndGoOn);
    // An index that was just made is waited for.
    changes = cluster.registry().subscribe(this::lookIfChanged);
  }

  private void lookIfChanged() {
    List<String> now = catalog.names();
    if (!now.equals(seen)) {
      seen = now;
      schedule(this::lookOnce, 0);
    }
  }

  private void lookAndGoOn() {
    lookOnce();
    schedule(this::lookAndGoOn, tuning.lookMs);
  }

  private void lookOnce() {
    try {
      look();
    } catch (FlotillaException e) {
      log.debug("indexes cannot be looked at: {}", e.getMessage());
    } catch (RuntimeException | IOException e) {
      log.warn("indexes cannot be looked at", e);
    }
  }

  private void schedule(Runnable task, long delayMs) {
    try {
      var _ = workers.schedule(task, delayMs, TimeUnit.MILLISECONDS);
    } catch (RejectedExecutionException closing) {
      log.debug("stopping");
    }
  }

  /**
   * The nodes among which an index's shards are placed: one that is silent or to stop stays for a
   * while, but gets nothing that was made since it is to stop.
   */
  List<String> eligible(IndexCatalog.Known index) {
    List<String> eligible = new ArrayList<>();
    for (NodeInfo node : cluster.nodes()) {
      if (node.state() == NodeInfo.State.UP) {
        awaySinceNs.remove(node.id());
      }
      boolean in =
          switch (node.state()) {
            case UP -> true;
            case DRAINING -> staysFor(node) && index.epoch() < cluster.drainedSince(node.id());
            case LOST -> staysFor(node);
          };
      if (in) {
        eligible.add(node.id());
      }
    }
    return eligible;
  }

  private boolean staysFor(NodeInfo away) {
    long nowNs = nanoTime.getAsLong();
    return nowNs - awaySinceNs.computeIfAbsent(away.id(), id -> nowNs)
        < tuning.replaceAfterMs * 1_000_000;
  }

  /** The nodes that should search a shard. */
  List<String> placed(IndexCatalog.Known index, int shard) {
    List<String> ranked = SearchPlacement.rank(index.generation(), shard, eligible(index));
    return ranked.subList(0, Math.min(index.settings().replicas(), ranked.size()));
  }

  /**
   * Whom to ask for a shard, in turn: this node first if the shard fell to it, then the others it
   * fell to, from one of them by turns; then whoever may still have it.
   */
  List<String> candidates(IndexCatalog.Known index, int shard, int turn) {
    Map<String, NodeInfo.State> states = new HashMap<>();
    cluster.nodes().forEach(node -> states.put(node.id(), node.state()));
    List<String> placed = placed(index, shard);
    List<String> all = new ArrayList<>();
    if (placed.contains(cluster.self())) {
      all.add(cluster.self());
    }
    for (int i = 0; i < placed.size(); i++) {
      all.add(placed.get((i + turn) % placed.size()));
    }
    all.addAll(SearchPlacement.rank(index.generation(), shard, states.keySet()));
    List<String> order = new ArrayList<>(all.stream().distinct().toList());
    order.sort(java.util.Comparator.comparing(node -> states.get(node) == NodeInfo.State.LOST));
    return order;
  }

  private synchronized void look() throws IOException {
    Map<Address, IndexCatalog.Known> wanted = new HashMap<>();
    Set<Address> fallen = new HashSet<>();
    for (IndexCatalog.Known index : catalog.all()) {
      for (int shard = 0; shard < index.settings().shards(); shard++) {
        Address address = new Address(index.name(), index.generation(), shard);
        if (placed(index, shard).contains(cluster.self())) {
          wanted.put(address, index);
        } else if (held.containsKey(address)) {
          fallen.add(address);
          if (othersAreReady(index, shard)) {
            log.info("index {}/{}: given up to others", index.name(), shard);
            drop(address);
          }
        }
      }
    }
    wanted.forEach(this::hold);
    Set<Address> gone = new HashSet<>(held.keySet());
    gone.removeAll(wanted.keySet());
    gone.removeAll(fallen);
    if (!gone.isEmpty() || !tidied) {
      // This node's copy of the registry may be older than the index.
      cluster.registry().sync();
      for (Address address : gone) {
        if (catalog
            .find(address.index)
            .filter(index -> index.generation().equals(address.generation))
            .isEmpty()) {
          drop(address);
        }
      }
      deleteUnknownFolders();
      tidied = true;
    }
    if (nanoTime.getAsLong() - tidiedNs > TIDY_NS) {
      tidiedNs = nanoTime.getAsLong();
      tidyGrid();
    }
  }

  /** Forgets, in the grid, what nobody needs any more. */
  private void tidyGrid() {
    for (IndexCatalog.Known index : catalog.all()) {
      for (int shard = 0; shard < index.settings().shards(); shard++) {
        if (placed(index, shard).getFirst().equals(cluster.self())) {
          trimIfDue(index, shard);
        }
      }
    }
    if (cluster.leader().equals(Optional.of(cluster.self()))) {
      catalog.destroyOrphans();
    }
  }

  private void trimIfDue(IndexCatalog.Known index, int shard) {
    long documents = 0;
    long everywhere = Long.MAX_VALUE;
    for (String node : placed(index, shard)) {
      Optional<ShardState> state = stateOn(node, index, shard);
      if (state.isEmpty()) {
        return;
      }
      documents = Math.max(documents, state.get().getDocuments());
      everywhere = Math.min(everywhere, state.get().getCommitted());
    }
    if (index.store().isTrimDue(shard, documents)) {
      index.store().trim(shard, everywhere);
    }
  }

  private Optional<ShardState> stateOn(String node, IndexCatalog.Known index, int shard) {
    try {
      return Optional.of(
          IndexShardsGrpc.newBlockingStub(cluster.channel(node))
              .withDeadlineAfter(ASK_MS, TimeUnit.MILLISECONDS)
              .state(message(index, shard)));
    } catch (io.grpc.StatusRuntimeException | FlotillaException e) {
      log.debug("{} does not tell how {}/{} stands", node, index.name(), shard);
      return Optional.empty();
    }
  }

  private void drop(Address address) throws IOException {
    IndexShard shard = held.remove(address);
    if (shard != null) {
      shard.drop();
    }
  }

  /** What a stop left of indexes that are no more, or of shards that are others' now. */
  private void deleteUnknownFolders() throws IOException {
    Set<Path> known = new HashSet<>();
    held.keySet().forEach(address -> known.add(folderOf(address)));
    if (!Files.exists(folder)) {
      return;
    }
    List<Path> found;
    try (Stream<Path> folders = Files.walk(folder, 2)) {
      found = folders.filter(path -> path.getNameCount() == folder.getNameCount() + 2).toList();
    }
    for (Path one : found) {
      if (!known.contains(one)) {
        NodeFiles.deleteTree(one);
      }
    }
    try (Stream<Path> folders = Files.list(folder)) {
      for (Path one : folders.toList()) {
        try (Stream<Path> inside = Files.list(one)) {
          if (inside.findAny().isPresent()) {
            continue;
          }
        }
        Files.delete(one);
      }
    }
  }

  private Path folderOf(Address address) {
    return folder
        .resolve(address.index + "@" + address.generation)
        .resolve(Integer.toString(address.shard));
  }

  private void hold(Address address, IndexCatalog.Known index) {
    if (held.containsKey(address)) {
      return;
    }
    IndexShard shard =
        new IndexShard(
            address.index,
            folderOf(address),
            address.shard,
            index.store(),
            () -> schema(address, index),
            cluster.registry()::sync,
            nanoTime);
    held.put(address, shard);
    workers.execute(() -> follow(address, shard));
  }

  /** The newest that this node knows; the one it began with while the index is being removed. */
  private IndexSchema schema(Address address, IndexCatalog.Known first) {
    return catalog
        .find(address.index)
        .filter(index -> index.generation().equals(address.generation))
        .orElse(first)
        .schema();
  }

  private void follow(Address address, IndexShard shard) {
    if (held.get(address) != shard) {
      return;
    }
    long delayMs = RETRY_MS;
    try {
      boolean more = shard.step();
      delayMs = more ? 0 : shard.hasWaiters() ? WAITED_FOR_MS : refreshMs(address);
    } catch (IOException | RuntimeException e) {
      shard.recover(e);
    }
    schedule(() -> follow(address, shard), delayMs);
  }

  private long refreshMs(Address address) {
    return catalog.find(address.index).map(index -> index.settings().refreshMs()).orElse(1000);
  }

  private boolean othersAreReady(IndexCatalog.Known index, int shard) {
    return placed(index, shard).stream()
        .allMatch(
            node ->
                stateOn(node, index, shard)
                    .filter(state -> state.getState().equals("ready"))
                    .isPresent());
  }

  static ShardAddress message(IndexCatalog.Known index, int shard) {
    return ShardAddress.newBuilder()
        .setIndex(index.name())
        .setGeneration(index.generation())
        .setShard(shard)
        .setEpoch(index.epoch())
        .build();
  }

  /** This node's replica. */
  Optional<IndexShard> local(String index, String generation, int shard) {
    return Optional.ofNullable(held.get(new Address(index, generation, shard)));
  }

  /** This node's replica. */
  IndexShard require(String index, String generation, int shard) {
    return local(index, generation, shard)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.UNAVAILABLE, "this node has no replica of " + index + "/" + shard, ""));
  }

  /** Waits until a replica here shows writes up to the sequence; whether it does. */
  boolean await(String index, String generation, int shard, long sequence, long timeoutMs)
      throws InterruptedException {
    Address address = new Address(index, generation, shard);
    IndexShard replica = require(index, generation, shard);
    if (replica.searchable() >= sequence) {
      return true;
    }
    try {
      workers.execute(() -> nudge(address, replica));
    } catch (RejectedExecutionException closing) {
      return false;
    }
    return replica.await(sequence, timeoutMs);
  }

  private void nudge(Address address, IndexShard shard) {
    try {
      for (int i = 0; i < 100 && held.get(address) == shard && shard.hasWaiters(); i++) {
        if (!shard.step()) {
          Thread.sleep(WAITED_FOR_MS);
        }
      }
    } catch (IOException | RuntimeException e) {
      shard.recover(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Replicas here, for metrics. */
  int count() {
    return held.size();
  }

  @Override
  public void close() {
    try {
      changes.close();
    } catch (Exception e) {
      log.warn("no longer following the registry: {}", e.toString());
    }
    // Not interrupted: that would close the files under the writers.
    workers.shutdown();
    try {
      if (!workers.awaitTermination(10, TimeUnit.SECONDS)) {
        log.warn("indexes are still being followed");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    held.values().forEach(IndexShard::close);
    held.clear();
  }
}
