package dev.flotilla.data.grid;

import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Fencing;
import java.util.Optional;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;

/**
 * Guards what lives in the grid: keeps the highest token that each resource has seen of each lock,
 * and refuses a lower one.
 */
public final class Fences {

  private static final String CACHE = "flotilla.fences";

  public Fences(Grid grid) {
    grid.onStart(ignite -> ignite.getOrCreateCache(grid.<String, Long>cacheConfig(CACHE)));
  }

  /**
   * Call it inside the transaction that writes the resource ({@link Grid#transact}), before the
   * write; no fence passes.
   *
   * @param resource its kind and name, such as {@code "queue mail"}; also for the error
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} for a stale token; let it end the
   *     transaction, so that nothing is written
   */
  public void check(Ignite ignite, String resource, Optional<Fence> fence) {
    if (fence.isEmpty()) {
      return;
    }
    IgniteCache<String, Long> highest = ignite.cache(CACHE);
    String key = resource + "/" + fence.get().lock();
    Long seen = highest.get(key);
    if (seen == null || seen < fence.get().token()) {
      highest.put(key, fence.get().token());
    } else if (seen > fence.get().token() && !Fencing.lets(resource, fence.get())) {
      throw Fence.stale(resource, fence.get());
    }
  }
}
