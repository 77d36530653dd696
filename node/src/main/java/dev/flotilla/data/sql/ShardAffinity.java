package dev.flotilla.data.sql;

import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.ignite.binary.BinaryObject;
import org.apache.ignite.cache.affinity.rendezvous.RendezvousAffinityFunction;
import org.apache.ignite.cluster.ClusterNode;
import org.jspecify.annotations.Nullable;

/**
 * Which partition a row of a range or list table belongs to, and which nodes hold it: {@code
 * partition = shard × spread + hash of the whole key mod spread}.
 *
 * <p>The engine stores an object of this class with each table's configuration, so its fields are
 * plain and stay as they are. The partition of a key must never change while a table lives; a split
 * therefore fills a new table ({@link ShardMove}).
 *
 * <p>A trap: the engine's planner takes two tables for co-located when their affinity functions
 * have the same class and number of partitions, whatever they hold, and then loses rows of joins in
 * silence. So each sharding that is not a co-location of another gets a number of partitions of its
 * own, padded with ones that stay empty; {@link GridSharding} chooses it.
 */
final class ShardAffinity extends RendezvousAffinityFunction {

  private static final long serialVersionUID = 1L;

  /** The column whose value decides, in the engine's spelling. */
  private final String column;

  /** How many partitions each shard has. */
  private final int spread;

  /** Whether the keys are values of a list rather than the lower bounds of ranges. */
  private final boolean list;

  /** Sorted: bounds between the ranges, or values of the list; numbers, or milliseconds. */
  private final long[] numbers;

  /** The same for text; one of the two is empty. */
  private final String[] texts;

  /** For a list, the shard of the value at each index. */
  private final int[] shardOf;

  /** For each shard the nodes it may be on, by id; empty: any. */
  private final String[][] nodes;

  ShardAffinity(
      String column,
      int partitions,
      int spread,
      boolean list,
      long[] numbers,
      String[] texts,
      int[] shardOf,
      String[][] nodes) {
    super(false, partitions);
    this.column = column;
    this.spread = spread;
    this.list = list;
    this.numbers = numbers;
    this.texts = texts;
    this.shardOf = shardOf;
    this.nodes = nodes;
  }

  int shards() {
    return nodes.length;
  }

  int spread() {
    return spread;
  }

  @Override
  public int partition(@Nullable Object key) {
    if (key == null) {
      throw new IllegalArgumentException("a key has no value in column " + column);
    }
    int hash = key.hashCode();
    Object value = key;
    if (key instanceof BinaryObject row) {
      value = row.field(column);
    }
    return shard(value) * spread + Math.floorMod(hash ^ (hash >>> 16), spread);
  }

  /** Of ranges: the shard of the greatest values below one, of the same or an earlier shard. */
  int shardBelow(Object value) {
    int at = find(value);
    return at >= 0 ? at : -at - 1;
  }

  private int find(Object value) {
    return texts.length > 0 || value instanceof String
        ? Arrays.binarySearch(texts, String.valueOf(value))
        : Arrays.binarySearch(numbers, number(value));
  }

  /** The shard of a value of the column. */
  int shard(Object value) {
    int at = find(value);
    if (list) {
      return at >= 0 ? shardOf[at] : nodes.length - 1;
    }
    return at >= 0 ? at + 1 : -at - 1;
  }

  @SuppressWarnings("JavaUtilDate")
  static long number(Object value) {
    return switch (value) {
      case Number number -> number.longValue();
      // What the engine hands over for a timestamp or a date.
      case java.util.Date date -> date.getTime();
      case Instant instant -> instant.toEpochMilli();
      default ->
          throw new IllegalArgumentException(
              "a key of type " + value.getClass().getName() + " has no order among shards");
    };
  }

  @Override
  public List<ClusterNode> assignPartition(
      int partition,
      List<ClusterNode> all,
      int backups,
      @Nullable Map<UUID, Collection<ClusterNode>> neighbours) {
    int shard = partition / spread;
    if (shard >= nodes.length || nodes[shard].length == 0) {
      return super.assignPartition(partition, all, backups, neighbours);
    }
    List<String> wanted = Arrays.asList(nodes[shard]);
    List<ClusterNode> allowed = new ArrayList<>();
    for (ClusterNode node : all) {
      if (wanted.contains(String.valueOf(node.consistentId()))) {
        allowed.add(node);
      }
    }
    // All of its nodes were removed from the cluster for good: better anywhere than nowhere.
    return super.assignPartition(partition, allowed.isEmpty() ? all : allowed, backups, neighbours);
  }
}
