package dev.flotilla.data.queue;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.data.queue.QueueProgress.Trouble;
import java.util.List;
import org.junit.jupiter.api.Test;

class QueueProgressTest {

  @Test
  void theFloorRisesOverWhatIsDone() {
    QueueProgress progress =
        QueueProgress.from(0, 0)
            .withDone(List.of(2L))
            .withTrouble(0, new Trouble(1, 7, 9))
            .withDone(List.of(0L, 1L));
    assertThat(progress.floor()).isEqualTo(3);
    assertThat(progress.done()).isEmpty();
    assertThat(progress.troubled()).isEmpty();
    assertThat(progress.depth(5)).isEqualTo(2);
  }

  @Test
  void itIsStoredAndReadAgainAndKeepsItsSizeForAWhile() {
    QueueProgress progress =
        QueueProgress.from(3, 2)
            .withDone(List.of(2L, 3L, 9L))
            .withTrouble(5, new Trouble(3, -8, 77));
    assertThat(QueueProgress.decode(progress.encode())).isEqualTo(progress);
    assertThat(progress.encode()).hasSameSizeAs(QueueProgress.from(0, 0).encode());
  }
}
