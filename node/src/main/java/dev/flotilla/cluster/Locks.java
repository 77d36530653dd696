package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Names;
import dev.flotilla.Threads;
import io.micrometer.core.instrument.MeterRegistry;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.function.LongSupplier;

/**
 * Locks of the whole cluster: leases with fencing tokens, given in the order of asking.
 *
 * <p>Names are made by using them; those that begin with {@value #RESERVED} are refused to
 * applications. {@link #lease} is for programs: it waits, renews by itself, and tells when the lock
 * is lost. {@link #acquire}, {@link #renew} and {@link #release} are the steps it is made of.
 *
 * <p>A lease bounds how long a dead holder blocks others; it does not keep a paused one from
 * writing. That is what the token is for: hand {@link Lease#fence} to the resource.
 *
 * <p>All methods throw {@code NO_MAJORITY} if nothing was decided, {@code OUTCOME_UNKNOWN} if that
 * cannot be told (ask again with the same claim, and nothing is done twice), {@code INVALID} for a
 * malformed request.
 */
public interface Locks {

  /** How a lock is used; one that is used as a semaphore can be used in no other way meanwhile. */
  enum Mode {
    /** Alone. Re-entrant: a holder that asks again is given it again, with the same token. */
    EXCLUSIVE,
    /** Together with other readers. Given to a holder that has it in either mode. */
    SHARED,
    /** One permit of a semaphore. Not re-entrant: asking again takes another permit. */
    PERMIT
  }

  /**
   * What is asked for.
   *
   * @param holder who asks; the same name is the same holder, wherever it asks from
   * @param claim an id of this one acquisition: asking again with it is the same request, and keeps
   *     its place in the queue
   * @param permits how many the semaphore has; 0 for the other modes
   * @param ttlMs how long it stays the holder's without a renewal, {@value #TTL_MS_MIN} to {@value
   *     #TTL_MS_MAX}
   * @param waitMs how long to wait; 0 only tries
   * @param keepWaiting stay in the queue for another {@code ttlMs} when the wait is over, for a
   *     caller that asks again at once
   */
  record Request(
      String name,
      String holder,
      String claim,
      Mode mode,
      int permits,
      long ttlMs,
      long waitMs,
      boolean keepWaiting) {

    private static final int HOLDER_CHARACTERS_MAX = 256;

    /** Checks the bounds. */
    public Request {
      Names.check("a lock", name);
      checkHolder(holder);
      Names.check("a claim", claim);
      if (mode == Mode.PERMIT ? permits < 1 || permits > PERMITS_MAX : permits != 0) {
        throw new FlotillaException(
            Code.INVALID,
            permits + " permits are out of range",
            "A semaphore has 1 to " + PERMITS_MAX + " permits; other locks have none.");
      }
      if (ttlMs < TTL_MS_MIN || ttlMs > TTL_MS_MAX) {
        throw new FlotillaException(
            Code.INVALID,
            "a lease of " + ttlMs + " ms is out of range",
            "Choose " + TTL_MS_MIN + " to " + TTL_MS_MAX + " ms.");
      }
      if (waitMs < 0) {
        throw new FlotillaException(
            Code.INVALID, "a wait of " + waitMs + " ms is out of range", "Wait 0 ms or more.");
      }
    }

    private static void checkHolder(String holder) {
      if (holder.isBlank()
          || holder.length() > HOLDER_CHARACTERS_MAX
          || holder.chars().anyMatch(Character::isISOControl)) {
        throw new FlotillaException(
            Code.INVALID,
            "a lock's holder must be 1 to " + HOLDER_CHARACTERS_MAX + " printable characters",
            "Name the process and thread that holds it, such as host-1/4711/1.");
      }
    }

    /** One that is held alone. */
    public static Request exclusive(String name, String holder) {
      return new Request(name, holder, newClaim(), Mode.EXCLUSIVE, 0, TTL_MS, 0, false);
    }

    /** One that readers share. */
    public static Request shared(String name, String holder) {
      return new Request(name, holder, newClaim(), Mode.SHARED, 0, TTL_MS, 0, false);
    }

    /** One of so many permits. */
    public static Request permit(String name, String holder, int permits) {
      return new Request(name, holder, newClaim(), Mode.PERMIT, permits, TTL_MS, 0, false);
    }

    /** The same with another lease. */
    public Request ttl(Duration ttl) {
      return new Request(name, holder, claim, mode, permits, ttl.toMillis(), waitMs, keepWaiting);
    }

    /** The same with a wait. */
    public Request await(Duration wait) {
      return new Request(name, holder, claim, mode, permits, ttlMs, wait.toMillis(), keepWaiting);
    }

    /** The same, that keeps its place when the wait is over. */
    public Request keepingItsPlace(boolean keep) {
      return new Request(name, holder, claim, mode, permits, ttlMs, waitMs, keep);
    }

    private static String newClaim() {
      return UUID.randomUUID().toString();
    }
  }

  /**
   * A lock that was given.
   *
   * @param claim of the request; empty where it is not known, then {@code token} and {@code holder}
   *     name it
   * @param token greater than that of every earlier holder; readers that were let in together share
   *     one
   */
  record Grant(String name, String holder, String claim, long token, long ttlMs) {}

  /** A holder or a waiter, as seen from outside; token 0 while it waits. */
  record Claimant(String holder, Mode mode, long token, long ttlMs) {}

  /**
   * A lock that somebody holds or waits for.
   *
   * @param permits how many a semaphore has, else 0
   * @param waiting in the order in which they will be given it
   */
  record View(String name, int permits, List<Claimant> holders, List<Claimant> waiting) {}

  /** How the names of locks begin that only the cluster itself takes. */
  String RESERVED = "flotilla.";

  /** The default lease. */
  long TTL_MS = 10_000;

  /** The shortest lease. */
  long TTL_MS_MIN = 200;

  /** The longest lease: an hour. */
  long TTL_MS_MAX = 3_600_000;

  /** The most permits of a semaphore. */
  int PERMITS_MAX = 10_000;

  /** Holders and waiters of one lock together; more are refused with {@code BUSY}. */
  int CLAIMS_MAX = 2_000;

  /** This node's locks; call before the cluster starts, because its leader watches over them. */
  static Locks embedded(Cluster cluster, LongSupplier nanoTime, MeterRegistry metrics) {
    RegistryLocks locks =
        new RegistryLocks(cluster.registry(), cluster.threads(), nanoTime, metrics);
    cluster.addReconciler(locks);
    return locks;
  }

  /** The same locks for applications, which may not take those of {@link #RESERVED} names. */
  default Locks forUsers() {
    return new UserLocks(this);
  }

  /**
   * Asks, and waits in the queue if asked to.
   *
   * @return empty if it was not to be had in time
   * @throws FlotillaException {@code CONFLICT} if the name is in use in another way (as a semaphore
   *     with other permits, or by the same holder as a reader), {@code BUSY} if the queue is full
   */
  Optional<Grant> acquire(Request request);

  /**
   * Keeps a lock for another lease of the length that it was acquired with, counted from before
   * this call.
   *
   * @return what is held; empty if it is no longer the holder's
   */
  Optional<Grant> renew(Grant grant);

  /**
   * Gives a lock back; the next in the queue has it when this returns.
   *
   * @return whether it was still the holder's
   */
  boolean release(Grant grant);

  /** Who holds it and who waits, in this node's copy; with nobody there, both are empty. */
  View show(String name);

  /** All that somebody holds or waits for, by name. */
  List<View> list();

  /**
   * Asks as {@link #acquire}, and renews from then on until it is closed.
   *
   * @return empty if it was not to be had in time
   */
  default Optional<Lease> lease(Request request) {
    return Lease.acquire(this, request, Threads.real());
  }

  /**
   * Stands for election until closed: of all candidates under one name, one leads at a time, and
   * when it dies or resigns the next one takes over.
   */
  default LeaderElection elect(String name, String candidate, LeaderElection.Candidate duties) {
    return elect(name, candidate, Duration.ofMillis(TTL_MS), duties);
  }

  /**
   * As above.
   *
   * @param lease how long the lead of one that died is still its own; shorter leases are renewed
   *     more often
   */
  default LeaderElection elect(
      String name, String candidate, Duration lease, LeaderElection.Candidate duties) {
    return LeaderElection.stand(this, name, candidate, lease, duties);
  }
}
