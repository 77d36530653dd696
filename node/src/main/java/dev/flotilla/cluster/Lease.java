package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.Threads;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A lock that is held now, renewed in the background every third of its lease until it is closed.
 *
 * <p>It counts its time from before the request that last confirmed it was sent, by this machine's
 * monotonic clock; the cluster begins to count later. So this handle knows that the lock is lost
 * before anyone else can be given it, unless the process was paused in between: a pause is noticed
 * only afterwards, which is why resources check the {@link #fence}.
 */
public final class Lease implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Lease.class);

  private final Locks locks;
  private final Locks.Grant grant;
  private final Threads threads;
  private final CompletableFuture<String> lost = new CompletableFuture<>();
  private final CompletableFuture<Boolean> ended = new CompletableFuture<>();
  private volatile long validUntilNs;
  private volatile boolean closed;

  private Lease(Locks locks, Locks.Grant grant, long validUntilNs, Threads threads) {
    this.locks = locks;
    this.grant = grant;
    this.validUntilNs = validUntilNs;
    this.threads = threads;
  }

  static Optional<Lease> acquire(Locks locks, Locks.Request request, Threads threads) {
    long askedNs = threads.nanoTime();
    Optional<Locks.Grant> grant = locks.acquire(request);
    if (grant.isEmpty()) {
      return Optional.empty();
    }
    long leaseNs = TimeUnit.MILLISECONDS.toNanos(grant.get().ttlMs());
    long nowNs = threads.nanoTime();
    // When it was given lies somewhere between; after a long wait, a renewal gives a firm start.
    if (nowNs - askedNs > leaseNs / 2) {
      askedNs = nowNs;
      if (locks.renew(grant.get()).isEmpty()) {
        return Optional.empty();
      }
    }
    Lease lease = new Lease(locks, grant.get(), askedNs + leaseNs, threads);
    Threads.Started _ = threads.startVirtual("lease-" + grant.get().name(), lease::keep);
    return Optional.of(lease);
  }

  /** What to hand to the resource that the lock guards. */
  public Fence fence() {
    return new Fence(grant.name(), grant.token());
  }

  /** What was given. */
  public Locks.Grant grant() {
    return grant;
  }

  /** Whether it is held for sure at this moment; the next moment it may not be. */
  public boolean held() {
    return !closed && !lost.isDone() && threads.nanoTime() - validUntilNs < 0;
  }

  /** Completes with the reason when the lock is lost before it was closed. */
  public CompletionStage<String> lost() {
    return lost.minimalCompletionStage();
  }

  private void keep() {
    long leaseNs = TimeUnit.MILLISECONDS.toNanos(grant.ttlMs());
    try {
      while (!closed) {
        if (threads.await(ended, Math.max(1_000_000, leaseNs / 3)) || closed) {
          return;
        }
        long sentNs = threads.nanoTime();
        try {
          if (locks.renew(grant).isEmpty()) {
            lose("it was given to another or expired");
            return;
          }
          validUntilNs = sentNs + leaseNs;
        } catch (FlotillaException e) {
          log.warn("lock {}: not renewed yet: {}", grant.name(), e.explanation());
        }
        if (threads.nanoTime() - validUntilNs >= 0) {
          lose("it could not be renewed in " + grant.ttlMs() + " ms");
          return;
        }
      }
    } catch (InterruptedException e) {
      // Closed.
    }
  }

  private void lose(String reason) {
    if (!closed && lost.complete(reason)) {
      log.warn("lock {} (token {}) is lost: {}", grant.name(), grant.token(), reason);
    }
  }

  /** Gives the lock back; if that cannot be said to the cluster, the lease runs out instead. */
  @Override
  public void close() {
    if (closed) {
      return;
    }
    closed = true;
    ended.complete(true);
    try {
      locks.release(grant);
    } catch (FlotillaException e) {
      log.warn("lock {}: not released, it will expire: {}", grant.name(), e.explanation());
    }
  }
}
