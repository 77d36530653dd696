package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;

class WorkersTest {

  @Test
  void everyItemRunsOnceAndIsDoneWhenTheCallReturns() {
    try (Workers workers = new Workers(3)) {
      for (int round = 0; round < 2000; round++) {
        AtomicIntegerArray runs = new AtomicIntegerArray(17);
        workers.each(17, Long.MAX_VALUE, (worker, item) -> runs.incrementAndGet(item));
        for (int item = 0; item < 17; item++) {
          assertThat(runs.get(item)).isEqualTo(1);
        }
      }
    }
  }

  @Test
  void aFailureOnAnyThreadReachesTheCaller() {
    try (Workers workers = new Workers(2)) {
      for (int failing = 0; failing < 8; failing++) {
        int bad = failing;
        assertThatThrownBy(
                () ->
                    workers.each(
                        8,
                        Long.MAX_VALUE,
                        (worker, item) -> {
                          if (item == bad) {
                            throw new IllegalArgumentException("item " + item);
                          }
                        }))
            .hasRootCauseMessage("item " + bad);
      }
    }
  }

  @Test
  void littleWorkStaysOnTheCallersThread() {
    Thread caller = Thread.currentThread();
    try (Workers workers = new Workers(4)) {
      workers.each(
          100, 1000, (worker, item) -> assertThat(Thread.currentThread()).isSameAs(caller));
    }
  }
}
