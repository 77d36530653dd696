package dev.flotilla.data.search;

import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import org.apache.lucene.util.StringHelper;

/**
 * Where documents and shards go.
 *
 * <p>Rendezvous hashing (Thaler and Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996):
 * each node has a weight for each shard, and the heaviest hold it. A node that comes or goes moves
 * only the shards that it is among the heaviest for.
 */
final class SearchPlacement {

  private SearchPlacement() {}

  /** A document's shard; never changes, since documents lie by it. */
  static int shardOf(String id, int shards) {
    byte[] bytes = id.getBytes(StandardCharsets.UTF_8);
    return Math.floorMod(
        StringHelper.murmurhash3_x86_32(bytes, 0, bytes.length, 0x466c6f74), shards);
  }

  /** All nodes, in the order in which they should hold the shard. */
  static List<String> rank(String generation, int shard, Collection<String> nodes) {
    return nodes.stream()
        .sorted(
            Comparator.comparingLong((String node) -> weight(generation + "/" + shard, node))
                .reversed()
                .thenComparing(Comparator.naturalOrder()))
        .toList();
  }

  /** FNV-1a, then the finalizer of SplitMix64, so that all bits count. */
  private static long weight(String shard, String node) {
    long hash = 0xcbf29ce484222325L;
    for (byte one : (shard + "@" + node).getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (one & 0xff)) * 0x100000001b3L;
    }
    hash = (hash ^ (hash >>> 30)) * 0xbf58476d1ce4e5b9L;
    hash = (hash ^ (hash >>> 27)) * 0x94d049bb133111ebL;
    return hash ^ (hash >>> 31);
  }
}
