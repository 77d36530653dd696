package dev.flotilla.data.queue;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.data.queue.QueueDelivery.Offer;
import dev.flotilla.data.queue.QueueProgress.Trouble;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class QueueDeliveryTest {

  private static final int COUNT = 300;

  /** A partition whose batches arrive over time, one group, and owners that are lost. */
  private static final class Model {
    final Random random;
    final TreeMap<Long, QueueBatch> batches = new TreeMap<>();
    final Map<Long, QueueReceipt> lastReceipt = new HashMap<>();
    final Map<Long, Integer> handOuts = new HashMap<>();
    final List<QueueReceipt> receipts = new ArrayList<>();
    final Set<Long> done = new HashSet<>();
    final Map<String, Long> lastOfKey = new HashMap<>();
    QueueProgress progress = QueueProgress.from(0, 0);
    QueueDelivery delivery;
    QueueCursor cursor = new QueueCursor(0);
    long next;
    long now = 1_000;
    int owners;

    Model(long seed) {
      random = new Random(seed);
      delivery = new QueueDelivery(++owners, progress, 0);
    }

    void send() {
      List<Queue.Outgoing> sent = new ArrayList<>();
      for (int i = 0; i <= random.nextInt(6); i++) {
        sent.add(
            new Queue.Outgoing(
                random.nextInt(4) == 0 ? "" : "k" + random.nextInt(6),
                new byte[0],
                Optional.empty(),
                Duration.ofMillis(random.nextInt(3) == 0 ? random.nextInt(500) : 0),
                random.nextInt(20) == 0 ? random.nextInt(3) : 0));
      }
      QueueBatch batch = QueueBatch.decode(next, QueueBatch.encode(now, sent));
      batches.put(next, batch);
      next = batch.end();
    }

    void loseOwner() {
      delivery = new QueueDelivery(++owners, progress, next);
      cursor = new QueueCursor(progress.start());
    }

    QueueBatch batch(long first) {
      QueueBatch batch = batches.get(first);
      assertThat(batch).as("batch %d", first).isNotNull();
      return batch;
    }

    void receive() {
      int max = 1 + random.nextInt(5);
      List<Offer> offers =
          delivery.next(
              cursor.window(progress.floor(), next, this::batch),
              progress,
              now,
              max,
              cursor.highest());
      assertThat(offers.size()).isLessThanOrEqualTo(max);
      for (Offer offer : offers) {
        long sequence = offer.message().sequence();
        if (offer.durable()) {
          progress =
              progress.withTrouble(
                  sequence, new Trouble(offer.attempt(), delivery.owner(), now + 50));
        } else {
          delivery.handedOut(sequence, now + 50);
        }
        QueueReceipt receipt =
            new QueueReceipt("g", 0, sequence, offer.attempt(), delivery.owner(), 0);
        receipts.add(receipt);
        lastReceipt.put(sequence, receipt);
        int before = handOuts.merge(sequence, 1, Integer::sum) - 1;
        // One hand-out of a message at most goes uncounted.
        assertThat(offer.attempt()).isBetween(before, before + 1);
      }
    }

    void acknowledge() {
      QueueReceipt receipt = receipts.get(Math.max(0, receipts.size() - 1 - random.nextInt(12)));
      boolean good = receipt.isGood(progress);
      assertThat(good)
          .isEqualTo(
              !done.contains(receipt.sequence())
                  && receipt.equals(lastReceipt.get(receipt.sequence())));
      if (!good) {
        return;
      }
      if (random.nextInt(4) == 0) {
        progress =
            progress.withTrouble(
                receipt.sequence(),
                new Trouble(receipt.attempt(), receipt.owner(), now + random.nextInt(30)));
        return;
      }
      progress = progress.withDone(List.of(receipt.sequence()));
      assertThat(done.add(receipt.sequence())).isTrue();
      String key =
          batches.floorEntry(receipt.sequence()).getValue().messages().stream()
              .filter(m -> m.sequence() == receipt.sequence())
              .findFirst()
              .orElseThrow()
              .key();
      if (!key.isEmpty()) {
        Long before = lastOfKey.put(key, receipt.sequence());
        assertThat(before == null || before < receipt.sequence()).isTrue();
      }
    }
  }

  /** Consumers that forget, come late or give back, owners that are lost, a clock that jumps. */
  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
  void nothingIsLostOrDoneTwiceAndEachKeysOrderHolds(long seed) {
    Model model = new Model(seed);
    try {
      for (int step = 0; step < 100_000 && model.done.size() < COUNT; step++) {
        model.now += model.random.nextInt(20);
        if (model.random.nextInt(50) == 0) {
          model.now += model.random.nextInt(7200) - 3600;
        }
        if (model.next < COUNT && model.random.nextInt(3) == 0) {
          model.send();
        }
        if (model.random.nextInt(40) == 0) {
          model.loseOwner();
        }
        model.receive();
        if (!model.receipts.isEmpty()) {
          model.acknowledge();
        }
      }
      assertThat(model.done.size()).isGreaterThanOrEqualTo(COUNT);
      assertThat(model.owners).isGreaterThan(2);
    } catch (AssertionError e) {
      throw new AssertionError("seed " + seed + ": " + e.getMessage(), e);
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5})
  void whatIsChosenIsWhatLookingAtTheWholeWindowChooses(long seed) {
    Model model = new Model(seed);
    for (int step = 0; step < 300; step++) {
      if (model.random.nextInt(3) == 0) {
        model.send();
      }
      int max = 1 + model.random.nextInt(4);
      List<Long> chosen =
          model
              .delivery
              .next(
                  model.cursor.window(model.progress.floor(), model.next, model::batch),
                  model.progress,
                  model.now,
                  max,
                  model.cursor.highest())
              .stream()
              .map(offer -> offer.message().sequence())
              .toList();
      assertThat(chosen).as("seed %d", seed).isEqualTo(plainly(model, max));
      chosen.forEach(sequence -> model.progress = model.progress.withDone(List.of(sequence)));
      model.now += 10;
    }
  }

  private static List<Long> plainly(Model model, int max) {
    Set<String> keys = new HashSet<>();
    return model.batches.values().stream()
        .flatMap(batch -> batch.messages().stream())
        .filter(m -> !model.progress.isDone(m.sequence()))
        .filter(m -> m.key().isEmpty() || keys.add(m.key()))
        .filter(m -> m.notBeforeMs() <= model.now)
        .sorted(
            Comparator.comparingInt(QueueBatch.Sent::priority)
                .reversed()
                .thenComparingLong(QueueBatch.Sent::sequence))
        .limit(max)
        .map(QueueBatch.Sent::sequence)
        .toList();
  }

  @Test
  void aFirstHandOutIsWrittenOnlyWhereAnotherOwnerMayHaveHandedItOut() {
    Model model = new Model(1);
    while (model.next < 20) {
      model.batches.put(
          model.next,
          QueueBatch.decode(
              model.next,
              QueueBatch.encode(
                  1, List.of(Queue.Outgoing.of("", "x".getBytes(StandardCharsets.UTF_8))))));
      model.next++;
    }
    QueueDelivery certain = new QueueDelivery(1, model.progress, 0);
    QueueDelivery later = new QueueDelivery(2, model.progress, 10);
    var window = model.cursor.window(0, 20, model::batch);
    assertThat(certain.next(window, model.progress, 1_000, 20, 0))
        .hasSize(20)
        .noneMatch(Offer::durable);
    assertThat(later.next(window, model.progress, 1_000, 20, 0))
        .hasSize(20)
        .allMatch(offer -> offer.durable() == offer.message().sequence() < 10);
  }
}
