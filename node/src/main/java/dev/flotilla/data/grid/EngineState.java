package dev.flotilla.data.grid;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.CacheGroupContext;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtLocalPartition;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtPartitionState;
import org.apache.ignite.internal.processors.cluster.BaselineTopology;
import org.apache.ignite.internal.processors.cluster.BaselineTopologyHistory;
import org.apache.ignite.internal.processors.cluster.BaselineTopologyHistoryItem;
import org.apache.ignite.internal.util.typedef.internal.U;

/**
 * What the engine knows and does not say through its public interface. Nothing here waits, as
 * asking a cache by name would while the topology changes.
 */
final class EngineState {

  /** As the engine names its records of former baselines. */
  private static final String HISTORY = "bltHist-";

  private EngineState() {}

  /** Whether the engine is done with the newest topology that it knows of. */
  static boolean isSettled(Ignite running) {
    var context = ((IgniteEx) running).context();
    return context
            .cache()
            .context()
            .exchange()
            .readyAffinityVersion()
            .compareTo(context.discovery().topologyVersionEx())
        >= 0;
  }

  /**
   * The caches that have a partition without an owner, by name; true of the topology with which the
   * engine was done last.
   */
  static Set<String> lost(Ignite running) {
    return ((IgniteEx) running)
        .context().cache().cacheGroups().stream()
            .filter(group -> !group.topology().lostPartitions().isEmpty())
            .flatMap(group -> group.caches().stream())
            .map(cache -> cache.name())
            .collect(Collectors.toCollection(TreeSet::new));
  }

  /**
   * How far this node's own copies of partitions got, by group and partition: of those that are
   * whole, the highest update that they have. To be asked before the engine joins others.
   */
  static Map<Integer, Map<Integer, Long>> restored(Ignite starting) {
    Map<Integer, Map<Integer, Long>> restored = new HashMap<>();
    for (CacheGroupContext group : ((IgniteEx) starting).context().cache().cacheGroups()) {
      for (GridDhtLocalPartition partition : group.topology().localPartitions()) {
        // What was lost stays so over a new start; of what was not whole then, no update counts.
        if (partition.state() == GridDhtPartitionState.OWNING
            || partition.state() == GridDhtPartitionState.LOST) {
          restored
              .computeIfAbsent(group.groupId(), id -> new HashMap<>())
              .put(partition.id(), partition.dataStore().highestAppliedCounter());
        }
      }
    }
    return restored;
  }

  /**
   * Sets how far copies of lost partitions got to what is true. A node that joins while a partition
   * is lost takes over how far the others know that it once got, with whatever it has of it, be it
   * nothing; and when the partition is taken into use again, it would count as much as the copy
   * that is whole. One that was not whole when the last owner left has nothing that counts.
   *
   * @param restored of this start of the engine
   */
  static void recountLost(Ignite running, Map<Integer, Map<Integer, Long>> restored) {
    var context = ((IgniteEx) running).context().cache();
    var database = context.context().database();
    for (CacheGroupContext group : context.cacheGroups()) {
      Map<Integer, Long> whole = restored.getOrDefault(group.groupId(), Map.of());
      for (int id : group.topology().lostPartitions()) {
        GridDhtLocalPartition partition = group.topology().localPartition(id);
        if (partition == null || partition.state() != GridDhtPartitionState.LOST) {
          continue;
        }
        // The engine itself sets it to nothing where it was not whole at that moment.
        long reached = partition.updateCounter() == 0 ? 0 : whole.getOrDefault(id, 0L);
        if (partition.updateCounter() != reached) {
          database.checkpointReadLock();
          try {
            partition.resetUpdateCounter();
            partition.updateCounter(reached);
          } finally {
            database.checkpointReadUnlock();
          }
        }
      }
    }
  }

  /** Whether this node owns all partitions that it is to have. */
  static boolean isFilled(Ignite running) {
    var caches = ((IgniteEx) running).context().cache();
    var exchange = caches.context().exchange().lastTopologyFuture();
    if (exchange == null || !exchange.isDone()) {
      return false;
    }
    ClusterNode self = running.cluster().localNode();
    int groups = 0;
    int owned = 0;
    for (CacheGroupContext group : caches.cacheGroups()) {
      List<List<ClusterNode>> wanted = group.affinity().idealAssignmentRaw();
      if (group.systemCache()) {
        continue;
      }
      groups++;
      if (wanted == null) {
        return false;
      }
      for (int partition = 0; partition < wanted.size(); partition++) {
        if (!wanted.get(partition).contains(self)) {
          continue;
        }
        GridDhtLocalPartition local = group.topology().localPartition(partition);
        if (local == null || local.state() != GridDhtPartitionState.OWNING) {
          return false;
        }
        owned++;
      }
    }
    return groups == 0 || owned > 0;
  }

  /**
   * A node that starts empty is sent the history of the engine's baselines when it joins, but keeps
   * it in memory only, and without it does not start again on its own data.
   */
  static void storeBaselineHistory(Ignite started) throws IgniteCheckedException {
    var context = ((IgniteEx) started).context();
    var database = context.cache().context().database();
    if (database.metaStorage() != null
        && context.state().clusterState().baselineTopology() != null) {
      context.state().onReadyForReadWrite(database.metaStorage());
    }
  }

  /**
   * A node that joins while the baseline is being changed never hears of the one before: it is not
   * yet in the history that it is sent, and the change is not for this node to make. It would not
   * start again on its own data. What matters of a former baseline is how the cluster has branched,
   * and the present one knows all of that.
   */
  static void completeBaselineHistory(Ignite running) throws IgniteCheckedException {
    var context = ((IgniteEx) running).context();
    BaselineTopology present = context.state().clusterState().baselineTopology();
    var database = context.cache().context().database();
    if (present == null
        || context.state().clusterState().transition()
        || database.metaStorage() == null
        || !EngineState.isSettled(running)) {
      return;
    }
    BaselineTopologyHistory history = U.field(context.state(), "bltHist");
    List<BaselineTopologyHistoryItem> known = U.field(history, "hist");
    if (known.size() >= present.id()) {
      return;
    }
    Set<Integer> ids =
        known.stream().map(BaselineTopologyHistoryItem::id).collect(Collectors.toSet());
    List<BaselineTopologyHistoryItem> all = new ArrayList<>(known);
    for (int id = 0; id < present.id(); id++) {
      if (!ids.contains(id)) {
        BaselineTopologyHistoryItem item = former(id, present);
        database.checkpointReadLock();
        try {
          database.metaStorage().write(HISTORY + id, item);
        } finally {
          database.checkpointReadUnlock();
        }
        all.add(item);
      }
    }
    all.sort(Comparator.comparingInt(BaselineTopologyHistoryItem::id));
    known.clear();
    known.addAll(all);
  }

  private static BaselineTopologyHistoryItem former(int id, BaselineTopology present)
      throws IgniteCheckedException {
    try {
      var constructor =
          BaselineTopologyHistoryItem.class.getDeclaredConstructor(
              int.class, Collection.class, List.class);
      constructor.setAccessible(true);
      return constructor.newInstance(
          id,
          new ArrayList<>(present.consistentIds()),
          new ArrayList<>(present.branchingHistory()));
    } catch (ReflectiveOperationException e) {
      throw new IgniteCheckedException("the engine's history of baselines cannot be completed", e);
    }
  }
}
