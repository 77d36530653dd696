package dev.flotilla.serve;

import dev.flotilla.cluster.Fence;
import dev.flotilla.model.ModelConfig;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/**
 * What is wanted to run, and what runs. Reads this node's copy of the registry; writes go through
 * Raft.
 */
public interface Deployments {

  /**
   * What an operator asks for.
   *
   * @param replicas how many independent copies answer
   * @param stages over how many nodes each is split; 0 leaves it to the planner
   * @param tensor over how many nodes every layer of each is shared out; 1 for none
   * @param routing {@code least_load} or {@code round_robin}
   * @param force deploy even a split that the planner predicts to be slower than one machine
   * @param engine how it computes
   * @param kvReplicas how many other replicas have a copy of what a request has in the KV cache: 0
   *     or 1
   */
  record Wanted(
      String model,
      int replicas,
      int stages,
      int tensor,
      String routing,
      boolean force,
      Engine engine,
      int kvReplicas) {

    /** Fills in what records of earlier versions do not have. */
    public Wanted {
      engine = Objects.requireNonNullElse(engine, Engine.DEFAULT);
      tensor = Math.max(1, tensor);
    }

    /** Without sharing out layers, and without copies. */
    public Wanted(
        String model, int replicas, int stages, String routing, boolean force, Engine engine) {
      this(model, replicas, stages, 1, routing, force, engine, 0);
    }

    /** What of it may change the text of an answer. */
    public String form() {
      return engine.form() + (tensor > 1 ? " tensor=" + tensor : "");
    }

    /** How many nodes a replica has; 0 leaves it to the planner. */
    int nodesOfReplica() {
      return tensor > 1 ? tensor : stages;
    }
  }

  /** A run of layers on a node. */
  record StageView(String node, int firstLayer, int lastLayer) {}

  /**
   * One copy: {@code loading}, {@code ready} or {@code failed}; the epoch grows at each new
   * placement.
   *
   * @param copiedTo the replica to which its KV cache is copied; empty for none
   */
  record ReplicaView(String id, String state, long epoch, List<StageView> stages, String copiedTo) {

    /** Without copies. */
    public ReplicaView(String id, String state, long epoch, List<StageView> stages) {
      this(id, state, epoch, stages, "");
    }

    ReplicaView copiedTo(String replica) {
      return new ReplicaView(id, state, epoch, stages, replica);
    }
  }

  /**
   * A deployment: {@code loading}, {@code ready}, {@code degraded} or {@code failed}, with the
   * reason where it is not ready.
   */
  record DeploymentView(
      String model, String state, String reason, Wanted wanted, List<ReplicaView> replicas) {}

  /** A model that the cluster has. */
  record ModelView(String name, String digest, long bytes, long createdAtMs, ModelConfig config) {}

  /** All models, by name. */
  List<ModelView> models();

  /**
   * Models of which no other node that answers has the file, by name.
   *
   * @param node a node's id
   */
  List<String> modelsOnlyOn(String node);

  /**
   * Drains a node ({@link dev.flotilla.cluster.Cluster#drain}), and waits until the replicas that
   * were there serve elsewhere, or the controller has moved those that others have room for.
   *
   * @return the replicas that are there still
   */
  List<String> drain(String node, Duration patience) throws InterruptedException;

  /**
   * The GGUF metadata of a model, tokenizer and chat template included; fetched from a node that
   * has it, then kept.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, or {@code UNAVAILABLE} if no node
   *     that has it answers
   */
  Map<String, Object> metadata(String model);

  /** All deployments, by model. */
  List<DeploymentView> list();

  /**
   * Wants a deployment, or changes what is wanted of it; returns at once, the controller does the
   * rest.
   */
  default void deploy(Wanted wanted) {
    deploy(wanted, Optional.empty());
  }

  /**
   * As above, if the token is that of the lock's present holder.
   *
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} for a stale token; nothing is changed
   */
  void deploy(Wanted wanted, Optional<Fence> fence);

  /** Wants a deployment no more. */
  default void remove(String model) {
    remove(model, Optional.empty());
  }

  /** As above, if the token is that of the lock's present holder; else {@code CONFLICT}. */
  void remove(String model, Optional<Fence> fence);

  /**
   * What the planner would do, as JSON-ready values: {@code stages} with layers and memory, the
   * predicted tokens per second of one stream and of several, the time to the first token, which
   * nodes are {@code left_out}, whether the nodes were {@code measured}, and the same for {@code
   * one_node}.
   */
  Map<String, Object> plan(String model, int stages, Engine engine);

  /**
   * What the planner would do if every layer were shared out over so many nodes: as {@link #plan},
   * with {@code ranks} instead of stages.
   */
  Map<String, Object> tensorPlan(String model, int ranks, Engine engine);
}
