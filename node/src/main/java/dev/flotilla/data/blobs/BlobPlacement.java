package dev.flotilla.data.blobs;

import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;

/**
 * Which nodes keep a chunk: rendezvous hashing (Thaler and Ravishankar 1998, "Using name-based
 * mappings to increase hit rates").
 *
 * <p>Each node draws a number from its id and the chunk's digest, and those with the highest keep
 * the chunk. Everyone who knows the members knows the order, without a table. A node that comes
 * takes only the chunks for which it draws higher than one of their keepers, an equal share of each
 * node's; one that goes leaves the others where they are.
 */
final class BlobPlacement {

  private BlobPlacement() {}

  /** All of these nodes, from the one that should keep the chunk first of all. */
  static List<String> order(String chunk, Collection<String> nodes) {
    record Drawn(String node, long draw) {}
    long seed = Long.parseUnsignedLong(chunk, 0, 16, 16);
    return nodes.stream()
        .distinct()
        .map(node -> new Drawn(node, mix(seed ^ hash(node))))
        .sorted(
            Comparator.<Drawn>comparingLong(drawn -> drawn.draw() ^ Long.MIN_VALUE)
                .reversed()
                .thenComparing(Drawn::node))
        .map(Drawn::node)
        .toList();
  }

  /** Those that should keep it. */
  static List<String> keepers(String chunk, Collection<String> nodes, int copies) {
    List<String> order = order(chunk, nodes);
    return order.subList(0, Math.min(copies, order.size()));
  }

  /** FNV-1a over the id, mixed so that ids alike in all but one letter draw unlike numbers. */
  private static long hash(String node) {
    long hash = 0xcbf29ce484222325L;
    for (byte b : node.getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (b & 0xff)) * 0x100000001b3L;
    }
    return mix(hash);
  }

  /** The finaliser of SplitMix64: each bit of the input flips half of the output's. */
  private static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
    z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
    return z ^ (z >>> 31);
  }
}
