package dev.flotilla.gateway;

import dev.flotilla.gateway.ServedModel.DefaultSampling;
import dev.flotilla.model.Pooling;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Deployments.DeploymentView;
import dev.flotilla.serve.Deployments.ModelView;
import dev.flotilla.text.ModelText;
import java.time.InstantSource;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The deployed models, and a small cache of their tokenizers by digest. */
final class ServedModels {

  private static final int CACHED = 8;

  /**
   * A tokenizer while requests use it: it holds native memory, which must outlive them and must not
   * outlive its place in the cache.
   */
  private final class Loaded {
    private Optional<ModelText> text = Optional.empty();
    private DefaultSampling sampling = DefaultSampling.of(Map.of());
    private Optional<Pooling> pooling = Optional.empty();
    private int users;
    private boolean evicted;

    /** Loads it at first use; others who want it wait. */
    synchronized ServedModel acquire(ModelView view, String computed) {
      if (text.isEmpty()) {
        Map<String, Object> metadata = deployments.metadata(view.name());
        text = Optional.of(ModelText.fromGguf(metadata, view.name(), clock));
        sampling = DefaultSampling.of(metadata);
        pooling = Pooling.of(metadata);
      }
      users++;
      return new ServedModel(view, computed, text.get(), sampling, pooling, this::release);
    }

    private synchronized void release() {
      users--;
      closeIfUnused();
    }

    synchronized void evict() {
      evicted = true;
      closeIfUnused();
    }

    private void closeIfUnused() {
      if (evicted && users == 0) {
        text.ifPresent(ModelText::close);
        text = Optional.empty();
      }
    }
  }

  private final Deployments deployments;
  private final InstantSource clock;
  private final Map<String, Loaded> byDigest =
      new LinkedHashMap<>(CACHED, 0.75f, true) {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Loaded> eldest) {
          if (size() <= CACHED) {
            return false;
          }
          eldest.getValue().evict();
          return true;
        }
      };

  /**
   * @param clock for chat templates that state the date
   */
  ServedModels(Deployments deployments, InstantSource clock) {
    this.deployments = deployments;
    this.clock = clock;
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

  /** A deployed model with its tokenizer; close it when the request is answered. */
  ServedModel open(String name) {
    ModelView view = find(name);
    String computed =
        deployments.list().stream()
            .filter(d -> d.model().equals(name))
            .findFirst()
            .map(d -> d.wanted().form())
            .orElse("");
    Loaded loaded;
    synchronized (byDigest) {
      loaded = byDigest.computeIfAbsent(view.digest(), digest -> new Loaded());
    }
    return loaded.acquire(view, computed);
  }
}
