package dev.flotilla.simulate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.Inbox;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class WorldTest {

  private final World world = new World(7);
  private final World.Scope process = new World.Scope();
  private final FiberThreads threads = new FiberThreads(world, process, -5, 1);
  private final List<String> done = new ArrayList<>();

  @Test
  void aThreadThatWaitsTakesNoTimeButTheWorlds() {
    var _ =
        threads.start(
            "sleeper",
            () -> {
              try {
                long before = threads.nanoTime();
                threads.sleep(3_600 * World.S);
                assertThat(threads.nanoTime() - before).isBetween(3_600 * World.S, 3_601 * World.S);
                done.add("slept");
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    world.run(World.S);
    assertThat(done).isEmpty();
    world.run(3_601 * World.S);
    assertThat(done).containsExactly("slept");
  }

  @Test
  void whatIsDueAtOnceHappensInItsOrder() {
    world.after(10, null, () -> done.add("b"));
    world.after(5, null, () -> done.add("a"));
    world.after(10, null, () -> done.add("c"));
    world.run(20);
    assertThat(done).containsExactly("a", "b", "c");
  }

  @Test
  void aProcessThatIsStoppedGoesOnLaterAndOneThatDiedDoesNot() {
    Inbox<String> inbox = new Inbox<>(threads);
    var _ =
        threads.start(
            "reader",
            () -> {
              try {
                while (true) {
                  Optional<String> item = inbox.poll(World.S);
                  item.ifPresent(done::add);
                }
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    world.run(World.MS);
    process.stoppedUntilNs = 10 * World.S;
    inbox.add("late");
    world.run(5 * World.S);
    assertThat(done).isEmpty();
    world.run(6 * World.S);
    assertThat(done).containsExactly("late");
    process.down = true;
    inbox.add("never");
    world.run(60 * World.S);
    assertThat(done).containsExactly("late");
  }

  @Test
  void anInterruptEndsAWaitAndAJoinWaitsForTheEnd() {
    var sleeper =
        threads.start(
            "sleeper",
            () -> {
              try {
                threads.sleep(Long.MAX_VALUE);
              } catch (InterruptedException e) {
                done.add("interrupted");
              }
            });
    var _ =
        threads.start(
            "joiner",
            () -> {
              try {
                sleeper.interrupt();
                sleeper.join(World.S);
                done.add("joined");
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    world.run(2 * World.S);
    assertThat(done).containsExactly("interrupted", "joined");
  }

  @Test
  void whatFailsOnAThreadEndsTheRunAndSoDoesAnEventThatWouldWait() {
    var _ =
        threads.start(
            "fails",
            () -> {
              throw new IllegalStateException("expected by this test");
            });
    assertThatThrownBy(() -> world.run(World.S))
        .isInstanceOf(Violation.class)
        .hasMessageContaining("expected by this test");
    World other = new World(8);
    FiberThreads others = new FiberThreads(other, process, 0, 1);
    other.after(
        0,
        null,
        () -> {
          try {
            boolean _ = others.await(new CompletableFuture<>(), 1);
          } catch (InterruptedException e) {
            throw new IllegalStateException(e);
          }
        });
    assertThatThrownBy(() -> other.run(1)).isInstanceOf(Violation.class);
  }
}
