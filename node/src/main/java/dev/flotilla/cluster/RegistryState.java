package dev.flotilla.cluster;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import dev.flotilla.cluster.proto.AppliedCommand;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandCondition;
import dev.flotilla.cluster.proto.CommandResult;
import dev.flotilla.cluster.proto.CommandWrite;
import dev.flotilla.cluster.proto.RegistrySnapshot;
import dev.flotilla.cluster.proto.SnapshotEntry;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;

/**
 * The registry's contents as a pure function of the commands in the log: the same commands in the
 * same order give the same entries, epochs and results on every node.
 *
 * <p>One thread applies; {@link #entries} gives any thread a consistent view, because each commit
 * replaces the map instead of changing it (the registry is small: hundreds of entries).
 */
public final class RegistryState {

  /**
   * How many commands are remembered, so that a retry is recognised. A retry comes within seconds;
   * the cluster decides a few times per second.
   */
  private static final int REMEMBERED_COMMANDS = 2048;

  private static final Comparator<Registry.Key> ORDER =
      Comparator.comparing(Registry.Key::kind).thenComparing(Registry.Key::name);

  private volatile SortedMap<Registry.Key, Registry.Entry> entries =
      Collections.unmodifiableSortedMap(new TreeMap<>(ORDER));
  private final LinkedHashMap<ByteString, CommandResult> recent = new LinkedHashMap<>();

  /** A view that never changes, in order of kind and name. */
  public SortedMap<Registry.Key, Registry.Entry> entries() {
    return entries;
  }

  /** Applies the command at one log index: all of its writes or none. */
  public CommandResult apply(Command command, long index) {
    CommandResult known = recent.get(command.getId());
    if (known != null) {
      return known;
    }
    boolean holds = true;
    for (CommandCondition condition : command.getConditionsList()) {
      Registry.Entry entry =
          entries.get(new Registry.Key(condition.getKind(), condition.getName()));
      holds &= condition.getEpoch() == (entry == null ? 0 : entry.epoch());
    }
    if (holds) {
      SortedMap<Registry.Key, Registry.Entry> next = new TreeMap<>(entries);
      for (CommandWrite write : command.getWritesList()) {
        Registry.Key key = new Registry.Key(write.getKind(), write.getName());
        if (write.hasValue()) {
          next.put(key, new Registry.Entry(key, write.getValue().toByteArray(), index));
        } else {
          next.remove(key);
        }
      }
      entries = Collections.unmodifiableSortedMap(next);
    }
    CommandResult result =
        CommandResult.newBuilder().setEpoch(holds ? index : 0).setRevision(index).build();
    remember(command.getId(), result);
    return result;
  }

  private void remember(ByteString id, CommandResult result) {
    recent.put(id, result);
    if (recent.size() > REMEMBERED_COMMANDS) {
      recent.pollFirstEntry();
    }
  }

  /** All of it as bytes, from which {@link #load} makes the same. */
  public byte[] toSnapshot() {
    RegistrySnapshot.Builder snapshot = RegistrySnapshot.newBuilder();
    for (Registry.Entry entry : entries.values()) {
      snapshot.addEntries(
          SnapshotEntry.newBuilder()
              .setKind(entry.key().kind())
              .setName(entry.key().name())
              .setValue(ByteString.copyFrom(entry.value()))
              .setEpoch(entry.epoch()));
    }
    for (Map.Entry<ByteString, CommandResult> one : recent.entrySet()) {
      snapshot.addRecent(AppliedCommand.newBuilder().setId(one.getKey()).setResult(one.getValue()));
    }
    return snapshot.build().toByteArray();
  }

  /** Replaces everything by a snapshot. */
  public void load(byte[] snapshot) throws InvalidProtocolBufferException {
    RegistrySnapshot parsed = RegistrySnapshot.parseFrom(snapshot);
    SortedMap<Registry.Key, Registry.Entry> next = new TreeMap<>(ORDER);
    for (SnapshotEntry entry : parsed.getEntriesList()) {
      Registry.Key key = new Registry.Key(entry.getKind(), entry.getName());
      next.put(key, new Registry.Entry(key, entry.getValue().toByteArray(), entry.getEpoch()));
    }
    recent.clear();
    parsed.getRecentList().forEach(one -> recent.put(one.getId(), one.getResult()));
    entries = Collections.unmodifiableSortedMap(next);
  }

  /** Starts empty again. */
  void clear() {
    recent.clear();
    entries = Collections.unmodifiableSortedMap(new TreeMap<>(ORDER));
  }
}
