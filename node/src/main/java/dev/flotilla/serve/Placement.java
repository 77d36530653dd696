package dev.flotilla.serve;

import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.TensorShare;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * Where one replica runs: the controller's decision (registry kind {@code placement}, name = the
 * replica's slot). Its entry's epoch fences the work of earlier placements.
 *
 * <p>A replica has two slots. While it moves it has a placement in both: the new one loads, and the
 * old one answers until the new one is ready.
 *
 * @param replica its slot: {@code MODEL-NUMBER}, or that with a {@code b} behind it
 * @param digest SHA-256 of the model's file
 * @param cachePositions of each stage's KV cache
 * @param engine how its stages compute
 * @param stages in order; the first one's node is the head. Of a tensor-parallel replica they are
 *     its ranks, and all have all layers
 * @param tensor what each rank has of every layer; empty where a stage has all of its layers
 */
record Placement(
    String replica,
    String model,
    String digest,
    int cachePositions,
    Engine engine,
    List<Deployments.StageView> stages,
    List<Share> tensor) {

  /**
   * What a rank has of every layer.
   *
   * @param heads of keys and values
   * @param inner elements of the feed-forward part
   */
  record Share(int heads, int inner) {}

  Placement(
      String replica,
      String model,
      String digest,
      int cachePositions,
      Engine engine,
      List<Deployments.StageView> stages) {
    this(replica, model, digest, cachePositions, engine, stages, List.of());
  }

  Placement {
    engine = Objects.requireNonNullElse(engine, Engine.DEFAULT);
    tensor = List.copyOf(Objects.requireNonNullElse(tensor, List.of()));
  }

  static final String KIND = "placement";

  /** Ids end with a number, so no id is another's second slot. */
  private static final String SECOND = "b";

  /** A placement with the epoch of its entry. */
  record Placed(Placement placement, long epoch) {}

  static Registry.Key key(String replica) {
    return new Registry.Key(KIND, replica);
  }

  static String replicaId(String model, int number) {
    return model + "-" + number;
  }

  /** The replica that a slot is of. */
  static String replicaOf(String slot) {
    return slot.endsWith(SECOND) ? slot.substring(0, slot.length() - SECOND.length()) : slot;
  }

  /** The replica's other slot. */
  static String otherSlot(String slot) {
    return slot.endsWith(SECOND) ? replicaOf(slot) : slot + SECOND;
  }

  /** What there is in a replica's slots: oldest first, two while it moves. */
  static List<Placed> ofReplica(Registry registry, String replica) {
    return Stream.of(replica, otherSlot(replica))
        .flatMap(slot -> of(registry, slot).stream())
        .sorted(Comparator.comparingLong(Placed::epoch))
        .toList();
  }

  static List<Placed> all(Registry registry) {
    return registry.list(KIND).stream().map(Placement::read).toList();
  }

  static Optional<Placed> of(Registry registry, String replica) {
    return registry.get(key(replica)).map(Placement::read);
  }

  private static Placed read(Registry.Entry entry) {
    return new Placed(Json.read(entry.value(), Placement.class), entry.epoch());
  }

  String head() {
    return stages.get(0).node();
  }

  /** Which of its deployment's replicas it is, counted from 0. */
  int number() {
    String id = replicaOf(replica);
    return Integer.parseInt(id.substring(id.lastIndexOf('-') + 1));
  }

  /** This node's place in the chain, if it has one. */
  Optional<Integer> stageOn(String node) {
    for (int i = 0; i < stages.size(); i++) {
      if (stages.get(i).node().equals(node)) {
        return Optional.of(i);
      }
    }
    return Optional.empty();
  }

  /** How many steps are in flight: one for each stage that waits for the one before it. */
  int pipeline() {
    return tensor.isEmpty() ? stages.size() : 1;
  }

  /** What a rank has, if the ranks share out the layers. */
  Optional<TensorShare> share(int rank) {
    return tensor.isEmpty()
        ? Optional.empty()
        : Optional.of(
            TensorShare.of(
                    tensor.stream().map(Share::heads).toList(),
                    tensor.stream().map(Share::inner).toList())
                .get(rank));
  }

  LayerRange layers(int stage) {
    return new LayerRange(stages.get(stage).firstLayer(), stages.get(stage).lastLayer());
  }
}
