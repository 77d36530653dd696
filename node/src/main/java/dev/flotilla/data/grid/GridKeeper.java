package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.grid.Rejoining.Action;
import dev.flotilla.data.grid.Rejoining.Doubt;
import dev.flotilla.data.grid.Rejoining.Own;
import dev.flotilla.data.grid.Rejoining.Peer;
import dev.flotilla.data.proto.GridStatus;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import java.util.stream.Stream;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteException;
import org.apache.ignite.Ignition;
import org.apache.ignite.cache.affinity.Affinity;
import org.apache.ignite.cluster.ClusterState;
import org.apache.ignite.events.Event;
import org.apache.ignite.events.EventType;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.CacheGroupContext;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtLocalPartition;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtPartitionState;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Starts the engine, stops it, and starts it again, as {@link Rejoining} decides: one thread that
 * looks several times a second at this node and at what the others say.
 */
final class GridKeeper implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Grid.class);
  private static final long PERIOD_MS = 250;

  /** How long a confirmation by the majority holds; less than any failure detection. */
  private static final long LEASE_NS = 2_000_000_000L;

  /** How long an operation waits for such a confirmation where the engine sees a majority. */
  private static final long CONFIRM_NS = 3_000_000_000L;

  /** How long it lets another start first. */
  private static final long PATIENCE_NS = 15_000_000_000L;

  private final Cluster cluster;
  private final GridConfig config;
  private final GridMembers members;
  private final GridPeers peers;
  private final LongSupplier nanoTime;
  private final List<Consumer<Ignite>> onStart = new CopyOnWriteArrayList<>();
  private final CountDownLatch ready = new CountDownLatch(1);
  private volatile @Nullable Ignite engine;
  private long stoppedNs;
  private volatile boolean segmented;
  private volatile boolean announced;
  private volatile boolean closed;
  private volatile @Nullable Thread thread;
  private volatile @Nullable Thread asking;

  GridKeeper(Cluster cluster, GridConfig config, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.config = config;
    this.nanoTime = nanoTime;
    this.members = new GridMembers(cluster);
    this.peers = new GridPeers(cluster, this::status, nanoTime);
    cluster.addService(peers);
  }

  void onStart(Consumer<Ignite> action) {
    onStart.add(action);
    Ignite running = engine;
    if (announced && running != null) {
      action.accept(running);
    }
  }

  void start() {
    members.found();
    stoppedNs = nanoTime.getAsLong();
    // Apart from the keeper, which may wait for the engine for long: what others say must stay
    // fresh.
    asking = Thread.ofPlatform().name("grid-peers").daemon().start(this::askOnAndOn);
    thread = Thread.ofPlatform().name("grid-keeper").daemon().start(this::run);
  }

  boolean isClosed() {
    return closed;
  }

  /** Waits until the engine is part of a majority for the first time. */
  boolean awaitReady(long timeoutMs) throws InterruptedException {
    return ready.await(timeoutMs, TimeUnit.MILLISECONDS);
  }

  @Nullable Ignite engine() {
    return engine;
  }

  /**
   * Whether this node is certainly part of the majority: the engine sees one, and a majority has
   * confirmed within the lease that it sees this node. The second finds what the engine cannot:
   * that this process stood still, or that a cut has not been noticed yet.
   */
  boolean hasMajority() {
    Ignite running = engine;
    return running != null
        && engineHasMajority(running)
        && nanoTime.getAsLong() - peers.confirmedNs(members.current().nodes()) < LEASE_NS;
  }

  /** Whether the grid's contents are being replaced. */
  boolean isGateShut() {
    return cluster.registry().get(GridMembers.GATE).isPresent();
  }

  private boolean engineHasMajority(Ignite running) {
    try {
      return !segmented
          && MajorityValidator.isMajority(
              running.cluster().forServers().nodes(), running.cluster().currentBaselineTopology());
    } catch (IllegalStateException stopped) {
      return false;
    }
  }

  /**
   * As {@link #hasMajority}, but if only the others' word is missing, waits for it a while: they
   * may be slow, or this node may have been.
   */
  boolean confirmMajority() {
    long deadlineNs = nanoTime.getAsLong() + CONFIRM_NS;
    while (!hasMajority()) {
      Ignite running = engine;
      if (running == null || !engineHasMajority(running) || nanoTime.getAsLong() > deadlineNs) {
        return false;
      }
      try {
        Thread.sleep(10);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return false;
      }
    }
    return true;
  }

  private void askOnAndOn() {
    while (!closed) {
      try {
        peers.ask();
        Thread.sleep(PERIOD_MS);
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        if (!closed) {
          log.warn("data grid: the others could not be asked: {}", e.toString());
        }
      }
    }
  }

  private void run() {
    while (!closed) {
      try {
        pass();
        Thread.sleep(PERIOD_MS);
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        if (!closed) {
          log.warn("data grid: {}", e.toString(), e);
        }
      }
    }
  }

  private void pass() throws InterruptedException {
    Ignite running = engine;
    if (running != null) {
      tend(running);
    }
    Own own =
        new Own(
            cluster.self(),
            running != null,
            running != null && sees(running),
            rank(),
            nanoTime.getAsLong() - stoppedNs < PATIENCE_NS);
    if (own.majority()) {
      return;
    }
    Map<String, GridStatus> answers = peers.fresh();
    if (answers.isEmpty() && members.current().nodes().size() > 1) {
      return;
    }
    try {
      // Who is in the view must be known for certain before data is deleted by it.
      cluster.registry().sync();
    } catch (FlotillaException noMajority) {
      return;
    }
    GridMembers.Members current = members.current();
    List<Peer> others =
        answers.entrySet().stream()
            .filter(entry -> current.nodes().contains(entry.getKey()))
            .map(entry -> peer(entry.getKey(), entry.getValue(), current))
            .toList();
    Action action =
        Rejoining.decide(
            new Own(own.id(), own.running(), false, rank(), own.patient()),
            others,
            current.nodes().size(),
            current.nodes().contains(cluster.self()));
    if (action != Action.STAY) {
      log.info("data grid: {} (rank {}), others {}", action, rank(), others);
    }
    switch (action) {
      case STAY -> {}
      case STOP -> stopEngine();
      case START -> startEngine();
      case START_EMPTY -> {
        noteDoubt(Doubt.FILLING);
        deleteData();
        startEngine();
      }
    }
  }

  /** Whether the engine sees a majority of the members, active or not. */
  private boolean sees(Ignite running) {
    try {
      Set<String> visible = Grid.visible(running);
      List<String> nodes = members.current().nodes();
      // One that is not a member yet belongs to whom it has joined.
      return !segmented && 2 * nodes.stream().filter(visible::contains).count() > nodes.size();
    } catch (IllegalStateException stopped) {
      return false;
    }
  }

  private void tend(Ignite running) {
    members.manage(running);
    boolean active;
    try {
      active = running.cluster().state() == ClusterState.ACTIVE;
    } catch (IgniteException | IllegalStateException e) {
      return;
    }
    if (!active) {
      return;
    }
    if (isGateShut()) {
      // What is registered for each start is due again, on the new contents.
      announced = false;
      return;
    }
    if (!engineHasMajority(running)) {
      noteDoubt(Doubt.ALONE);
    } else if (hasMajority() && GridMembers.baseline(running).contains(cluster.self())) {
      if (!announced) {
        announced = true;
        onStart.forEach(action -> action.accept(running));
        log.info("data grid up, members {}", members.current().nodes());
        ready.countDown();
      }
      if (Files.exists(config.doubt()) && isFilled(running)) {
        delete(config.doubt());
        log.info("data grid: this node's data is whole");
      }
    }
  }

  private int rank() {
    return Rejoining.rank(members.current().view().contains(cluster.self()), doubt());
  }

  private static Peer peer(String id, GridStatus status, GridMembers.Members current) {
    return new Peer(
        id,
        status.getRunning(),
        status.getActive(),
        status.getMajority(),
        status.getSeesAsker(),
        status.getWhole(),
        Rejoining.rank(
            current.view().contains(id),
            status.getFilling() ? Doubt.FILLING : status.getInDoubt() ? Doubt.ALONE : Doubt.NONE));
  }

  private GridStatus status(String asker) {
    Doubt doubt = doubt();
    GridStatus.Builder status =
        GridStatus.newBuilder().setInDoubt(doubt != Doubt.NONE).setFilling(doubt == Doubt.FILLING);
    Ignite running = engine;
    if (running == null) {
      return status.build();
    }
    try {
      Set<String> visible = Grid.visible(running);
      return status
          .setRunning(true)
          .setActive(running.cluster().state() == ClusterState.ACTIVE)
          .setMajority(sees(running))
          .setSeesAsker(!segmented && visible.contains(asker))
          .setWhole(isWhole(running))
          .addAllVisible(visible)
          .build();
    } catch (IgniteException | IllegalStateException e) {
      return status.clearRunning().build();
    }
  }

  /** Whether every partition of every cache has an owner. */
  private static boolean isWhole(Ignite running) {
    for (String name : running.cacheNames()) {
      var cache = running.cache(name);
      if (cache != null && !cache.lostPartitions().isEmpty()) {
        return false;
      }
    }
    return true;
  }

  /** Whether this node has all of what it is to hold. */
  private static boolean isFilled(Ignite running) {
    for (CacheGroupContext group : ((IgniteEx) running).context().cache().cacheGroups()) {
      if (group.systemCache()) {
        continue;
      }
      for (GridDhtLocalPartition partition : group.topology().localPartitions()) {
        if (partition.state() == GridDhtPartitionState.MOVING) {
          return false;
        }
      }
      Affinity<?> affinity = running.affinity(group.config().getName());
      if (group.topology().localPartitions().isEmpty() && affinity.partitions() > 0) {
        return false;
      }
    }
    return true;
  }

  private void startEngine() {
    segmented = false;
    announced = false;
    try {
      Ignite started = Ignition.start(EngineConfiguration.of(config, cluster));
      started
          .events()
          .localListen(
              event -> left(started, event),
              EventType.EVT_NODE_LEFT,
              EventType.EVT_NODE_FAILED,
              EventType.EVT_NODE_SEGMENTED);
      engine = started;
    } catch (IgniteException e) {
      // What it began must not go on half started.
      Ignition.stop(cluster.self(), true);
      log.warn("data grid: the engine did not start: {}", e.toString());
    }
  }

  /** Notes at once that this node is alone, before a write that ends now can be taken for done. */
  private boolean left(Ignite running, Event event) {
    if (event.type() == EventType.EVT_NODE_SEGMENTED) {
      segmented = true;
    }
    if (!engineHasMajority(running)) {
      noteDoubt(Doubt.ALONE);
    }
    return true;
  }

  private void stopEngine() {
    Ignite running = engine;
    engine = null;
    announced = false;
    stoppedNs = nanoTime.getAsLong();
    if (running != null) {
      Ignition.stop(running.name(), true);
    }
  }

  private Doubt doubt() {
    if (!Files.exists(config.doubt())) {
      return Doubt.NONE;
    }
    try {
      // A file cut short by a crash must not be trusted more than it deserves.
      return Files.readString(config.doubt()).equals(Doubt.ALONE.name())
          ? Doubt.ALONE
          : Doubt.FILLING;
    } catch (IOException e) {
      return Doubt.FILLING;
    }
  }

  /** Durably, before anything that rests on it; what is being filled stays so until it is. */
  private synchronized void noteDoubt(Doubt why) {
    Doubt now = doubt();
    if (now == why || now == Doubt.FILLING) {
      return;
    }
    try {
      Files.createDirectories(config.folder());
      Path temporary = config.doubt().resolveSibling("in-doubt.tmp");
      try (FileChannel file =
          FileChannel.open(
              temporary,
              StandardOpenOption.CREATE,
              StandardOpenOption.TRUNCATE_EXISTING,
              StandardOpenOption.WRITE)) {
        ByteBuffer bytes = ByteBuffer.wrap(why.name().getBytes(StandardCharsets.UTF_8));
        while (bytes.hasRemaining()) {
          file.write(bytes);
        }
        file.force(true);
      }
      Files.move(
          temporary,
          config.doubt(),
          StandardCopyOption.REPLACE_EXISTING,
          StandardCopyOption.ATOMIC_MOVE);
      try (FileChannel folder = FileChannel.open(config.folder(), StandardOpenOption.READ)) {
        folder.force(true);
      }
      log.warn(
          "data grid: this node's data is in doubt ({}) until it is part of the majority", why);
    } catch (IOException e) {
      throw storage("cannot note that this node's data is in doubt", e);
    }
  }

  private void deleteData() {
    log.warn("data grid: this node's older data is deleted; the others fill it again");
    deleteTree(config.pages());
    deleteTree(config.writeAheadLog());
  }

  private static void deleteTree(Path folder) {
    if (!Files.exists(folder, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    try (Stream<Path> tree = Files.walk(folder)) {
      for (Path path : tree.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    } catch (IOException e) {
      throw storage("cannot delete " + folder, e);
    }
  }

  private static void delete(Path file) {
    try {
      Files.deleteIfExists(file);
    } catch (IOException e) {
      throw storage("cannot delete " + file, e);
    }
  }

  private static FlotillaException storage(String what, IOException e) {
    return new FlotillaException(
        Code.STORAGE,
        what + ": " + e.getMessage(),
        "Check that the disk of the data folder works and has space.",
        e);
  }

  @Override
  public void close() {
    closed = true;
    Thread asks = asking;
    if (asks != null) {
      asks.interrupt();
    }
    Thread running = thread;
    if (running != null) {
      running.interrupt();
      try {
        running.join();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    stopEngine();
  }
}
