package dev.flotilla.data.grid;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class CombinerTest {

  /** One caller holds the work up while others gather; then the work for these fails or not. */
  private static List<String> outcomes(Code sharedFailure, List<List<String>> calls)
      throws InterruptedException {
    CountDownLatch first = new CountDownLatch(1);
    CountDownLatch gathered = new CountDownLatch(1);
    Combiner<String, String> combiner =
        new Combiner<>(
            100,
            item -> 1,
            items -> {
              synchronized (calls) {
                calls.add(List.copyOf(items));
              }
              if (!items.contains("first")) {
                throw new FlotillaException(sharedFailure, "shared", "");
              }
              first.countDown();
              try {
                gathered.await();
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
              return items;
            },
            items -> {
              synchronized (calls) {
                calls.add(List.copyOf(items));
              }
              return items;
            });
    ConcurrentLinkedQueue<String> ends = new ConcurrentLinkedQueue<>();
    AtomicInteger waiting = new AtomicInteger();
    List<Thread> callers = new ArrayList<>();
    callers.add(Thread.ofPlatform().start(() -> combiner.submit(List.of("first"))));
    first.await();
    for (int i = 0; i < 3; i++) {
      String item = "item-" + i;
      callers.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    waiting.incrementAndGet();
                    try {
                      ends.addAll(combiner.submit(List.of(item)));
                    } catch (FlotillaException e) {
                      ends.add(e.code().name());
                    }
                  }));
    }
    for (Thread caller : callers.subList(1, 4)) {
      while (caller.getState() != Thread.State.WAITING) {
        Thread.sleep(1);
      }
    }
    gathered.countDown();
    for (Thread caller : callers) {
      caller.join();
    }
    return List.copyOf(ends);
  }

  @Test
  void whatMayHaveBeenDoneIsNotDoneAgain() throws Exception {
    List<List<String>> calls = new ArrayList<>();
    assertThat(outcomes(Code.OUTCOME_UNKNOWN, calls))
        .containsExactly("OUTCOME_UNKNOWN", "OUTCOME_UNKNOWN", "OUTCOME_UNKNOWN");
    assertThat(calls).hasSize(2);
  }

  @Test
  void whatWasNotDoneIsDoneByEachAlone() throws Exception {
    List<List<String>> calls = new ArrayList<>();
    assertThat(outcomes(Code.CONFLICT, calls))
        .containsExactlyInAnyOrder("item-0", "item-1", "item-2");
    assertThat(calls).hasSize(5);
  }
}
