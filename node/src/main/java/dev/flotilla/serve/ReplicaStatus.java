package dev.flotilla.serve;

import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.serve.Placement.Placed;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * What a replica's head reports of it (registry kind {@code replica-status}, name = the replica's
 * id).
 *
 * @param epoch the placement it speaks of
 * @param state {@code loading}, {@code ready} or {@code failed}
 * @param reason why it is not ready; may be empty
 */
record ReplicaStatus(long epoch, String state, String reason) {

  static final String KIND = "replica-status";
  static final String LOADING = "loading";
  static final String READY = "ready";
  static final String FAILED = "failed";

  static Registry.Key key(String replica) {
    return new Registry.Key(KIND, replica);
  }

  static Optional<ReplicaStatus> of(Registry registry, String replica) {
    return registry.get(key(replica)).map(e -> Json.read(e.value(), ReplicaStatus.class));
  }

  /** A deployment's replicas that are ready, looked up by their names: there may be many others. */
  static List<Placed> ready(Registry registry, String model) {
    int replicas =
        DeploymentService.wanted(registry, model).map(Deployments.Wanted::replicas).orElse(0);
    List<Placed> ready = new ArrayList<>();
    for (int i = 0; i < replicas; i++) {
      // While it moves, the newer of two that are ready is the one that stays.
      Placement.ofReplica(registry, Placement.replicaId(model, i)).reversed().stream()
          .filter(p -> ready(registry, p.placement().replica(), p.epoch()))
          .findFirst()
          .ifPresent(ready::add);
    }
    return ready;
  }

  /** Whether the placement of that epoch answers. */
  static boolean ready(Registry registry, String replica, long epoch) {
    return of(registry, replica).filter(s -> s.epoch == epoch && s.state.equals(READY)).isPresent();
  }
}
