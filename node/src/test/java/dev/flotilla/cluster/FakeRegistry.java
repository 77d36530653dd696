package dev.flotilla.cluster;

import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;

/** A registry of one process, with the same conditions, for any number of {@link FakeCluster}s. */
public final class FakeRegistry implements Registry {

  private final Map<Key, Entry> entries = new ConcurrentHashMap<>();
  private final List<Runnable> subscribers = new CopyOnWriteArrayList<>();
  private long revision;

  /** What was decided elsewhere and arrives with the next {@link #sync}. */
  public Runnable arriving = () -> {};

  @Override
  public Optional<Entry> get(Key key) {
    return Optional.ofNullable(entries.get(key));
  }

  @Override
  public List<Entry> list(String kind) {
    return entries.values().stream()
        .filter(e -> e.key().kind().equals(kind))
        .sorted(Comparator.comparing(e -> e.key().name()))
        .toList();
  }

  @Override
  public synchronized long revision() {
    return revision;
  }

  @Override
  public void sync() {
    arriving.run();
  }

  @Override
  public Optional<Long> commit(List<Condition> conditions, List<Write> writes) {
    Optional<Long> epoch = decide(conditions, writes);
    if (epoch.isPresent()) {
      changed();
    }
    return epoch;
  }

  private synchronized Optional<Long> decide(List<Condition> conditions, List<Write> writes) {
    for (Condition condition : conditions) {
      if (get(condition.key()).map(Entry::epoch).orElse(0L) != condition.epoch()) {
        return Optional.empty();
      }
    }
    revision++;
    for (Write write : writes) {
      write
          .value()
          .ifPresentOrElse(
              value -> entries.put(write.key(), new Entry(write.key(), value, revision)),
              () -> entries.remove(write.key()));
    }
    return Optional.of(revision);
  }

  /** Calls whoever subscribed, as after a commit. */
  public void changed() {
    subscribers.forEach(Runnable::run);
  }

  @Override
  public AutoCloseable subscribe(Runnable onChange) {
    subscribers.add(onChange);
    onChange.run();
    return () -> subscribers.remove(onChange);
  }
}
