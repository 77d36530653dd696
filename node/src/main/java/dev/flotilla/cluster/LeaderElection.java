package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import java.time.Duration;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A candidate that stands for election under a name until closed: a lock that is waited for, held
 * while it can be kept, and waited for again when lost. Who leads is {@code locks.show(name)}.
 */
public final class LeaderElection implements AutoCloseable {

  /** What a candidate does when it leads. */
  @FunctionalInterface
  public interface Candidate {

    /**
     * Leads, on a virtual thread, until it returns (which resigns) or is interrupted because the
     * lead was lost or the election closed. Whatever it decides carries {@link Lease#fence}.
     */
    void lead(Lease lease) throws InterruptedException;
  }

  private static final Logger log = LoggerFactory.getLogger(LeaderElection.class);
  private static final Duration WAIT = Duration.ofHours(1);
  private static final long RETRY_MS = 500;

  private final Locks locks;
  private final Locks.Request request;
  private final Candidate duties;
  private final Thread thread;
  private volatile Optional<Lease> lead = Optional.empty();
  private volatile boolean closed;

  private LeaderElection(Locks locks, Locks.Request request, Candidate duties) {
    this.locks = locks;
    this.request = request;
    this.duties = duties;
    this.thread = Thread.ofVirtual().name("election-" + request.name()).unstarted(this::run);
  }

  static LeaderElection stand(
      Locks locks, String name, String candidate, Duration lease, Candidate duties) {
    LeaderElection election =
        new LeaderElection(locks, Locks.Request.exclusive(name, candidate).ttl(lease), duties);
    election.thread.start();
    return election;
  }

  /** The lead, while this candidate has it. */
  public Optional<Lease> lead() {
    return lead.filter(Lease::held);
  }

  private void run() {
    while (!closed) {
      try {
        // A claim of its own each time: one that was given back is not asked for again.
        Optional<Lease> lease =
            locks.lease(
                Locks.Request.exclusive(request.name(), request.holder())
                    .ttl(Duration.ofMillis(request.ttlMs()))
                    .await(WAIT));
        if (lease.isPresent()) {
          lead(lease.get());
        }
      } catch (InterruptedException e) {
        return;
      } catch (FlotillaException e) {
        if (closed) {
          return;
        }
        log.warn("election {}: {}", request.name(), e.explanation());
        if (!pause()) {
          return;
        }
      } catch (RuntimeException e) {
        log.error("election {}: the leader failed and resigned", request.name(), e);
        if (!pause()) {
          return;
        }
      }
    }
  }

  private void lead(Lease lease) throws InterruptedException {
    try (lease) {
      lead = Optional.of(lease);
      log.info(
          "election {}: {} leads, token {}",
          request.name(),
          request.holder(),
          lease.fence().token());
      Thread leading = Thread.currentThread();
      lease.lost().thenRun(leading::interrupt);
      duties.lead(lease);
    } catch (InterruptedException e) {
      if (closed) {
        throw e;
      }
    } finally {
      lead = Optional.empty();
    }
  }

  private boolean pause() {
    try {
      Thread.sleep(RETRY_MS);
      return true;
    } catch (InterruptedException e) {
      return !closed;
    }
  }

  /** Resigns if it leads, and stands no more. */
  @Override
  public void close() {
    closed = true;
    thread.interrupt();
    try {
      thread.join(Duration.ofSeconds(10));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
