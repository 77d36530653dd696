package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.model.KvFormat;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

final class CopyTargetTest {

  private static final Engine BF16 = new Engine(KvFormat.F16, WireType.BF16, false, "");

  private static Placement placement(int number, Engine engine, int firstLayers, String... nodes) {
    List<Deployments.StageView> stages = new ArrayList<>();
    for (int i = 0; i < nodes.length; i++) {
      stages.add(
          new Deployments.StageView(
              nodes[i], i == 0 ? 0 : firstLayers, i == nodes.length - 1 ? 5 : firstLayers - 1));
    }
    return new Placement(Placement.replicaId("m", number), "m", "00", 512, engine, stages);
  }

  private static Placement placement(int number, String... nodes) {
    return placement(number, Engine.DEFAULT, 3, nodes);
  }

  private static String target(Placement source, Placement... ready) {
    List<Placement.Placed> placed = new ArrayList<>();
    for (Placement one : ready) {
      placed.add(new Placement.Placed(one, 7));
    }
    return CopyTarget.of(source, placed).map(p -> p.placement().replica()).orElse("");
  }

  @Test
  void eachKeepsTheCopiesOfTheOneBeforeIt() {
    Placement zero = placement(0, "a");
    Placement one = placement(1, "b");
    Placement two = placement(2, "c");
    assertThat(target(zero, zero, one, two)).isEqualTo("m-1");
    assertThat(target(one, zero, one, two)).isEqualTo("m-2");
    assertThat(target(two, zero, one, two)).isEqualTo("m-0");
    assertThat(target(one, zero, one)).isEqualTo("m-0");
    assertThat(target(one, one)).isEmpty();
    assertThat(target(one)).isEmpty();
  }

  @Test
  void aReplicaThatWouldBeLostWithItKeepsNone() {
    Placement zero = placement(0, "a");
    assertThat(target(zero, zero, placement(1, "a"))).isEmpty();
    assertThat(target(zero, zero, placement(1, "b", "a"))).isEmpty();
    assertThat(target(placement(0, "a", "b"), placement(1, "b"))).isEqualTo("m-1");
    // One that shares nothing is the better one.
    assertThat(target(placement(0, "a", "b"), placement(1, "b", "c"), placement(2, "c", "d")))
        .isEqualTo("m-2");
  }

  @Test
  void onlyWhatWouldBeTheSameThereIsCopied() {
    Placement zero = placement(0, "a");
    Placement moving =
        new Placement("m-0b", "m", "00", 512, Engine.DEFAULT, placement(0, "b").stages());
    assertThat(target(zero, moving)).isEmpty();
    assertThat(target(zero, placement(1, BF16, 3, "b"))).isEmpty();
    Engine other = new Engine(KvFormat.Q8_0, WireType.F32, false, "");
    assertThat(target(zero, placement(1, other, 3, "b"))).isEmpty();
    Placement otherModel =
        new Placement("m-1", "m", "11", 512, Engine.DEFAULT, placement(1, "b").stages());
    assertThat(target(zero, otherModel)).isEmpty();
    Placement shared =
        new Placement(
            "m-1",
            "m",
            "00",
            512,
            Engine.DEFAULT,
            placement(1, "b", "c").stages(),
            List.of(new Placement.Share(1, 48), new Placement.Share(1, 48)));
    assertThat(target(zero, shared)).isEmpty();
    // Cut otherwise is as good, unless states are rounded where they are cut.
    assertThat(target(placement(0, "a", "b"), placement(1, Engine.DEFAULT, 2, "c", "d")))
        .isEqualTo("m-1");
    Placement rounded = placement(0, BF16, 3, "a", "b");
    assertThat(target(rounded, placement(1, BF16, 2, "c", "d"))).isEmpty();
    assertThat(target(rounded, placement(1, BF16, 3, "c", "d"))).isEqualTo("m-1");
  }
}
