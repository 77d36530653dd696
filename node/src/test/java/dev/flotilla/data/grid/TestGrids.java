package dev.flotilla.data.grid;

import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.TestNodes;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** Real nodes with real grids, in this process, on loopback. */
public final class TestGrids implements AutoCloseable {

  /** One node. */
  public record Member(ClusterConfig config, ClusterNode cluster, Grid grid) {

    public String id() {
      return cluster.self();
    }
  }

  /** What else is made on a node before it starts, such as a service for other nodes. */
  @FunctionalInterface
  public interface Extra {
    void addTo(ClusterNode cluster, Grid grid, Path dataFolder);
  }

  private final TestNodes nodes;
  private final Extra extra;
  private final List<Member> members = new CopyOnWriteArrayList<>();
  private Duration heldUp = Duration.ofSeconds(30);

  public TestGrids(Path folder) {
    this(folder, (cluster, grid, dataFolder) -> {});
  }

  public TestGrids(Path folder, Extra extra) {
    this.nodes = new TestNodes(folder);
    this.extra = extra;
  }

  /** For nodes that start from now on, see {@link GridConfig#heldUp}. */
  public TestGrids heldUp(Duration bound) {
    heldUp = bound;
    return this;
  }

  /** Starts the next node, joined to the first running one. */
  public Member add() {
    ClusterConfig config = nodes.config("node-" + (members.size() + 1));
    ClusterNode cluster =
        members.isEmpty()
            ? nodes.create(config)
            : nodes.join(
                config, running().getFirst().config(), running().getFirst().cluster().invite());
    return start(config, cluster);
  }

  /** Starts so many. */
  public List<Member> add(int count) {
    List<Member> added = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      added.add(add());
    }
    return added;
  }

  /** Starts a stopped one again, on its folder and ports. */
  public Member restart(Member stopped) {
    members.remove(stopped);
    return start(stopped.config(), nodes.create(stopped.config()));
  }

  private Member start(ClusterConfig config, ClusterNode cluster) {
    Grid grid =
        Grid.create(
            cluster,
            GridConfig.of(config.dataFolder(), config.bindHost(), config.httpPort())
                .withMemory(64L << 20)
                .withHeldUp(heldUp));
    extra.addTo(cluster, grid, config.dataFolder());
    cluster.start();
    grid.start();
    Member member = new Member(config, cluster, grid);
    members.add(member);
    return member;
  }

  /** Stops one; its data stays. */
  public void stop(Member member) {
    member.grid().close();
    member.cluster().close();
  }

  public List<Member> running() {
    List<ClusterNode> open = nodes.running();
    return members.stream().filter(member -> open.contains(member.cluster())).toList();
  }

  @Override
  public void close() {
    for (Member member : members.reversed()) {
      member.grid().close();
    }
    nodes.close();
  }
}
