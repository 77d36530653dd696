package dev.flotilla.cluster;

/** For tests of other packages: how a node's process dies, and ports for a new one. */
public final class NodeDeath {

  private NodeDeath() {}

  /** As kill -9, within one process. */
  public static void kill(ClusterNode node) {
    node.kill();
  }

  /** The first of seven ports in a row that are free now. */
  public static int freePorts() {
    return TestNodes.freePorts();
  }
}
