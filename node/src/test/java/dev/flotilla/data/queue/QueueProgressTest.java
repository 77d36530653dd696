package dev.flotilla.data.queue;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.Json;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class QueueProgressTest {

  @Test
  void theFloorRisesOverWhatIsDone() {
    QueueProgress progress =
        QueueProgress.from(0).withDone(2).withTrouble(0, 1, 9).withDone(0).withDone(1);
    assertThat(progress).isEqualTo(QueueProgress.from(3));
    assertThat(progress.depth(5)).isEqualTo(2);
  }

  @Test
  void itIsStoredAndReadAgain() {
    QueueProgress progress = QueueProgress.from(4).withDone(9).withTrouble(5, 3, 77);
    byte[] json = Json.write(progress.stored());
    assertThat(QueueProgress.of(Json.read(json, QueueProgress.Stored.class))).isEqualTo(progress);
  }

  /** Consumers that forget, come late or give back, and a clock that jumps. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
  void nothingIsLostOrDoneTwiceAndEachKeysOrderHolds(long seed) {
    Random random = new Random(seed);
    int count = 200;
    List<QueueWindow.Waiting> messages = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      String key = random.nextInt(4) == 0 ? "" : "k" + random.nextInt(6);
      messages.add(new QueueWindow.Waiting(i, key, random.nextInt(3), random.nextInt(500)));
    }
    QueueProgress progress = QueueProgress.from(0);
    Set<Long> done = new HashSet<>();
    Map<String, Long> lastOfKey = new HashMap<>();
    record Handed(long sequence, int attempt) {}
    List<Handed> handed = new ArrayList<>();
    long now = 0;
    for (int step = 0; step < 100_000 && done.size() < count; step++) {
      now += random.nextInt(20) + (random.nextInt(50) == 0 ? random.nextInt(7200) - 3600 : 0);
      for (QueueWindow.Waiting next :
          QueueWindow.next(messages, progress, now, 1 + random.nextInt(5))) {
        int attempt = progress.attempts(next.sequence()) + 1;
        progress = progress.withTrouble(next.sequence(), attempt, now + 50);
        handed.add(new Handed(next.sequence(), attempt));
      }
      if (handed.isEmpty()) {
        continue;
      }
      Handed receipt = handed.get(Math.max(0, handed.size() - 1 - random.nextInt(12)));
      boolean good =
          !progress.isDone(receipt.sequence())
              && progress.attempts(receipt.sequence()) == receipt.attempt();
      if (good && random.nextInt(3) > 0) {
        progress = progress.withDone(receipt.sequence());
        assertThat(done.add(receipt.sequence())).as("seed %d", seed).isTrue();
        String key = messages.get((int) receipt.sequence()).key();
        if (!key.isEmpty()) {
          Long before = lastOfKey.put(key, receipt.sequence());
          assertThat(before == null || before < receipt.sequence()).as("seed %d", seed).isTrue();
        }
      }
    }
    assertThat(done).as("seed %d", seed).hasSize(count);
    assertThat(progress.floor()).isEqualTo(count);
  }
}
