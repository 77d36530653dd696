package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Fence;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Engine;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;

/** Deployments that a test sets. */
final class FakeDeployments implements Deployments {

  final List<ModelView> models = new CopyOnWriteArrayList<>();
  final List<DeploymentView> deployments = new CopyOnWriteArrayList<>();
  final Map<String, Object> metadata = new ConcurrentHashMap<>(TestText.metadata());
  final AtomicInteger metadataReads = new AtomicInteger();

  static ModelConfig config(int contextLength, int layers) {
    return new ModelConfig(
        TestText.VOCABULARY, 64, layers, 4, 2, 16, 128, contextLength, 1e4f, 1e-5f, true);
  }

  void add(String name, int contextLength, List<StageView> stages) {
    int layers = stages.getLast().lastLayer() + 1;
    models.add(
        new ModelView(
            name, "sha256:" + name, 1_000_000, 1_700_000_000_000L, config(contextLength, layers)));
    deployments.add(
        new DeploymentView(
            name,
            "ready",
            "",
            new Wanted(name, 1, stages.size(), "least_load", false, Engine.DEFAULT),
            List.of(new ReplicaView(name + "-0", "ready", 7, stages))));
  }

  @Override
  public List<String> drain(String node, Duration patience) {
    return List.of();
  }

  @Override
  public List<String> modelsOnlyOn(String node) {
    return List.of();
  }

  @Override
  public List<ModelView> models() {
    return models;
  }

  @Override
  public Map<String, Object> metadata(String model) {
    metadataReads.incrementAndGet();
    return metadata;
  }

  @Override
  public List<DeploymentView> list() {
    return deployments;
  }

  @Override
  public void deploy(Wanted wanted, Optional<Fence> fence) {
    List<DeploymentView> others = new ArrayList<>(deployments);
    others.removeIf(d -> d.model().equals(wanted.model()));
    others.add(new DeploymentView(wanted.model(), "loading", "placing", wanted, List.of()));
    deployments.clear();
    deployments.addAll(others);
  }

  @Override
  public void remove(String model, Optional<Fence> fence) {
    deployments.removeIf(d -> d.model().equals(model));
  }

  @Override
  public Map<String, Object> tensorPlan(String model, int ranks, Engine engine) {
    return Map.of("ranks", ranks, "predicted_tokens_per_second", 20.5);
  }

  @Override
  public Map<String, Object> plan(String model, int stages, Engine engine) {
    if (stages > 3) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID, "only 3 nodes are up", "Ask for fewer stages.");
    }
    return Map.of("stages", stages, "predicted_tokens_per_second", 12.5);
  }
}
