package dev.flotilla.data.grid;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.apache.ignite.Ignite;
import org.apache.ignite.Ignition;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Who is inside an engine. An engine stops only once all have come out, and after a cut some wait
 * in it for what never comes: a roll-back that a stopping engine can no longer finish. So whoever
 * is still inside {@link #GRACE_MS} after the stop has begun is interrupted.
 */
final class EngineUse {

  private static final Logger log = LoggerFactory.getLogger(Grid.class);

  /** Far longer than what is under way takes; a node without its engine serves no data. */
  private static final long GRACE_MS = 3_000;

  /** Who was interrupted may go on to wait for something else. */
  private static final long AGAIN_MS = 500;

  private final Set<Stay> inside = ConcurrentHashMap.newKeySet();

  /** One thread's stay inside an engine. */
  private static final class Stay {
    private final Ignite engine;
    private final Thread thread = Thread.currentThread();
    private boolean over;
    private boolean interrupted;

    Stay(Ignite engine) {
      this.engine = engine;
    }

    synchronized void interrupt() {
      if (!over) {
        interrupted = true;
        thread.interrupt();
      }
    }

    /** What was meant for the stay must not reach what the thread does next. */
    synchronized void end() {
      over = true;
      if (interrupted) {
        boolean _ = Thread.interrupted();
      }
    }
  }

  <T> T apply(Ignite engine, Function<Ignite, T> operation) {
    Stay stay = new Stay(engine);
    inside.add(stay);
    try {
      return operation.apply(engine);
    } finally {
      inside.remove(stay);
      stay.end();
    }
  }

  /** Stops the engine, and returns once it has. */
  @SuppressWarnings("ReferenceEquality")
  void stop(Ignite engine) {
    CountDownLatch stopped = new CountDownLatch(1);
    Thread.ofVirtual()
        .name("grid-stop")
        .start(
            () -> {
              try {
                boolean told = false;
                for (long waitMs = GRACE_MS;
                    !stopped.await(waitMs, TimeUnit.MILLISECONDS);
                    waitMs = AGAIN_MS) {
                  var late = inside.stream().filter(stay -> stay.engine == engine).toList();
                  if (!told && !late.isEmpty()) {
                    log.warn(
                        "data grid: {} that wait in an engine that stops are interrupted",
                        late.size());
                    told = true;
                  }
                  late.forEach(Stay::interrupt);
                }
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              }
            });
    try {
      Ignition.stop(engine.name(), true);
    } finally {
      stopped.countDown();
    }
  }
}
