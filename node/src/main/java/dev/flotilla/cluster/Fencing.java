package dev.flotilla.cluster;

import dev.flotilla.cluster.Registry.Condition;
import dev.flotilla.cluster.Registry.Entry;
import dev.flotilla.cluster.Registry.Write;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Guards what lives in the registry itself. There the check is exact, because the lock lives there,
 * too: the write is conditional on the lock's entry, in which the token must be a present holder's.
 * So a holder whose lease ran out is refused even before the next one has written anything.
 * (Resources elsewhere keep the highest token that they have seen.)
 */
public final class Fencing {

  /**
   * Plants a bug: tokens are looked at, and stale ones let pass. For the test bench, which must
   * find it; never set it otherwise.
   */
  public static final String SKIP = "flotilla.fault.skip-fencing";

  private static final Logger log = LoggerFactory.getLogger(Fencing.class);

  private Fencing() {}

  /** Whether a stale token is to be let pass, by the planted bug. */
  public static boolean lets(String resource, Fence stale) {
    boolean skip = Boolean.getBoolean(SKIP);
    if (skip) {
      log.error("PLANTED FAULT ({}): {} accepts the stale {}", SKIP, resource, stale);
    }
    return skip;
  }

  /**
   * As {@link Registry#commit}, if the fence's token is that of a present holder.
   *
   * @param resource for the error, such as {@code "deployment demo"}
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} for a stale token, with nothing written
   */
  public static Optional<Long> commit(
      Registry registry,
      String resource,
      Optional<Fence> fence,
      List<Condition> conditions,
      List<Write> writes) {
    if (fence.isEmpty()) {
      return registry.commit(conditions, writes);
    }
    Registry.Key lock = RegistryLocks.key(fence.get().lock());
    while (true) {
      Optional<Entry> held = held(registry, lock, fence.get().token());
      List<Condition> guarded = new ArrayList<>(conditions);
      if (held.isPresent()) {
        guarded.add(new Condition(lock, held.get().epoch()));
      } else if (!lets(resource, fence.get())) {
        throw Fence.stale(resource, fence.get());
      }
      Optional<Long> committed = registry.commit(guarded, writes);
      if (committed.isPresent() || !hold(registry, conditions)) {
        return committed;
      }
      // The lock's entry moved on, by a renewal or a waiter: look again.
    }
  }

  /** The lock's entry, if the token is a present holder's. */
  private static Optional<Entry> held(Registry registry, Registry.Key lock, long token) {
    if (registry.revision() < token) {
      // This copy has not seen the grant yet. If it has, a token that is gone never comes back.
      registry.sync();
    }
    return registry
        .get(lock)
        .filter(entry -> RegistryLocks.state(Optional.of(entry)).isCurrent(token));
  }

  private static boolean hold(Registry registry, List<Condition> conditions) {
    return conditions.stream()
        .allMatch(c -> registry.get(c.key()).map(Entry::epoch).orElse(0L) == c.epoch());
  }
}
