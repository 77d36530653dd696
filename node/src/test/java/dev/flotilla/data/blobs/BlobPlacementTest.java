package dev.flotilla.data.blobs;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;

class BlobPlacementTest {

  private static final int CHUNKS = 20_000;

  private static List<String> nodes(int count) {
    List<String> nodes = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      nodes.add("node-" + i);
    }
    return nodes;
  }

  static List<String> chunks(Random random, int count) {
    List<String> chunks = new ArrayList<>();
    byte[] content = new byte[16];
    for (int i = 0; i < count; i++) {
      random.nextBytes(content);
      chunks.add(BlobManifest.sha256(content, content.length));
    }
    return chunks;
  }

  @Test
  void everyNodeKeepsItsShareToWithinAFewPercent() {
    for (int size : new int[] {4, 5, 13}) {
      Map<String, Integer> kept = new HashMap<>();
      for (String chunk : chunks(new Random(7), CHUNKS)) {
        BlobPlacement.keepers(chunk, nodes(size), 3)
            .forEach(node -> kept.merge(node, 1, Integer::sum));
      }
      double fair = 3.0 * CHUNKS / size;
      assertThat(kept).hasSize(size);
      kept.values().forEach(count -> assertThat(count / fair).isBetween(0.94, 1.06));
    }
  }

  @Test
  void aNodeThatComesTakesItsShareAndNothingElseMoves() {
    int moved = 0;
    for (String chunk : chunks(new Random(8), CHUNKS)) {
      List<String> before = BlobPlacement.keepers(chunk, nodes(5), 3);
      List<String> after = BlobPlacement.keepers(chunk, nodes(6), 3);
      Set<String> came = new HashSet<>(after);
      came.removeAll(before);
      assertThat(came).isSubsetOf("node-5");
      moved += came.size();
    }
    assertThat((double) moved / CHUNKS).isBetween(0.47, 0.53);
  }

  @Test
  void aNodeThatGoesLeavesTheOthersCopiesWhereTheyAre() {
    List<String> left = nodes(6);
    left.remove(2);
    for (String chunk : chunks(new Random(9), 2_000)) {
      List<String> before = new ArrayList<>(BlobPlacement.keepers(chunk, nodes(6), 3));
      before.remove("node-2");
      assertThat(BlobPlacement.keepers(chunk, left, 3)).containsAll(before);
    }
  }

  @Test
  void carryingOutThePlanLeavesNothingToDoAndKeepsEveryChunk() {
    for (int seed = 0; seed < 200; seed++) {
      Random random = new Random(seed);
      List<String> all = nodes(1 + random.nextInt(6));
      Set<String> live = new TreeSet<>(chunks(random, 30));
      Map<String, Set<String>> held = new TreeMap<>();
      all.forEach(node -> held.put(node, new TreeSet<>()));
      Set<String> present = new TreeSet<>();
      for (String chunk : live) {
        for (String node : all) {
          if (random.nextInt(3) == 0) {
            held.get(node).add(chunk);
            present.add(chunk);
          }
        }
      }
      chunks(random, 5).forEach(chunk -> held.get(all.getFirst()).add(chunk));
      Set<String> members = new TreeSet<>(all);
      if (all.size() > 1 && random.nextBoolean()) {
        members.remove(all.getLast());
      }
      for (int round = 0; round < 3; round++) {
        for (BlobPlan.Action action : BlobPlan.actions(live, members, Set.of(), held, 3)) {
          switch (action) {
            case BlobPlan.Copy copy -> {
              assertThat(held.values().stream().anyMatch(h -> h.contains(copy.chunk())))
                  .as("seed %d", seed)
                  .isTrue();
              held.get(copy.to()).add(copy.chunk());
            }
            case BlobPlan.Missing missing ->
                assertThat(present).as("seed %d", seed).doesNotContain(missing.chunk());
            case BlobPlan.DropSurplus drop -> held.get(drop.node()).remove(drop.chunk());
            case BlobPlan.DropGarbage drop -> {
              assertThat(live).as("seed %d", seed).doesNotContain(drop.chunk());
              held.get(drop.node()).remove(drop.chunk());
            }
          }
        }
      }
      assertThat(BlobPlan.actions(live, members, Set.of(), held, 3))
          .as("seed %d", seed)
          .allMatch(BlobPlan.Missing.class::isInstance);
      for (String chunk : present) {
        assertThat(held.entrySet().stream().filter(h -> h.getValue().contains(chunk)).count())
            .as("seed %d", seed)
            .isEqualTo(Math.min(3, members.size()));
      }
    }
  }

  @Test
  void aNodeThatDoesNotAnswerKeepsWhatItHasAndSurplusCopiesStayUntilItDoes() {
    String chunk = chunks(new Random(1), 1).getFirst();
    List<String> order = BlobPlacement.order(chunk, nodes(4));
    Map<String, Set<String>> held = new TreeMap<>();
    held.put(order.get(0), Set.of(chunk));
    held.put(order.get(1), Set.of());
    held.put(order.get(3), Set.of(chunk));
    assertThat(BlobPlan.actions(Set.of(chunk), Set.copyOf(order), Set.of(), held, 3))
        .containsExactly(new BlobPlan.Copy(chunk, order.get(1)));
  }

  @Test
  void aNodeThatIsToStopKeepsWhatItHasAndGetsNothingMore() {
    String chunk = chunks(new Random(2), 1).getFirst();
    List<String> order = BlobPlacement.order(chunk, nodes(4));
    Set<String> leaving = Set.of(order.getFirst());
    Map<String, Set<String>> held = new TreeMap<>();
    order.forEach(node -> held.put(node, Set.of()));
    held.put(order.get(1), Set.of(chunk));
    held.put(order.get(2), Set.of(chunk));
    assertThat(BlobPlan.actions(Set.of(chunk), Set.copyOf(order), leaving, held, 3))
        .containsExactly(new BlobPlan.Copy(chunk, order.get(3)));
    held.put(order.get(3), Set.of(chunk));
    assertThat(BlobPlan.actions(Set.of(chunk), Set.copyOf(order), leaving, held, 3)).isEmpty();
    held.put(order.getFirst(), Set.of(chunk));
    assertThat(BlobPlan.actions(Set.of(chunk), Set.copyOf(order), leaving, held, 3))
        .containsExactly(new BlobPlan.DropSurplus(chunk, order.get(3)));
  }
}
