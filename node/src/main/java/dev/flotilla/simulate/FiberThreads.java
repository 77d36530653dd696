package dev.flotilla.simulate;

import dev.flotilla.Threads;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/** The threads of one process of a world. Its clock starts anywhere and runs a little off. */
final class FiberThreads implements Threads {

  private final World world;
  private final World.Scope scope;
  private final long originNs;
  private final double rate;

  /**
   * @param rate of its clock: seconds that it shows in one
   */
  FiberThreads(World world, World.Scope scope, long originNs, double rate) {
    this.world = world;
    this.scope = scope;
    this.originNs = originNs;
    this.rate = rate;
  }

  @Override
  public long nanoTime() {
    return originNs + (long) (world.nowNs() * rate);
  }

  @Override
  public Started start(String name, Runnable task) {
    CompletableFuture<Boolean> end = new CompletableFuture<>();
    World.Fiber fiber =
        world.fiber(
            name,
            scope,
            () -> {
              task.run();
              end.complete(true);
            });
    return new Started() {
      @Override
      public void interrupt() {
        if (!fiber.ended) {
          fiber.interrupted = true;
          fiber.wake.run();
        }
      }

      @Override
      public void join(long timeoutNs) throws InterruptedException {
        boolean _ = await(end, timeoutNs);
      }
    };
  }

  @Override
  public Started startVirtual(String name, Runnable task) {
    return start(name, task);
  }

  @Override
  public boolean await(CompletableFuture<?> event, long timeoutNs) throws InterruptedException {
    World.@Nullable Fiber self = world.current();
    if (event.isDone()) {
      return true;
    }
    if (self == null) {
      throw new Violation("an event of the transport or the timer would wait");
    }
    if (!self.interrupted) {
      boolean[] waits = {true};
      Runnable wake =
          () -> {
            if (waits[0]) {
              waits[0] = false;
              // Who is woken first is no matter of who was told first.
              world.after(world.random.nextInt(5_000), scope, self::go);
            }
          };
      self.wake = wake;
      event.whenComplete((result, error) -> wake.run());
      if (timeoutNs < Long.MAX_VALUE / 4) {
        world.after(
            (long) (timeoutNs / rate) + 1,
            scope,
            () -> {
              if (waits[0]) {
                waits[0] = false;
                self.go();
              }
            });
      }
      self.pause();
      self.wake = () -> {};
    }
    if (self.interrupted) {
      self.interrupted = false;
      throw new InterruptedException();
    }
    return event.isDone();
  }
}
