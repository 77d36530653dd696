package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.LockState.Claim;
import dev.flotilla.cluster.Locks.Mode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

class LockStateTest {

  private static Claim claim(String id, String holder, Mode mode, int permits) {
    return new Claim(id, holder, mode, permits, 10_000, 0, 0);
  }

  private static Claim writer(String id, String holder) {
    return claim(id, holder, Mode.EXCLUSIVE, 0);
  }

  private static Claim reader(String id, String holder) {
    return claim(id, holder, Mode.SHARED, 0);
  }

  private static List<String> holders(LockState state) {
    return state.granted().stream().map(Claim::id).toList();
  }

  @Test
  void isHandedOverInTheOrderOfAskingWithGrowingTokens() {
    LockState state = LockState.FREE.request(writer("a", "A")).at(7);
    state = state.request(writer("b", "B")).request(writer("c", "C")).at(9);
    assertThat(holders(state)).containsExactly("a");
    assertThat(state.holding("a").orElseThrow().token()).isEqualTo(7);
    state = state.remove(Set.of("a")).at(12);
    assertThat(holders(state)).containsExactly("b");
    assertThat(state.isCurrent(7)).isFalse();
    assertThat(state.isCurrent(12)).isTrue();
    state = state.remove(Set.of("b")).at(13).remove(Set.of("c"));
    assertThat(state).isEqualTo(LockState.FREE);
  }

  @Test
  void aHolderThatAsksAgainIsLetInWithItsOldTokenPastThoseWhoWait() {
    LockState state = LockState.FREE.request(writer("a", "A")).at(3);
    state = state.request(writer("b", "B")).at(4).request(writer("a2", "A")).at(5);
    assertThat(state.holding("a2").orElseThrow().token()).isEqualTo(3);
    assertThat(holders(state.remove(Set.of("a")))).containsExactly("a2");
    assertThat(holders(state.remove(Set.of("a")).remove(Set.of("a2")))).containsExactly("b");
  }

  @Test
  void aWriterIsNotStarvedByReadersThatCameAfterIt() {
    LockState state =
        LockState.FREE
            .request(reader("r1", "R1"))
            .request(reader("r2", "R2"))
            .request(writer("w", "W"))
            .request(reader("r3", "R3"))
            .request(reader("r4", "R4"));
    assertThat(holders(state)).containsExactly("r1", "r2");
    state = state.remove(Set.of("r1", "r2"));
    assertThat(holders(state)).containsExactly("w");
    assertThat(holders(state.remove(Set.of("w")))).containsExactly("r3", "r4");
  }

  @Test
  void aReaderCannotBecomeAWriterAndAWriterMayRead() {
    LockState reading = LockState.FREE.request(reader("r", "A"));
    assertThatThrownBy(() -> reading.request(writer("w", "A")))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("cannot become its writer");
    LockState writing = LockState.FREE.request(writer("w", "A")).at(5).request(reader("r", "A"));
    assertThat(writing.holding("r").orElseThrow().token()).isEqualTo(5);
    assertThat(holders(writing.remove(Set.of("w")).request(reader("r2", "B"))))
        .containsExactly("r", "r2");
  }

  @Test
  void aSemaphoreHasSoManyPermitsAndNoOtherUse() {
    LockState state = LockState.FREE;
    for (int i = 0; i < 4; i++) {
      state = state.request(claim("p" + i, "A", Mode.PERMIT, 3));
    }
    assertThat(holders(state)).containsExactly("p0", "p1", "p2");
    LockState used = state;
    assertThatThrownBy(() -> used.request(claim("q", "B", Mode.PERMIT, 2)))
        .hasMessageContaining("semaphore of 3 permits");
    assertThatThrownBy(() -> used.request(writer("q", "B")))
        .hasMessageContaining("semaphore of 3 permits");
    assertThat(holders(state.remove(Set.of("p1")))).containsExactly("p0", "p2", "p3");
  }

  @Test
  void anExpiredWaiterDoesNotStandInTheWay() {
    LockState state =
        LockState.FREE
            .request(writer("a", "A"))
            .request(writer("dead", "B"))
            .request(writer("c", "C"));
    assertThat(holders(state.remove(Set.of("dead")).remove(Set.of("a")))).containsExactly("c");
  }

  @Test
  void askingAgainWithTheSameClaimChangesNothing() {
    LockState state = LockState.FREE.request(writer("a", "A")).request(writer("b", "B"));
    assertThat(state.request(writer("a", "A")).request(writer("b", "B"))).isEqualTo(state);
  }

  /**
   * Random steps against what a lock must always keep, whatever its implementation: who may be in
   * together, nobody overtaken, nobody kept out who could be in, tokens that grow.
   */
  @Test
  void keepsItsPromisesOverRandomSteps() {
    long seed = new Random().nextLong();
    for (int run = 0; run < 300; run++) {
      Random random = new Random(seed + run);
      try {
        randomRun(random);
      } catch (Throwable e) {
        throw new AssertionError("seed " + (seed + run), e);
      }
    }
  }

  private static void randomRun(Random random) {
    int permits = random.nextInt(3) == 0 ? 1 + random.nextInt(4) : 0;
    LockState state = LockState.FREE;
    LinkedHashSet<String> askedInOrder = new LinkedHashSet<>();
    Map<String, Long> tokens = new HashMap<>();
    long epoch = 0;
    long highest = 0;
    for (int step = 0; step < 120; step++) {
      epoch += 1 + random.nextInt(3);
      List<Claim> all = new ArrayList<>(state.granted());
      all.addAll(state.waiting());
      LockState before = state;
      int kind = random.nextInt(10);
      if (kind < 5 || all.isEmpty()) {
        Mode mode = permits > 0 ? Mode.PERMIT : random.nextBoolean() ? Mode.SHARED : Mode.EXCLUSIVE;
        Claim claim = claim("c" + step, "H" + random.nextInt(6), mode, permits);
        try {
          state = state.request(claim);
          askedInOrder.add(claim.id());
        } catch (FlotillaException e) {
          assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT);
        }
      } else if (kind < 9) {
        Set<String> gone = new HashSet<>();
        gone.add(all.get(random.nextInt(all.size())).id());
        if (kind == 8) {
          gone.add(all.get(random.nextInt(all.size())).id());
        }
        state = state.remove(gone);
        askedInOrder.removeAll(gone);
      } else {
        state = state.renew(Set.of(all.get(random.nextInt(all.size())).id()));
      }
      // As every node reads it back.
      state = Json.read(Json.write(state), LockState.class).at(epoch);

      checkTogether(state, permits);
      // The queue is in the order of asking.
      assertThat(state.waiting().stream().map(Claim::id).toList())
          .isEqualTo(askedInOrder.stream().filter(state::waits).toList());
      Set<String> here = new HashSet<>();
      state.granted().forEach(c -> here.add(c.id()));
      state.waiting().forEach(c -> here.add(c.id()));
      assertThat(here).isEqualTo(Set.copyOf(askedInOrder));
      assertThat(couldEnter(state, permits)).as("kept out: %s", state).isFalse();
      for (Claim claim : state.granted()) {
        Long known = tokens.putIfAbsent(claim.id(), claim.token());
        if (known != null) {
          assertThat(claim.token()).isEqualTo(known);
        } else if (before.granted().stream().noneMatch(c -> c.holder().equals(claim.holder()))
            || permits > 0) {
          assertThat(claim.token()).isGreaterThan(Math.min(highest, epoch - 1));
          assertThat(claim.token()).isEqualTo(epoch);
        }
      }
      highest = state.granted().stream().mapToLong(Claim::token).max().orElse(highest);
    }
  }

  private static void checkTogether(LockState state, int permits) {
    if (permits > 0) {
      assertThat(state.granted().size()).isLessThanOrEqualTo(permits);
      return;
    }
    Set<String> writers = new HashSet<>();
    Set<String> holders = new HashSet<>();
    for (Claim claim : state.granted()) {
      holders.add(claim.holder());
      if (claim.mode() == Mode.EXCLUSIVE) {
        writers.add(claim.holder());
      }
    }
    if (!writers.isEmpty()) {
      assertThat(holders).hasSize(1);
    }
  }

  /** Whether the head of the queue waits for nothing. */
  private static boolean couldEnter(LockState state, int permits) {
    if (state.waiting().isEmpty()) {
      return false;
    }
    if (permits > 0) {
      return state.granted().size() < permits;
    }
    return state.granted().isEmpty()
        || (state.waiting().getFirst().mode() == Mode.SHARED
            && state.granted().stream().allMatch(c -> c.mode() == Mode.SHARED));
  }
}
