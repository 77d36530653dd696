package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.grid.Grid;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.apache.ignite.internal.processors.cache.IgniteCacheProxy;
import org.jspecify.annotations.Nullable;

/**
 * The entries of a queue, in a running operation of the grid.
 *
 * <p>All of a partition's have the same affinity, and names that begin with it and a slash. They
 * are: {@code n}, the next sequence; {@code b<sequence>}, a {@link QueueBatch} by its first; {@code
 * groups}, their names; for each of them {@code g<group>}, its {@link QueueProgress}, {@code
 * y<group>}, the sequences of its dead, and {@code x<group>~<sequence>}, a dead one; {@code d<id>},
 * an id seen, until it expires; {@code l}, the first batch that is not deleted. Partition 0 has
 * {@code p} if there are priorities in any.
 */
final class QueueCells {

  final Ignite ignite;
  final IgniteCache<AffinityKey<String>, byte[]> cache;
  private final QueueMade queue;

  /**
   * @throws FlotillaException {@code NOT_FOUND} if the queue was deleted, whatever has its name now
   */
  QueueCells(Ignite ignite, QueueMade queue) {
    this.ignite = ignite;
    this.queue = queue;
    IgniteCache<AffinityKey<String>, byte[]> its =
        Grid.hasCache(ignite, queue.engineName()) ? ignite.cache(queue.engineName()) : null;
    if (its == null) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "queue " + queue.name() + " was deleted",
          "Ask for it by its name again: that finds one made since, or makes it.");
    }
    this.cache = its;
  }

  /**
   * The partition is part of the name too: to Java, though not to the grid, keys are equal that
   * differ in their affinity only, and of those a map keeps one.
   */
  static AffinityKey<String> key(int partition, String cell) {
    return new AffinityKey<>(partition + "/" + cell, partition);
  }

  byte @Nullable [] get(int partition, String cell) {
    return cache.get(key(partition, cell));
  }

  void put(int partition, String cell, byte[] value) {
    cache.put(key(partition, cell), value);
  }

  void remove(int partition, String cell) {
    cache.remove(key(partition, cell));
  }

  /** The node that a partition's entries are first on. */
  String owner(int partition) {
    var node = ignite.affinity(queue.engineName()).mapKeyToNode(key(partition, "n"));
    if (node == null) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "queue " + queue.name() + " has no node for a partition",
          "Try again soon.");
    }
    return String.valueOf(node.consistentId());
  }

  /** Tells this queue from others that had its name. */
  Object made() {
    return String.valueOf(cache.unwrap(IgniteCacheProxy.class).context().dynamicDeploymentId());
  }

  static byte[] number(long value) {
    return ByteBuffer.allocate(8).putLong(value).array();
  }

  static long number(byte @Nullable [] value) {
    return value == null ? 0 : ByteBuffer.wrap(value).getLong();
  }

  /** The sequence of the next message of a partition. */
  long next(int partition) {
    return number(get(partition, "n"));
  }

  /** Of several partitions at once, in order, so that no two wait for each other. */
  Map<Integer, Long> next(Collection<Integer> partitions) {
    Set<AffinityKey<String>> keys = new LinkedHashSet<>();
    partitions.stream().sorted().forEach(partition -> keys.add(key(partition, "n")));
    Map<AffinityKey<String>, byte[]> values = cache.getAll(keys);
    Map<Integer, Long> all = new TreeMap<>();
    partitions.forEach(p -> all.put(p, number(values.get(key(p, "n")))));
    return all;
  }

  /** Whether any message has had a priority. */
  boolean hasPriorities() {
    return get(0, "p") != null;
  }

  void putPriorities() {
    put(0, "p", number(1));
  }

  /** The first sequence that is not deleted. */
  long low(int partition) {
    return number(get(partition, "l"));
  }

  /**
   * Without a transaction a batch may be missing that {@link #next} counts already: a commit's
   * entries become visible one after the other.
   */
  @Nullable QueueBatch batch(int partition, long first) {
    byte[] value = get(partition, "b" + first);
    return value == null ? null : QueueBatch.decode(first, value);
  }

  @Nullable QueueProgress progressIfAny(int partition, String group) {
    byte[] value = get(partition, "g" + group);
    return value == null ? null : QueueProgress.decode(value);
  }

  QueueProgress progress(int partition, String group) {
    QueueProgress progress = progressIfAny(partition, group);
    if (progress == null) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "queue " + queue.name() + " has no group " + group,
          "Receive in it first.");
    }
    return progress;
  }

  void putProgress(int partition, String group, QueueProgress progress) {
    put(partition, "g" + group, progress.encode());
  }

  List<String> groups(int partition) {
    byte[] value = get(partition, "groups");
    return value == null ? List.of() : List.of(Json.read(value, String[].class));
  }

  /** A new group begins with what is sent from now on; replay lets it begin earlier. */
  void join(int partition, String group, int groupsMax) {
    List<String> groups = groups(partition);
    if (groups.contains(group)) {
      return;
    }
    if (groups.size() >= groupsMax) {
      throw new FlotillaException(
          Code.INVALID, "queue " + queue.name() + " has " + groupsMax + " groups already", "");
    }
    List<String> more = new ArrayList<>(groups);
    more.add(group);
    put(partition, "groups", Json.write(more));
    putProgress(partition, group, QueueProgress.from(0, next(partition)));
  }

  List<Long> dead(int partition, String group) {
    byte[] value = get(partition, "y" + group);
    return value == null ? List.of() : List.of(Json.read(value, Long[].class));
  }

  private void putDead(int partition, String group, Set<Long> all) {
    put(partition, "y" + group, Json.write(all.stream().sorted().toList()));
  }

  /** Sets a message aside. */
  void die(int partition, String group, QueueBatch.Sent message, long nowMs) {
    byte[] its =
        QueueBatch.encode(nowMs, List.of(Queue.Outgoing.of(message.key(), message.body())));
    put(partition, "x" + group + "~" + message.sequence(), its);
    Set<Long> all = new HashSet<>(dead(partition, group));
    all.add(message.sequence());
    putDead(partition, group, all);
  }

  /** A message that was set aside, and when. */
  @Nullable QueueBatch deadOne(int partition, String group, long sequence) {
    byte[] value = get(partition, "x" + group + "~" + sequence);
    return value == null ? null : QueueBatch.decode(sequence, value);
  }

  void removeDead(int partition, String group, long sequence) {
    remove(partition, "x" + group + "~" + sequence);
    Set<Long> all = new HashSet<>(dead(partition, group));
    all.remove(sequence);
    putDead(partition, group, all);
  }
}
