package dev.flotilla.simulate;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Threads;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.ClusterCore;
import dev.flotilla.cluster.DiskSpace;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.cluster.RegistryClient;
import dev.flotilla.serve.ServingCore;
import io.grpc.BindableService;
import io.grpc.ManagedChannel;
import io.grpc.ServerCallHandler;
import io.grpc.ServerMethodDefinition;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import javax.net.ssl.SSLContext;
import org.jspecify.annotations.Nullable;

/**
 * A node from its start to its death: the parts of a real one that decide, on the threads, the
 * network and the log of a world.
 */
final class SimulatedNode extends World.Scope implements Cluster {

  private static final long COMMIT_NS = 8 * World.S;
  private static final long RETRY_NS = 20 * World.MS;
  private static final double CLOCK_OFF = 0.002;

  private final World world;
  private final Reach reach;
  private final Network.Machine machine;
  private final String id;
  private final Map<String, Double> profile;
  private final FiberThreads threads;
  private final Group.Member member;
  private final RegistryClient registry;
  private final ClusterCore core;
  private final ServingCore serving;
  private final Locks locks;
  private final Map<String, ServerMethodDefinition<?, ?>> methods = new HashMap<>();
  private final Map<String, ManagedChannel> channels = new HashMap<>();
  private boolean started;

  /**
   * @param id names this start of the machine's node
   */
  SimulatedNode(
      World world,
      Reach reach,
      Group group,
      Network.Machine machine,
      String id,
      Map<String, Double> profile,
      ToyModel model) {
    this.world = world;
    this.reach = reach;
    this.machine = machine;
    this.id = id;
    this.profile = profile;
    double off = (world.random.nextDouble() * 2 - 1) * CLOCK_OFF;
    this.threads = new FiberThreads(world, this, world.random.nextLong() >> 8, 1 + off);
    machine.process = this;
    this.member = group.new Member(this, machine.disk.log, this::changed);
    this.registry = new RegistryClient(machine.name, member, threads, COMMIT_NS);
    this.core =
        new ClusterCore(
            machine.name,
            registry,
            member,
            (node, outcome) -> reach.ping(this, node, outcome),
            threads);
    SimpleMeterRegistry meters = new SimpleMeterRegistry();
    this.locks = Locks.embedded(this, threads::nanoTime, meters);
    this.serving = new ServingCore(this, model.on(this), _ -> ToyModel.VOCABULARY, meters);
  }

  private void changed() {
    RegistryClient started = registry;
    if (started != null) { // the log may have something before the registry is there
      started.changed();
    }
  }

  /** The machine's name, and the node's. */
  String name() {
    return machine.name;
  }

  String id() {
    return id;
  }

  Group.Member member() {
    return member;
  }

  ServingCore serving() {
    return serving;
  }

  Locks locks() {
    return locks;
  }

  /** Whether it has come to be part of the cluster. */
  boolean started() {
    return started;
  }

  /** What a forced write, or a read, takes now. */
  long diskNs(long usualNs) {
    long slow = world.nowNs() < machine.disk.slowUntilNs ? machine.disk.slowNs : 0;
    return world.between(usualNs / 2, 2 * usualNs) + (slow > 0 ? world.between(0, slow) : 0);
  }

  @Nullable ServerCallHandler<?, ?> handler(String method) {
    ServerMethodDefinition<?, ?> definition = methods.get(method);
    return definition == null ? null : definition.getServerCallHandler();
  }

  // What a node asks of its cluster.

  @Override
  public Threads threads() {
    return threads;
  }

  @Override
  public String self() {
    return machine.name;
  }

  @Override
  public List<NodeInfo> nodes() {
    return core.nodes();
  }

  @Override
  public Optional<String> leader() {
    return member.leader();
  }

  @Override
  public Registry registry() {
    return registry;
  }

  @Override
  public ManagedChannel channel(String nodeId) {
    if (registry.get(new Registry.Key("node", nodeId)).isEmpty()) {
      throw new FlotillaException(Code.NOT_FOUND, "no node " + nodeId + " in this cluster", "");
    }
    return channels.computeIfAbsent(nodeId, to -> reach.channel(this, to));
  }

  @Override
  public void addService(BindableService service) {
    service
        .bindService()
        .getMethods()
        .forEach(method -> methods.put(method.getMethodDescriptor().getFullMethodName(), method));
  }

  @Override
  public void addReconciler(Reconciler reconciler) {
    core.addReconciler(reconciler);
  }

  @Override
  public boolean isMember(String nodeId) {
    return member.members().contains(nodeId);
  }

  @Override
  public void publish(Map<String, Double> measured) {
    core.publish(measured);
  }

  @Override
  public void drain(String nodeId, boolean drained) {
    core.drain(nodeId, drained);
  }

  @Override
  public void remove(String nodeId) {
    throw new Violation("nobody removes nodes here");
  }

  @Override
  public DiskSpace disk() {
    throw new Violation("nobody asks for room on the disk here");
  }

  @Override
  public SSLContext tls() {
    throw new Violation("nobody opens sockets here");
  }

  /** Of this start, as others may ask; 0 until it has registered. */
  long incarnation() {
    return core.incarnation();
  }

  // Life.

  @Override
  public void start() {
    var _ = threads.start("main-" + id, this::main);
  }

  private void main() {
    try {
      AutoCloseable _ = registry.subscribe(core::changed);
      while (!enter()) {
        threads.sleep(RETRY_NS);
      }
      core.open();
      serving.start();
      started = true;
    } catch (InterruptedException e) {
      throw new Violation("interrupted", e);
    }
  }

  private boolean enter() {
    if (leader().isEmpty()) {
      return false;
    }
    try {
      registry.sync();
      core.register(
          incarnation ->
              new NodeInfo(
                  name(), name(), name(), 8000, "", 1, incarnation, NodeInfo.State.UP, profile));
      return true;
    } catch (FlotillaException e) {
      return false; // no majority, or not sure: once more
    }
  }

  /** Its process is killed, or its machine has lost power. */
  void die() {
    if (!down) {
      down = true;
      member.die();
      reach.ended(this);
    }
  }

  @Override
  public void close() {
    die();
  }
}
