package dev.flotilla.serve;

import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.KvFormat;
import dev.flotilla.plan.Footprint;
import dev.flotilla.plan.Machine;
import dev.flotilla.serve.Placement.Placed;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * What nodes have and what replicas take of them, read from the registry once for many plans. Who
 * places or takes away says so here, too.
 */
final class Occupancy {

  private final Registry registry;
  private final Map<String, Map<String, Long>> byReplica = new HashMap<>();
  private final Map<String, Long> used = new HashMap<>();
  private final Map<String, Optional<ModelRecord>> models = new HashMap<>();
  private final Map<String, Optional<Machine>> machines = new HashMap<>();

  Occupancy(Registry registry) {
    this.registry = registry;
    for (Placed placed : Placement.all(registry)) {
      place(placed.placement());
    }
  }

  /** What a replica takes from now on. */
  void place(Placement placement) {
    remove(placement.replica());
    Optional<ModelRecord> model = model(placement.model());
    if (model.isEmpty()) {
      return;
    }
    Footprint footprint = footprint(model.get(), placement.engine());
    Map<String, Long> bytes = new HashMap<>();
    int last = placement.stages().size() - 1;
    for (int i = 0; i <= last; i++) {
      long share =
          placement.tensor().isEmpty()
              ? footprint.stageBytes(placement.layers(i).count(), i == 0, i == last)
              : footprint.rankBytes(
                  i == 0, placement.tensor().get(i).heads(), placement.tensor().get(i).inner());
      bytes.merge(placement.stages().get(i).node(), share, Long::sum);
    }
    byReplica.put(placement.replica(), bytes);
    bytes.forEach((node, share) -> used.merge(node, share, Long::sum));
  }

  /** A replica takes nothing any more. */
  void remove(String replica) {
    Map<String, Long> bytes = byReplica.remove(replica);
    if (bytes != null) {
      bytes.forEach((node, share) -> used.merge(node, -share, Occupancy::sum));
    }
  }

  /** What is left of it; nothing is no entry. */
  private static @Nullable Long sum(Long a, Long b) {
    long sum = a + b;
    return sum == 0 ? null : Long.valueOf(sum);
  }

  /** Bytes that the other replicas take, by node. */
  Map<String, Long> beside(String replica) {
    Map<String, Long> others = new HashMap<>(used);
    byReplica
        .getOrDefault(replica, Map.of())
        .forEach((node, share) -> others.merge(node, -share, Occupancy::sum));
    return others;
  }

  private Optional<ModelRecord> model(String name) {
    return models.computeIfAbsent(name, n -> ModelRecord.of(registry, n));
  }

  /** What a deployment takes; the draft model runs beside the first stage. */
  Footprint footprint(ModelRecord model, Engine engine) {
    long draft =
        engine.draft().isEmpty()
            ? 0
            : model(engine.draft())
                .map(record -> record.footprint(KvFormat.DEFAULT).totalBytes())
                .orElse(0L);
    return model.footprint(engine.kv()).beside(draft);
  }

  /** What nodes have measured of themselves; those that have not are left out. */
  List<Machine> machines(List<NodeInfo> nodes) {
    return nodes.stream()
        .flatMap(
            node -> machines.computeIfAbsent(node.id(), id -> NodeProfile.machine(node)).stream())
        .toList();
  }
}
