package dev.flotilla.data.sql;

import java.util.List;
import java.util.Optional;

/**
 * How tables are spread over the nodes: by hash, by ranges or by lists of values of a column,
 * chosen in the table's DDL.
 *
 * <pre>
 * CREATE TABLE … SHARD BY HASH (tenant) [INTO 32]
 * CREATE TABLE … SHARD BY RANGE (ts) SPLIT AT (100, 200) [SPREAD 8]
 * CREATE TABLE … SHARD BY LIST (region) ('eu' ON NODES (a, b), ('us', 'ca')) [SPREAD 8]
 * CREATE TABLE … COLOCATE WITH customers [ON tenant]
 * ALTER TABLE … SPLIT SHARD AT (150)
 * ALTER TABLE … MOVE SHARD 1 TO NODES (a, b)
 * </pre>
 *
 * <p>The column must belong to the primary key. {@code SPREAD n} gives each range or list value n
 * partitions, by the hash of the whole primary key, so that one value's rows need not all sit on
 * one node; tables that others are co-located with need {@code SPREAD 1}. Values of a list that are
 * not named go to a last shard.
 */
public interface Sharding {

  /** How a table's rows find their shard. */
  enum Strategy {
    /** By the hash of the column. */
    HASH,
    /** By ranges of the column's values. */
    RANGE,
    /** By the column's value. */
    LIST
  }

  /**
   * One shard.
   *
   * @param values of a list, the values in it; of a range, its lower bound, and none for the first;
   *     the last shard of a list, for all other values, has none
   * @param nodes ids of the only nodes that hold it; empty: any
   */
  record Shard(List<String> values, List<String> nodes) {}

  /**
   * How a table is sharded.
   *
   * @param column in the engine's spelling, upper case unless quoted
   * @param spread partitions in each shard
   * @param partitions in all; with {@code HASH} what it says, else at least shards × spread
   * @param shards empty with {@code HASH}
   * @param colocatedWith the table it shares its partitions with
   * @param moving whether its rows are being moved to other shards now
   */
  record TableShards(
      String table,
      Strategy strategy,
      String column,
      int spread,
      int partitions,
      List<Shard> shards,
      Optional<String> colocatedWith,
      boolean moving) {}

  /** The partitions of a table that one node holds as their first owner. */
  record NodePartitions(String node, List<Integer> partitions) {}

  /**
   * What a statement touches of one table.
   *
   * @param shards indices of the shards; empty with {@code HASH}
   * @param whole whether that is all of the table, for want of a condition that narrows it
   */
  record TouchedTable(
      String table,
      String strategy,
      List<Integer> shards,
      int partitionsTouched,
      int partitions,
      boolean whole,
      List<NodePartitions> nodes) {}

  /** What a statement touches, and the engine's plan for it. */
  record Explanation(List<TouchedTable> tables, String plan) {}

  /** Rows and bytes in one partition; bytes are of keys and values as stored, estimated. */
  record PartitionLoad(int partition, int shard, String node, long rows, long bytes) {}

  /** What one node holds as first owner. */
  record NodeLoad(String node, long rows, long bytes, int partitions) {}

  /** A value of the shard column and its rows. */
  record HotKey(String value, long rows) {}

  /**
   * How evenly a table lies.
   *
   * @param imbalance rows of the fullest node over the mean of all nodes; 1 is even
   * @param partitionImbalance the same over partitions that may hold rows
   */
  record Skew(
      String table,
      long rows,
      long bytes,
      double imbalance,
      double partitionImbalance,
      List<NodeLoad> nodes,
      List<PartitionLoad> partitions,
      List<HotKey> hottest) {}

  /** The sharded tables, by name. */
  List<TableShards> tables();

  /**
   * One table.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if it is not a sharded table
   */
  TableShards table(String name);

  /** Runs one of the statements above. */
  void execute(String statement);

  /**
   * Says what a SELECT, INSERT, UPDATE or DELETE touches, without running it.
   *
   * @param arguments for its question marks; may be fewer, then what they decide counts as whole
   * @throws dev.flotilla.FlotillaException {@code INVALID} if it cannot be parsed
   */
  Explanation explain(String statement, List<Object> arguments);

  /** Measures a table; reads all of it. */
  Skew skew(String table);

  /**
   * Splits the range that holds {@code at} into two, while reads and writes go on; returns when it
   * is done.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the table has no ranges, {@code
   *     CONFLICT} if there is such a bound already or the table is being moved
   */
  void split(String table, String at);

  /** Moves one shard to these nodes, by id or name (none: any), while reads and writes go on. */
  void move(String table, int shard, List<String> nodes);
}
