package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Locks.Mode;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Stream;

/**
 * One lock as a pure state machine: who holds it, who waits, and what a request, a renewal, a
 * release or an expiry makes of that. It is the value of the lock's entry in the registry.
 *
 * <p>Waiters are let in strictly from the head of the queue: the first that does not fit stops all
 * behind it, so a writer is not starved by readers nor a big claim by small ones. The one exception
 * is a holder that asks again for what it has: making it wait for itself would be a deadlock.
 *
 * <p>A token is the epoch of the commit that gives the lock, which is known only once it is
 * committed. So a claim that was just let in has token 0, "as the entry's epoch"; {@link #at} puts
 * the number in, and must be the first thing done with a state that was read.
 */
record LockState(List<Claim> granted, List<Claim> waiting) {

  /**
   * One acquisition.
   *
   * @param renewals grows with each sign of life; expiry is judged by whether it moves
   * @param token 0 for one that waits, or was let in by the commit that last wrote this state
   */
  record Claim(
      String id, String holder, Mode mode, int permits, long ttlMs, long renewals, long token) {

    static Claim of(Locks.Request request) {
      return new Claim(
          request.claim(),
          request.holder(),
          request.mode(),
          request.permits(),
          request.ttlMs(),
          0,
          0);
    }

    private Claim withToken(long settled) {
      return new Claim(id, holder, mode, permits, ttlMs, renewals, settled);
    }

    private Claim renewed() {
      return new Claim(id, holder, mode, permits, ttlMs, renewals + 1, token);
    }
  }

  static final LockState FREE = new LockState(List.of(), List.of());

  LockState {
    granted = List.copyOf(granted);
    waiting = List.copyOf(waiting);
  }

  boolean isFree() {
    return granted.isEmpty() && waiting.isEmpty();
  }

  /** This state as the commit at an epoch wrote it. */
  LockState at(long epoch) {
    return new LockState(
        granted.stream().map(c -> c.token() == 0 ? c.withToken(epoch) : c).toList(), waiting);
  }

  Optional<Claim> holding(String claim) {
    return granted.stream().filter(c -> c.id().equals(claim)).findFirst();
  }

  boolean waits(String claim) {
    return waiting.stream().anyMatch(c -> c.id().equals(claim));
  }

  /** The last acquisition under a holder's token, for callers that do not name their claim. */
  Optional<Claim> holding(String holder, long token) {
    return granted.stream()
        .filter(c -> c.holder().equals(holder) && c.token() == token)
        .reduce((first, second) -> second);
  }

  boolean isCurrent(long token) {
    return granted.stream().anyMatch(c -> c.token() == token);
  }

  /** Adds a claim, and lets it in if its turn is now. A claim that is there already stays. */
  LockState request(Claim claim) {
    if (holding(claim.id()).isPresent() || waits(claim.id())) {
      return this;
    }
    checkUse(claim);
    Optional<Claim> own =
        claim.mode() == Mode.PERMIT
            ? Optional.empty()
            : granted.stream().filter(c -> c.holder().equals(claim.holder())).findFirst();
    if (own.isPresent()) {
      if (claim.mode() == Mode.EXCLUSIVE && holds(claim.holder(), Mode.SHARED)
          && !holds(claim.holder(), Mode.EXCLUSIVE)) {
        throw new FlotillaException(
            Code.CONFLICT,
            "holder " + claim.holder() + " has the lock as a reader and cannot become its writer",
            "Release it first; two readers that wait for each other would wait for ever.");
      }
      return new LockState(append(granted, claim.withToken(own.get().token())), waiting);
    }
    return new LockState(granted, append(waiting, claim)).promote();
  }

  private boolean holds(String holder, Mode mode) {
    return granted.stream().anyMatch(c -> c.holder().equals(holder) && c.mode() == mode);
  }

  private void checkUse(Claim claim) {
    Optional<Claim> other = Stream.concat(granted.stream(), waiting.stream()).findFirst();
    if (other.isPresent() && other.get().permits() != claim.permits()) {
      throw new FlotillaException(
          Code.CONFLICT,
          other.get().permits() == 0
              ? "the name is in use as a lock, not as a semaphore"
              : "the name is in use as a semaphore of " + other.get().permits() + " permits",
          "Use another name, or the same number of permits everywhere.");
    }
    if (granted.size() + waiting.size() >= Locks.CLAIMS_MAX) {
      throw new FlotillaException(
          Code.BUSY,
          "the lock has " + Locks.CLAIMS_MAX + " holders and waiters already",
          "Try again later.");
    }
  }

  /** A sign of life of each of these claims. */
  LockState renew(Set<String> claims) {
    return new LockState(renewed(granted, claims), renewed(waiting, claims));
  }

  private static List<Claim> renewed(List<Claim> list, Set<String> claims) {
    return list.stream().map(c -> claims.contains(c.id()) ? c.renewed() : c).toList();
  }

  /** Takes claims out, held or waiting, and lets in whose turn it is then. */
  LockState remove(Set<String> claims) {
    Predicate<Claim> stays = c -> !claims.contains(c.id());
    return new LockState(
            granted.stream().filter(stays).toList(), waiting.stream().filter(stays).toList())
        .promote();
  }

  /** Takes a claim out only if it still waits. */
  LockState withdraw(String claim) {
    return waits(claim) ? remove(Set.of(claim)) : this;
  }

  private LockState promote() {
    List<Claim> in = new ArrayList<>(granted);
    int next = 0;
    while (next < waiting.size() && fits(waiting.get(next), in)) {
      Claim claim = waiting.get(next++).renewed();
      Optional<Claim> own = in.stream().filter(c -> isSameWriter(c, claim)).findFirst();
      in.add(own.map(c -> claim.withToken(c.token())).orElse(claim));
    }
    return next == 0 ? this : new LockState(in, waiting.subList(next, waiting.size()));
  }

  private static boolean fits(Claim claim, List<Claim> in) {
    return switch (claim.mode()) {
      case EXCLUSIVE -> in.stream().allMatch(c -> isSameWriter(c, claim));
      case SHARED -> in.stream().allMatch(c -> c.mode() == Mode.SHARED || isSameWriter(c, claim));
      case PERMIT -> in.size() < claim.permits();
    };
  }

  /** Two threads of one holder that waited behind one another. */
  private static boolean isSameWriter(Claim in, Claim claim) {
    return in.holder().equals(claim.holder()) && in.mode() == Mode.EXCLUSIVE;
  }

  private static List<Claim> append(List<Claim> list, Claim claim) {
    List<Claim> longer = new ArrayList<>(list);
    longer.add(claim);
    return longer;
  }

  Locks.View view(String name) {
    int permits =
        Stream.concat(granted.stream(), waiting.stream()).mapToInt(Claim::permits).max().orElse(0);
    return new Locks.View(name, permits, claimants(granted), claimants(waiting));
  }

  private static List<Locks.Claimant> claimants(List<Claim> claims) {
    return claims.stream()
        .map(c -> new Locks.Claimant(c.holder(), c.mode(), c.token(), c.ttlMs()))
        .toList();
  }
}
