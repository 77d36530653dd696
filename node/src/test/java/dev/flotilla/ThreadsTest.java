package dev.flotilla;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class ThreadsTest {

  private static final long LONG_NS = TimeUnit.SECONDS.toNanos(30);

  @Test
  void anInboxGivesWhatCameInItsOrderAndWaitsForMore() throws Exception {
    Inbox<Integer> inbox = new Inbox<>(Threads.real());
    assertThat(inbox.poll()).isEmpty();
    assertThat(inbox.poll(1)).isEmpty();
    int senders = 4;
    int each = 2_000;
    for (int sender = 0; sender < senders; sender++) {
      int first = sender * each;
      Threads.Started _ =
          Threads.real()
              .start(
                  "sender",
                  () -> {
                    for (int i = 0; i < each; i++) {
                      inbox.add(first + i);
                    }
                  });
    }
    int[] next = new int[senders];
    for (int i = 0; i < senders * each; i++) {
      Optional<Integer> item = inbox.poll(LONG_NS);
      assertThat(item).isPresent();
      assertThat(item.get() % each).isEqualTo(next[item.get() / each]++);
    }
    assertThat(inbox.poll()).isEmpty();
  }

  @Test
  void aSignalIsKeptForWhoComesLaterAndLoweredByIt() throws Exception {
    Signal signal = new Signal(Threads.real());
    assertThat(signal.await(1)).isFalse();
    signal.raise();
    signal.raise();
    assertThat(signal.await(LONG_NS)).isTrue();
    assertThat(signal.await(1)).isFalse();
    Threads.Started _ = Threads.real().startVirtual("raises", signal::raise);
    assertThat(signal.await(LONG_NS)).isTrue();
  }

  @Test
  void anAgendaGoesByTimeThenByOrderAndOutlivesATaskThatFails() throws Exception {
    List<Integer> done = new ArrayList<>();
    CountDownLatch last = new CountDownLatch(1);
    try (Agenda agenda = new Agenda("agenda", Threads.real())) {
      agenda.add(
          () -> {
            done.add(4);
            last.countDown();
          },
          TimeUnit.MILLISECONDS.toNanos(80));
      agenda.add(() -> done.add(3), TimeUnit.MILLISECONDS.toNanos(40));
      agenda.add(
          () -> {
            throw new IllegalStateException("expected by this test");
          });
      agenda.add(() -> done.add(1));
      agenda.add(() -> done.add(2));
      assertThat(last.await(30, TimeUnit.SECONDS)).isTrue();
    }
    assertThat(done).containsExactly(1, 2, 3, 4);
  }

  @Test
  void aWaitEndsWithAFailureAndWithAnInterrupt() throws Exception {
    assertThat(Threads.real().await(CompletableFuture.failedFuture(new IllegalStateException()), 1))
        .isTrue();
    CompletableFuture<Boolean> woken = new CompletableFuture<>();
    Threads.Started waiting =
        Threads.real()
            .start(
                "waits",
                () -> {
                  try {
                    Threads.real().sleep(LONG_NS);
                    woken.complete(false);
                  } catch (InterruptedException e) {
                    woken.complete(true);
                  }
                });
    waiting.interrupt();
    assertThat(woken.get(30, TimeUnit.SECONDS)).isTrue();
    waiting.join(LONG_NS);
  }
}
