package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Deployments.DeploymentView;
import dev.flotilla.serve.Deployments.ModelView;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.function.Function;

/** The deployed models, and a small cache of their tokenizers by digest. */
final class ServedModels {

  private static final int CACHED = 8;

  private record Loaded(TextCodec text, ServedModel.DefaultSampling sampling) {}

  private final Deployments deployments;
  private final Function<Map<String, Object>, TextCodec> loader;
  private final Map<String, FutureTask<Loaded>> byDigest =
      new LinkedHashMap<>(CACHED, 0.75f, true) {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, FutureTask<Loaded>> eldest) {
          return size() > CACHED;
        }
      };

  /**
   * @param loader from GGUF metadata to a tokenizer with its chat template
   */
  ServedModels(Deployments deployments, Function<Map<String, Object>, TextCodec> loader) {
    this.deployments = deployments;
    this.loader = loader;
  }

  /** Models that are deployed, whether or not they are ready. */
  List<ModelView> list() {
    List<String> deployed = deployments.list().stream().map(DeploymentView::model).toList();
    return deployments.models().stream().filter(m -> deployed.contains(m.name())).toList();
  }

  /**
   * A deployed model's view.
   *
   * @throws ApiError 404 {@code model_not_found}, listing what there is
   */
  ModelView find(String name) {
    List<ModelView> all = list();
    return all.stream()
        .filter(m -> m.name().equals(name))
        .findFirst()
        .orElseThrow(
            () ->
                new ApiError(
                    404,
                    "model_not_found",
                    Optional.of("model"),
                    "There is no model "
                        + abbreviated(name)
                        + " being served. Served: "
                        + (all.isEmpty()
                            ? "none; deploy one with `flotilla serve MODEL`."
                            : String.join(", ", all.stream().map(ModelView::name).toList())
                                + ".")));
  }

  private static String abbreviated(String name) {
    return name.length() <= 100 ? name : name.substring(0, 100) + "…";
  }

  /** A deployed model with its tokenizer. */
  ServedModel open(String name) {
    ModelView view = find(name);
    Loaded loaded = loaded(view);
    return new ServedModel(view, loaded.text(), loaded.sampling());
  }

  private Loaded loaded(ModelView view) {
    FutureTask<Loaded> task;
    synchronized (byDigest) {
      task = byDigest.computeIfAbsent(view.digest(), digest -> new FutureTask<>(() -> load(view)));
    }
    task.run();
    try {
      return task.get();
    } catch (ExecutionException e) {
      synchronized (byDigest) {
        byDigest.remove(view.digest(), task);
      }
      throw e.getCause() instanceof RuntimeException runtime
          ? runtime
          : new IllegalStateException(e.getCause());
    } catch (InterruptedException | CancellationException e) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE, "this node is stopping", "Try again.", e);
    }
  }

  private Loaded load(ModelView view) {
    Map<String, Object> metadata = deployments.metadata(view.name());
    return new Loaded(loader.apply(metadata), ServedModel.DefaultSampling.of(metadata));
  }
}
