package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class BlockLedgerTest {

  private static int[] tokens(long seed, int count) {
    return new Random(seed).ints(count, 0, 50).toArray();
  }

  @Test
  void aBlockIsKnownByItsTokensTheirRoutesAndWhatIsBeforeIt() {
    BlockLedger ledger = new BlockLedger(4);
    int[] text = tokens(1, 64);
    int block = ledger.take();
    long first = ledger.publish(BlockLedger.ROOT, block, text, 0, 64);
    assertThat(ledger.find(BlockLedger.ROOT, text, 0, 100))
        .contains(new BlockLedger.Known(block, first));
    assertThat(ledger.find(BlockLedger.ROOT, text, 0, 31)).isEmpty();
    assertThat(ledger.find(BlockLedger.ROOT, text, 32, 64)).isEmpty();
    assertThat(ledger.find(first, text, 0, 64)).isEmpty();
    int[] other = text.clone();
    other[31]++;
    assertThat(ledger.find(BlockLedger.ROOT, other, 0, 64)).isEmpty();
  }

  @Test
  void theSameTextTwiceHasOneName() {
    BlockLedger ledger = new BlockLedger(4);
    int[] text = tokens(1, 32);
    int one = ledger.take();
    int two = ledger.take();
    long name = ledger.publish(BlockLedger.ROOT, one, text, 0, 32);
    assertThat(ledger.publish(BlockLedger.ROOT, two, text, 0, 32)).isEqualTo(name);
    ledger.release(new int[] {two}, 1);
    assertThat(ledger.idle()).isZero();
    ledger.release(new int[] {one}, 1);
    assertThat(ledger.idle()).isEqualTo(1);
    assertThat(ledger.available()).isEqualTo(4);
  }

  @Test
  void whatIsTakenAwayIsFoundNoMoreAndNeitherIsWhatComesBehindIt() {
    BlockLedger ledger = new BlockLedger(2);
    int[] text = tokens(1, 64);
    int[] blocks = {ledger.take(), ledger.take()};
    long first = ledger.publish(BlockLedger.ROOT, blocks[0], text, 0, 64);
    long _ = ledger.publish(first, blocks[1], text, 32, 64);
    ledger.release(blocks, 2);
    assertThat(ledger.take()).isEqualTo(blocks[1]);
    assertThat(ledger.find(first, text, 32, 64)).isEmpty();
    assertThat(ledger.find(BlockLedger.ROOT, text, 0, 64)).isPresent();
    assertThat(ledger.available()).isZero();
  }

  /** Against a model of it that keeps whole texts. */
  @Test
  void noBlockIsEverInTwoHandsWithDifferentTextsNorLost() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    BlockLedger ledger = new BlockLedger(12);
    Map<Integer, List<Integer>> contents = new HashMap<>();
    List<int[]> held = new ArrayList<>();
    int found = 0;
    for (int turn = 0; turn < 3000; turn++) {
      if (random.nextBoolean() && !held.isEmpty()) {
        int[] blocks = held.remove(random.nextInt(held.size()));
        ledger.release(blocks, blocks.length);
        continue;
      }
      int wanted = 1 + random.nextInt(4);
      // One of a few texts that begin alike.
      int[] text = tokens(1, 32 * wanted);
      int branch = random.nextInt(3);
      for (int i = 32 * branch; i < text.length; i++) {
        text[i] += 100 * branch;
      }
      List<Integer> blocks = new ArrayList<>();
      long name = BlockLedger.ROOT;
      boolean looking = true;
      while (blocks.size() < wanted) {
        int from = 32 * blocks.size();
        List<Integer> part = new ArrayList<>();
        for (int i = 0; i < from + 32; i++) {
          part.add(text[i]);
        }
        Optional<BlockLedger.Known> known =
            looking ? ledger.find(name, text, from, 1000) : Optional.empty();
        looking = known.isPresent();
        if (known.isPresent()) {
          assertThat(contents.get(known.get().block())).as("seed %d", seed).isEqualTo(part);
          blocks.add(known.get().block());
          name = known.get().text();
          found++;
        } else if (ledger.available() > 0) {
          int block = ledger.take();
          for (int[] other : held) {
            assertThat(other).as("seed %d", seed).doesNotContain(block);
          }
          assertThat(blocks).as("seed %d", seed).doesNotContain(block);
          contents.put(block, part);
          blocks.add(block);
          name = ledger.publish(name, block, text, from, 1000);
        } else {
          break;
        }
      }
      held.add(blocks.stream().mapToInt(Integer::intValue).toArray());
      long distinct = held.stream().flatMapToInt(java.util.Arrays::stream).distinct().count();
      assertThat(ledger.held()).as("seed %d", seed).isEqualTo((int) distinct);
    }
    assertThat(found).isPositive();
    held.forEach(blocks -> ledger.release(blocks, blocks.length));
    assertThat(ledger.available()).isEqualTo(12);
  }
}
