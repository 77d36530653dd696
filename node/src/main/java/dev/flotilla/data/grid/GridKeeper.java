package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.data.grid.Rejoining.Action;
import dev.flotilla.data.grid.Rejoining.Own;
import dev.flotilla.data.grid.Rejoining.Peer;
import dev.flotilla.data.proto.GridStatus;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.Ignition;
import org.apache.ignite.cluster.ClusterState;
import org.apache.ignite.events.Event;
import org.apache.ignite.events.EventType;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.affinity.AffinityTopologyVersion;
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
  private static final long CONFIRM_NS = 8_000_000_000L;

  /** How long it lets others start first, or answer. */
  private static final long PATIENCE_NS = 15_000_000_000L;

  private final Cluster cluster;
  private final GridConfig config;
  private final GridMembers members;
  private final GridPeers peers;
  private final LongSupplier nanoTime;
  private final EngineUse use = new EngineUse();
  private final List<Consumer<Ignite>> onStart = new CopyOnWriteArrayList<>();
  private final CountDownLatch ready = new CountDownLatch(1);
  private final Semaphore wake = new Semaphore(0);
  private volatile @Nullable Ignite engine;

  /** From before the engine starts until it has stopped. */
  private volatile boolean up;

  private volatile Approval approval = new Approval(null, -1);
  private String lastDecision = "";
  private long stoppedNs;
  private long lastMajorityNs;

  /** The topology that was last ready, and since when; only the keeper's thread uses them. */
  private @Nullable AffinityTopologyVersion readyTopology;

  private long readySinceNs;
  private volatile String decided = "";

  /** What this start of the engine began with; see {@link EngineState#restored}. */
  private volatile Map<Integer, Map<Integer, Long>> restored = Map.of();

  /** The arrangement in which this node's copies of lost partitions were last counted. */
  private volatile String recounted = "";

  private volatile boolean segmented;
  private volatile boolean broken;
  private volatile boolean announced;
  private volatile boolean closed;
  private volatile @Nullable Thread thread;
  private volatile @Nullable Thread asking;
  private volatile @Nullable Thread deciding;

  /** A topology of an engine for which the registry's view was seen to be decided and here. */
  private record Approval(@Nullable Ignite engine, long version) {}

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
    lastMajorityNs = stoppedNs;
    // Apart from the keeper, which may wait for the engine for long: what others say must stay
    // fresh.
    asking = Thread.ofPlatform().name("grid-peers").daemon().start(this::askOnAndOn);
    var _ = cluster.registry().subscribe(this::lookIfDecided);
    // Apart from it too, since what the keeper calls at a start may wait for a decision.
    deciding = Thread.ofPlatform().name("grid-members").daemon().start(this::decideOnAndOn);
    thread = Thread.ofPlatform().name("grid-keeper").daemon().start(this::run);
  }

  /** The view may be decided just now, and writes wait for it. */
  private void lookIfDecided() {
    String topology = members.current().topology();
    if (!topology.equals(decided)) {
      decided = topology;
      wake.release();
    }
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

  /** Whether this node is certainly part of the majority; see {@link #confirmMajority}. */
  boolean hasMajority() {
    Ignite running = engine;
    return running != null && hasMajority(running);
  }

  /**
   * Three things must hold. The engine sees a majority. All that have everything are in this
   * engine's topology, as the registry decided for just this topology. And a majority has confirmed
   * within the lease that it sees this node: that finds what the engine cannot, that this process
   * stood still, or that a cut has not been noticed yet.
   */
  private boolean hasMajority(Ignite running) {
    try {
      Approval approved = approval;
      return engineHasMajority(running)
          && isSame(approved.engine(), running)
          && approved.version() == running.cluster().topologyVersion()
          && nanoTime.getAsLong() - peers.confirmedNs(members.current().nodes()) < LEASE_NS;
    } catch (IllegalStateException stopped) {
      return false;
    }
  }

  /** All that is done with an engine goes through this, so that the engine can be stopped. */
  <T> T use(Ignite running, Function<Ignite, T> operation) {
    return use.apply(running, operation);
  }

  boolean isMember(String nodeId) {
    return members.current().nodes().contains(nodeId);
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
   * may be slow, or this node may have been, or the view is just being decided.
   *
   * @param running the engine on which something was done; another one cannot speak for it
   */
  boolean confirmMajority(Ignite running) {
    long deadlineNs = nanoTime.getAsLong() + CONFIRM_NS;
    while (!hasMajority(running)) {
      if (!isSame(engine, running)
          || !engineHasMajority(running)
          || nanoTime.getAsLong() > deadlineNs) {
        return false;
      }
      try {
        Thread.sleep(5);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return false;
      }
    }
    return isSame(engine, running);
  }

  /** What was done on one start of the engine says nothing of another. */
  @SuppressWarnings("ReferenceEquality")
  private static boolean isSame(@Nullable Ignite one, @Nullable Ignite other) {
    return one == other;
  }

  /**
   * Looks whether the view is decided for the engine's topology, and is all there. This node's copy
   * of the registry is enough: one of the view that leaves it, or claims it, was not in this
   * topology any more.
   */
  private void approve(Ignite running) {
    long version = running.cluster().topologyVersion();
    if (isSame(approval.engine(), running) && approval.version() == version) {
      return;
    }
    GridMembers.Members current = members.current();
    if (current.topology().equals(GridMembers.topology(running))
        && current.isEnough(Grid.visible(running))
        && running.cluster().topologyVersion() == version) {
      approval = new Approval(running, version);
    }
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

  private void decideOnAndOn() {
    while (!closed) {
      try {
        Ignite running = engine;
        if (running != null) {
          recountLost(running);
          Map<String, String> filled = new HashMap<>();
          Map<String, String> counts = new HashMap<>(Map.of(cluster.self(), recounted));
          peers
              .fresh()
              .forEach(
                  (id, status) -> {
                    filled.put(id, status.getFilled());
                    counts.put(id, status.getRecounted());
                  });
          members.manage(running, filled, counts);
          approve(running);
          EngineState.completeBaselineHistory(running);
        }
        var _ = wake.tryAcquire(PERIOD_MS, TimeUnit.MILLISECONDS);
        wake.drainPermits();
      } catch (InterruptedException e) {
        return;
      } catch (IgniteException | IllegalStateException stopped) {
        // The keeper has stopped the engine, or the engine itself.
      } catch (IgniteCheckedException | RuntimeException e) {
        if (!closed) {
          log.warn("data grid: {}", e.toString(), e);
        }
      }
    }
  }

  private void recountLost(Ignite running) {
    String arrangement = GridMembers.arrangement(running);
    if (!arrangement.equals(recounted) && EngineState.isSettled(running)) {
      EngineState.recountLost(running, restored);
      if (arrangement.equals(GridMembers.arrangement(running))) {
        recounted = arrangement;
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
    if (running != null && broken) {
      log.warn("data grid: the engine cannot go on (such as after a full disk); it starts again");
      stopEngine();
      running = null;
    }
    if (running != null && segmented) {
      // The others let nobody join through an engine that has given its topology up.
      log.warn("data grid: the engine was cut off for too long; it starts again");
      stopEngine();
      running = null;
    }
    if (running != null && holdsUpTopology(running)) {
      log.warn(
          "data grid: what runs here has held up a change of the topology for {} s, and everything"
              + " that begins on any node waits for it; the engine starts again to end it",
          config.heldUp().toSeconds());
      stopEngine();
      running = null;
    }
    if (running == null && cluster.disk().isExhausted()) {
      // Started without room for its write-ahead log it would only break again.
      return;
    }
    if (running != null) {
      tend(running);
    }
    Own own =
        new Own(
            cluster.self(),
            running != null,
            running != null && sees(running),
            rank(),
            nanoTime.getAsLong() - Math.max(stoppedNs, lastMajorityNs) < PATIENCE_NS,
            isKeeper());
    if (own.majority()) {
      lastMajorityNs = nanoTime.getAsLong();
      return;
    }
    // What others said before this engine had stopped may be out of date since: they have joined
    // it.
    Map<String, GridStatus> answers = running == null ? peers.fresh(stoppedNs) : peers.fresh();
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
            new Own(own.id(), own.running(), false, rank(), own.patient(), isKeeper()),
            others,
            current.nodes().size(),
            current.nodes().contains(cluster.self()));
    if (action == Action.CLAIM_VIEW
        && running != null
        && current.view().equals(List.of(cluster.self()))) {
      return;
    }
    Set<String> seeds = Rejoining.seeds(rank(), others);
    String decision = action + " (rank " + rank() + "), others " + others;
    if (!decision.equals(lastDecision)) {
      lastDecision = decision;
      log.info("data grid: {}", decision);
    }
    switch (action) {
      case STAY -> {}
      case STOP -> stopEngine();
      case START -> startEngine(seeds);
      case CLAIM_VIEW -> {
        if (members.claimView() && running == null) {
          startEngine(Set.of());
        }
      }
      case START_EMPTY -> {
        if (members.leaveView()) {
          deleteData();
          startEngine(seeds);
        }
      }
    }
  }

  /**
   * Whether the engine's topology has been changing for too long, and something of this node (a
   * transaction, an update, a lock) is what the change waits for. Such as a transaction whose other
   * nodes died at a bad moment: it would never end by itself.
   */
  private boolean holdsUpTopology(Ignite running) {
    try {
      var shared = ((IgniteEx) running).context().cache().context();
      AffinityTopologyVersion wanted =
          ((IgniteEx) running).context().discovery().topologyVersionEx();
      AffinityTopologyVersion ready = shared.exchange().readyAffinityVersion();
      long now = nanoTime.getAsLong();
      if (ready.compareTo(wanted) >= 0 || !ready.equals(readyTopology)) {
        readyTopology = ready;
        readySinceNs = now;
        return false;
      }
      // Where several hold it up, one goes first: what it ends may be all that the others wait for.
      long turn = Math.max(0, members.current().nodes().indexOf(cluster.self()));
      return now - readySinceNs > config.heldUp().toNanos() * (6 + turn) / 6
          && (!shared.partitionReleaseFuture(wanted).isDone()
              || shared.exchange().exchangeFutures().stream()
                  .anyMatch(f -> !shared.mvcc().unfinishedLocks(f.initialVersion()).isEmpty()));
    } catch (IgniteException | IllegalStateException stopped) {
      return false;
    }
  }

  /** Whether the engine sees a majority of the members, one of the view among them. */
  private boolean sees(Ignite running) {
    try {
      // One that is not a member yet belongs to whom it has joined.
      return !segmented && members.current().isMajority(Grid.visible(running));
    } catch (IllegalStateException stopped) {
      return false;
    }
  }

  private void tend(Ignite running) {
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
      noteAlone();
      return;
    }
    if (!hasMajority(running) || !GridMembers.baseline(running).contains(cluster.self())) {
      return;
    }
    if (!announced) {
      announced = true;
      onStart.forEach(action -> action.accept(running));
      log.info("data grid up, members {}", members.current().nodes());
      ready.countDown();
    }
    if (wasAlone() && members.current().view().contains(cluster.self())) {
      delete(config.alone());
    }
  }

  /** Whether this node may have the only copy of something. */
  private boolean isKeeper() {
    return members.current().keepers().contains(cluster.self());
  }

  private int rank() {
    return Rejoining.rank(members.current().view().contains(cluster.self()), wasAlone());
  }

  private static Peer peer(String id, GridStatus status, GridMembers.Members current) {
    return new Peer(
        id,
        status.getChanging(),
        status.getRunning(),
        status.getActive(),
        status.getMajority(),
        status.getSeesAsker(),
        status.getWhole(),
        status.getLost(),
        Rejoining.rank(current.view().contains(id), status.getAlone()));
  }

  private GridStatus status(String asker) {
    GridStatus.Builder status = GridStatus.newBuilder().setAlone(wasAlone());
    Ignite running = engine;
    if (running == null) {
      return status.setChanging(up).build();
    }
    try {
      Set<String> visible = Grid.visible(running);
      boolean settled = EngineState.isSettled(running);
      boolean lost = settled && !EngineState.lost(running).isEmpty();
      return status
          .setRunning(true)
          .setActive(running.cluster().state() == ClusterState.ACTIVE)
          .setMajority(sees(running))
          .setSeesAsker(!segmented && visible.contains(asker))
          .setWhole(settled && !lost)
          .setLost(lost)
          .setFilled(
              members.current().view().contains(cluster.self()) ? "" : filledTopology(running))
          .setRecounted(recounted)
          .addAllVisible(visible)
          .build();
    } catch (IgniteException | IllegalStateException e) {
      return status.clearRunning().setChanging(true).build();
    }
  }

  /** The topology for which this node has all that it is to hold; empty if it has not. */
  private String filledTopology(Ignite running) {
    String topology = GridMembers.topology(running);
    return GridMembers.baseline(running).contains(cluster.self())
            && EngineState.isFilled(running)
            && topology.equals(GridMembers.topology(running))
        ? topology
        : "";
  }

  /**
   * @param seeds whom to join; if there are none, nobody
   */
  private void startEngine(Set<String> seeds) {
    segmented = false;
    broken = false;
    announced = false;
    readyTopology = null;
    up = true;
    try {
      Ignite started =
          Ignition.start(
              EngineConfiguration.of(
                  config,
                  cluster,
                  seeds,
                  ignite -> restored = EngineState.restored(ignite),
                  () -> broken = true));
      EngineState.storeBaselineHistory(started);
      started
          .events()
          .localListen(
              event -> changed(started, event),
              EventType.EVT_NODE_JOINED,
              EventType.EVT_NODE_LEFT,
              EventType.EVT_NODE_FAILED,
              EventType.EVT_NODE_SEGMENTED);
      engine = started;
    } catch (IgniteException | IgniteCheckedException e) {
      // What it began must not go on half started.
      Ignition.stop(cluster.self(), true);
      up = false;
      stoppedNs = nanoTime.getAsLong();
      log.warn("data grid: the engine did not start: {}", e.toString());
    }
  }

  /** Notes at once that this node is alone, before a write that ends now can be taken for done. */
  private boolean changed(Ignite running, Event event) {
    if (event.type() == EventType.EVT_NODE_SEGMENTED) {
      segmented = true;
    }
    if (event.type() != EventType.EVT_NODE_JOINED && !engineHasMajority(running)) {
      noteAlone();
    }
    wake.release();
    return true;
  }

  private void stopEngine() {
    Ignite running = engine;
    engine = null;
    announced = false;
    if (running != null) {
      use.stop(running);
    }
    up = false;
    stoppedNs = nanoTime.getAsLong();
  }

  private boolean wasAlone() {
    return Files.exists(config.alone());
  }

  /** Durably, before anything that rests on it. */
  private synchronized void noteAlone() {
    if (wasAlone()) {
      return;
    }
    try {
      Files.createDirectories(config.folder());
      NodeFiles.writeDurably(config.alone(), new byte[0], false);
      log.warn("data grid: this node is alone; what it does now counts for nothing");
    } catch (IOException e) {
      throw storage("cannot note that this node was alone", e);
    }
  }

  private void deleteData() {
    if (Files.exists(config.pages())) {
      log.warn("data grid: this node's older data is deleted; the others fill it again");
    }
    try {
      NodeFiles.deleteTree(config.pages());
      NodeFiles.deleteTree(config.writeAheadLog());
      Files.deleteIfExists(config.alone());
    } catch (IOException e) {
      throw storage("cannot delete this node's older data in " + config.folder(), e);
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
    for (Thread each : new Thread[] {asking, deciding, thread}) {
      if (each != null) {
        each.interrupt();
      }
    }
    Thread keeper = thread;
    if (keeper != null) {
      try {
        keeper.join();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    stopEngine();
  }
}
