package dev.flotilla.data.sql;

import java.util.List;
import java.util.UUID;
import org.apache.ignite.cache.affinity.AffinityFunction;
import org.apache.ignite.cache.affinity.AffinityFunctionContext;
import org.apache.ignite.cluster.ClusterNode;

/**
 * Puts the lock entry of each partition of a table, whose key is the partition's number, on the
 * nodes where the table's function puts the partition. The engine stores an object of this class
 * with the configuration of a cache.
 */
final class LockAffinity implements AffinityFunction {

  private static final long serialVersionUID = 1L;

  private final AffinityFunction table;

  LockAffinity(AffinityFunction table) {
    this.table = table;
  }

  @Override
  public void reset() {
    table.reset();
  }

  @Override
  public int partitions() {
    return table.partitions();
  }

  @Override
  public int partition(Object key) {
    return key instanceof Integer partition
        ? partition
        : Math.floorMod(key.hashCode(), table.partitions());
  }

  @Override
  public List<List<ClusterNode>> assignPartitions(AffinityFunctionContext context) {
    return table.assignPartitions(context);
  }

  @Override
  public void removeNode(UUID node) {
    table.removeNode(node);
  }
}
