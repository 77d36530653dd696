package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * How much room the disk of the data folder has, here and on the other nodes, so that writes are
 * refused before a disk is full.
 *
 * <p>An engine that finds no room for its write-ahead log is broken from then on, and what it was
 * writing has an unknown outcome. So the last part of the disk, the reserve, is not for new data:
 * it is for what was acknowledged already and still lies in memory (at most the grid's pages), for
 * the write-ahead log, and for what is being written by others of our parts. Where the reserve
 * begins, data is refused; where three quarters of it are used up, so are decisions of the
 * registry. Reads go on.
 *
 * <p>Data has copies on several nodes, so one full disk is everyone's concern: a node says in the
 * registry that its disk is full, and all others refuse data too until it says otherwise or is
 * lost. Between two looks at a disk lies so little time that nobody can fill the reserve in it.
 */
public final class DiskSpace implements AutoCloseable {

  /** The registry's entry of a node whose disk is full, by the node's id. */
  static final String KIND = "full-disk";

  private static final Logger LOG = LoggerFactory.getLogger(DiskSpace.class);
  private static final long RESERVE_MAX_BYTES = 512L << 20;
  private static final long LOOK_NS = 10_000_000L;
  private static final long WATCH_MS = 200;

  private final String self;
  private final Path folder;
  private final LongSupplier usableBytes;
  private final LongSupplier nanoTime;
  private final long reserveBytes;
  private volatile long lookedNs;
  private volatile long freeBytes;
  private volatile boolean low;
  private volatile Set<String> full = Set.of();
  private volatile @Nullable String broken;
  private volatile boolean closed;
  private @Nullable Thread thread;

  /** What the log was told last; the registry may take longer to hear it. */
  private boolean saidLow;

  /**
   * @param usableBytes of the disk, now
   * @param totalBytes of the disk
   */
  DiskSpace(
      String self, Path folder, LongSupplier usableBytes, long totalBytes, LongSupplier nanoTime) {
    this.self = self;
    this.folder = folder;
    this.usableBytes = usableBytes;
    this.nanoTime = nanoTime;
    // A disk so small that this is a quarter of it cannot be kept safe for certain.
    this.reserveBytes = Math.min(RESERVE_MAX_BYTES, totalBytes / 4);
    look(nanoTime.getAsLong());
  }

  /** Of the disk that the folder lies on. */
  public static DiskSpace of(String self, Path folder) {
    return new DiskSpace(
        self,
        folder,
        () -> folder.toFile().getUsableSpace(),
        folder.toFile().getTotalSpace(),
        System::nanoTime);
  }

  /** Free on this node's disk, as of a moment ago. */
  public long freeBytes() {
    long nowNs = nanoTime.getAsLong();
    if (nowNs - lookedNs > LOOK_NS) {
      look(nowNs);
    }
    return freeBytes;
  }

  /** What is kept free of new data. */
  public long reserveBytes() {
    return reserveBytes;
  }

  private void look(long nowNs) {
    long free = usableBytes.getAsLong();
    freeBytes = free;
    lookedNs = nowNs;
    // Once low, it takes an eighth more to be well again, so that it does not flicker.
    low = free < reserveBytes + (low ? reserveBytes / 8 : 0);
  }

  /** Whether this node's disk has no room for new data. */
  public boolean isLow() {
    return freeBytes() < reserveBytes || low;
  }

  /** Why this node takes no new data now, for people; empty if it does. */
  public Optional<String> ownRefusal() {
    String past = broken;
    if (past != null) {
      return Optional.of(past);
    }
    if (isLow()) {
      return Optional.of(
          "the disk of this node's data folder "
              + folder
              + " is full: "
              + (freeBytes >> 20)
              + " MB are left, and "
              + (reserveBytes >> 20)
              + " MB are kept for what was written before");
    }
    return Optional.empty();
  }

  private Optional<String> refusal() {
    Set<String> others = full;
    return ownRefusal()
        .or(
            () ->
                others.isEmpty()
                    ? Optional.empty()
                    : Optional.of(
                        "the disk of node "
                            + String.join(", ", others)
                            + " is full, and data has copies there"));
  }

  /**
   * Lets new data pass, or not.
   *
   * @param what for the error, such as {@code "writing cache prices"}
   * @throws FlotillaException {@code STORAGE} if a disk is full; nothing was done then
   */
  public void checkRoom(String what) {
    // The common case costs two reads.
    if (!isLow() && full.isEmpty() && broken == null) {
      return;
    }
    refusal()
        .ifPresent(
            why -> {
              throw new FlotillaException(
                  Code.STORAGE,
                  what + " was refused, and nothing was done: " + why,
                  "Free some space on that disk or make it larger; writing goes on by itself then.");
            });
  }

  /**
   * Notes that something has failed for want of room and is not mended yet.
   *
   * @param why what
   */
  void broke(String why) {
    broken = why;
  }

  /** What was noted has been mended. */
  void mended() {
    broken = null;
  }

  /** Whether even the registry and the start of an engine have no room left. */
  public boolean isExhausted() {
    return freeBytes() < reserveBytes / 4;
  }

  /**
   * Learns from the registry whose disks are full.
   *
   * @param nodes those that are there
   */
  void follow(Registry registry, List<NodeInfo> nodes) {
    Set<String> said = new HashSet<>();
    for (Registry.Entry entry : registry.list(KIND)) {
      said.add(entry.key().name());
    }
    if (said.isEmpty() && full.isEmpty()) {
      return;
    }
    Set<String> now = new HashSet<>();
    for (NodeInfo node : nodes) {
      if (said.contains(node.id())
          && node.state() != NodeInfo.State.LOST
          && !node.id().equals(self)) {
        now.add(node.id());
      }
    }
    full = Set.copyOf(now);
  }

  void start(RaftRegistry registry) {
    thread = Thread.ofPlatform().daemon().name("disk-" + self).start(() -> watch(registry));
  }

  private void watch(RaftRegistry registry) {
    while (!closed) {
      try {
        registry.reopenIfBroken();
        tell(registry);
        if (isExhausted()) {
          // Whoever leads must be able to write: another may have room.
          registry.handOver();
        }
      } catch (InterruptedException e) {
        return;
      } catch (FlotillaException e) {
        // The next look tries again.
        LOG.debug("{}: cannot tell the others about the disk", self, e);
      } catch (RuntimeException e) {
        if (!closed) {
          LOG.warn("{}: watching the disk failed, and goes on", self, e);
        }
      }
      try {
        Thread.sleep(WATCH_MS);
      } catch (InterruptedException e) {
        return;
      }
    }
  }

  /** Brings the registry's entry to how it is. */
  private void tell(RaftRegistry registry) {
    Registry.Key key = new Registry.Key(KIND, self);
    boolean isLow = isLow();
    if (isLow != saidLow) {
      saidLow = isLow;
      say(isLow);
    }
    if (isLow == registry.get(key).isPresent()) {
      return;
    }
    registry.commit(
        List.of(),
        List.of(
            new Registry.Write(
                key, isLow ? Optional.of(Json.write(freeBytes)) : Optional.empty())));
  }

  private void say(boolean isLow) {
    if (isLow) {
      LOG.warn(
          "{}: the disk of {} is full ({} MB left): new data is refused by all nodes",
          self,
          folder,
          freeBytes >> 20);
    } else {
      LOG.info("{}: the disk of {} has room again", self, folder);
    }
  }

  @Override
  public void close() {
    closed = true;
    if (thread != null) {
      thread.interrupt();
    }
  }
}
