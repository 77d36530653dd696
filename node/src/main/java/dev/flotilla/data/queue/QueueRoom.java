package dev.flotilla.data.queue;

/** How many more messages a queue's partitions take, as far as this node knows without looking. */
final class QueueRoom {

  private final long depthMax;
  private final long[] left;
  private final long[] foundAtNs;
  private final boolean[] known;

  QueueRoom(int partitions, long depthMax) {
    this.depthMax = depthMax;
    this.left = new long[partitions];
    this.foundAtNs = new long[partitions];
    this.known = new boolean[partitions];
  }

  /** Takes room for so many, if there was enough at a look since then; otherwise look. */
  synchronized boolean take(int partition, int count, long sinceNs) {
    if (!known[partition] || foundAtNs[partition] - sinceNs < 0 || left[partition] < count) {
      return false;
    }
    left[partition] -= count;
    return true;
  }

  /** What a look found, those counted in that are on their way. */
  synchronized void found(int partition, long depth, long nowNs) {
    known[partition] = true;
    left[partition] = depthMax - depth;
    foundAtNs[partition] = nowNs;
  }
}
