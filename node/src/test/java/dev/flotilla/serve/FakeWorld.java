package dev.flotilla.serve;

import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Several nodes in one process around one registry, and a controller on the one that leads: a test
 * decides when a node is lost and when that is noticed.
 */
final class FakeWorld implements AutoCloseable {

  private final FakeRegistry registry = new FakeRegistry();
  private final Map<String, FakeCluster> nodes = new TreeMap<>();
  private final Map<String, NodeInfo> infos = new TreeMap<>();
  private Optional<String> leader = Optional.empty();
  private volatile boolean closed;
  private final Thread controller =
      Thread.ofPlatform().name("fake-controller").daemon().unstarted(this::control);

  synchronized FakeCluster add(String id, long memoryBytes) {
    FakeCluster node = addWithoutController(id, memoryBytes);
    if (leader.isEmpty()) {
      leader = Optional.of(id);
      show();
      controller.start();
    }
    return node;
  }

  /** For tests that are the controller themselves. */
  synchronized FakeCluster addWithoutController(String id, long memoryBytes) {
    FakeCluster node = new FakeCluster(id, registry, List.of());
    node.connect(node);
    for (FakeCluster other : nodes.values()) {
      other.connect(node);
      node.connect(other);
    }
    nodes.put(id, node);
    infos.put(
        id,
        FakeCluster.node(
            id,
            NodeInfo.State.UP,
            Map.of(
                NodeProfile.MEMORY_BYTES,
                (double) memoryBytes,
                NodeProfile.WEIGHT_BYTES_PER_SECOND,
                1e9)));
    show();
    return node;
  }

  /** Everyone sees who is there now. */
  private void show() {
    List<NodeInfo> now = List.copyOf(infos.values());
    for (FakeCluster node : nodes.values()) {
      node.nodes(now);
      node.leader(leader);
    }
  }

  FakeRegistry registry() {
    return registry;
  }

  synchronized FakeCluster node(String id) {
    return nodes.get(id);
  }

  /** Kills a node's process: its streams break; nobody has noticed yet. */
  void kill(String id) {
    node(id).kill();
  }

  /** The failure detector speaks. */
  void notice(String id, NodeInfo.State state) {
    synchronized (this) {
      infos.put(id, FakeCluster.node(id, state, infos.get(id).profile()));
      if (leader.equals(Optional.of(id))) {
        leader =
            infos.values().stream()
                .filter(node -> node.state() == NodeInfo.State.UP)
                .map(NodeInfo::id)
                .findFirst();
      }
      show();
    }
    registry.changed();
  }

  private synchronized Optional<FakeCluster> acting() {
    return leader.map(nodes::get);
  }

  private void control() {
    while (!closed) {
      acting().ifPresent(FakeCluster::reconcile);
      try {
        Thread.sleep(20);
      } catch (InterruptedException e) {
        return;
      }
    }
  }

  @Override
  public void close() throws Exception {
    closed = true;
    controller.join();
    for (FakeCluster node : new ArrayList<>(nodes.values())) {
      node.close();
    }
  }
}
