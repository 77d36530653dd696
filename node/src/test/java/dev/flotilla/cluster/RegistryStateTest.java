package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandCondition;
import dev.flotilla.cluster.proto.CommandWrite;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.SortedMap;
import org.junit.jupiter.api.Test;

class RegistryStateTest {

  private final RegistryState state = new RegistryState();
  private int ids;

  private Command.Builder command() {
    return Command.newBuilder().setId(ByteString.copyFromUtf8("id" + ids++));
  }

  private static CommandWrite put(String name, String value) {
    return CommandWrite.newBuilder()
        .setKind("k")
        .setName(name)
        .setValue(ByteString.copyFromUtf8(value))
        .build();
  }

  private static CommandWrite delete(String name) {
    return CommandWrite.newBuilder().setKind("k").setName(name).build();
  }

  private static CommandCondition when(String name, long epoch) {
    return CommandCondition.newBuilder().setKind("k").setName(name).setEpoch(epoch).build();
  }

  private long epoch(String name) {
    Registry.Entry entry = state.entries().get(new Registry.Key("k", name));
    return entry == null ? 0 : entry.epoch();
  }

  @Test
  void anEntryCarriesTheIndexOfTheCommitThatWroteIt() {
    assertThat(state.apply(command().addWrites(put("a", "1")).build(), 7).getEpoch()).isEqualTo(7);
    assertThat(epoch("a")).isEqualTo(7);
    state.apply(command().addConditions(when("a", 7)).addWrites(put("a", "2")).build(), 9);
    assertThat(epoch("a")).isEqualTo(9);
  }

  @Test
  void allIsWrittenOrNothing() {
    state.apply(command().addWrites(put("a", "1")).build(), 1);
    Command halfRight =
        command()
            .addConditions(when("a", 1))
            .addConditions(when("b", 5))
            .addWrites(put("a", "2"))
            .addWrites(put("b", "2"))
            .build();
    assertThat(state.apply(halfRight, 2).getEpoch()).isZero();
    assertThat(epoch("a")).isEqualTo(1);
    assertThat(epoch("b")).isZero();
  }

  @Test
  void epochZeroMeansAbsentAndDeletingMakesAbsent() {
    state.apply(command().addConditions(when("a", 0)).addWrites(put("a", "1")).build(), 1);
    assertThat(
            state
                .apply(command().addConditions(when("a", 0)).addWrites(put("a", "2")).build(), 2)
                .getEpoch())
        .isZero();
    state.apply(command().addWrites(delete("a")).build(), 3);
    assertThat(
            state
                .apply(command().addConditions(when("a", 0)).addWrites(put("a", "3")).build(), 4)
                .getEpoch())
        .isEqualTo(4);
  }

  @Test
  void aRepeatedCommandIsAppliedOnceAndAnswersTheSame() {
    Command command = command().addWrites(put("a", "1")).build();
    state.apply(command, 1);
    state.apply(command().addWrites(put("a", "2")).build(), 2);
    assertThat(state.apply(command, 3).getEpoch()).isEqualTo(1);
    assertThat(epoch("a")).isEqualTo(2);
  }

  @Test
  void aViewDoesNotChangeUnderItsReader() {
    state.apply(command().addWrites(put("a", "1")).build(), 1);
    SortedMap<Registry.Key, Registry.Entry> view = state.entries();
    state.apply(command().addWrites(put("b", "1")).build(), 2);
    assertThat(view).hasSize(1);
  }

  @Test
  void aSnapshotAndTheRestOfTheLogGiveTheSameAsTheWholeLog() throws Exception {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    List<Command> log = new ArrayList<>();
    for (int i = 0; i < 3000; i++) {
      if (i > 10 && random.nextInt(10) == 0) {
        log.add(log.get(i - 1 - random.nextInt(10)));
        continue;
      }
      String name = "n" + random.nextInt(20);
      log.add(
          command()
              .addConditions(when("n" + random.nextInt(20), random.nextInt(3) * i / 2))
              .addWrites(random.nextInt(4) == 0 ? delete(name) : put(name, "v" + i))
              .build());
    }
    int cut = random.nextInt(log.size());
    RegistryState whole = new RegistryState();
    RegistryState before = new RegistryState();
    RegistryState after = new RegistryState();
    for (int i = 0; i < log.size(); i++) {
      if (i == cut) {
        after.load(before.toSnapshot());
      }
      var expected = whole.apply(log.get(i), i + 1);
      if (i < cut) {
        before.apply(log.get(i), i + 1);
      } else {
        assertThat(after.apply(log.get(i), i + 1)).as("seed %s", seed).isEqualTo(expected);
      }
    }
    assertThat(after.toSnapshot()).as("seed %s", seed).isEqualTo(whole.toSnapshot());
  }
}
