package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SequencesTest {

  private static long[] ids(long... ids) {
    return ids;
  }

  private static int[] positions(int... positions) {
    return positions;
  }

  private static Code code(Throwable error) {
    return ((FlotillaException) error).code();
  }

  @Test
  void aFullCacheIsBusyAndChangesNothing() {
    Sequences sequences = new Sequences(2);
    Rows _ = sequences.prompt(1, 32);
    Rows _ = sequences.prompt(2, 20);
    assertThat(sequences.freePositions()).isZero();
    assertThatThrownBy(() -> sequences.rows(ids(2, 1), positions(20, 32)))
        .satisfies(e -> assertThat(code(e)).isEqualTo(Code.BUSY));
    assertThat(sequences.length(2)).isEqualTo(20);
    sequences.release(2);
    assertThat(sequences.freePositions()).isEqualTo(32);
    assertThat(sequences.rows(ids(1), positions(32)).count()).isEqualTo(1);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 3, 5, -1})
  void aRowThatDoesNotContinueItsSequenceIsRefusedAndChangesNothing(int position) {
    Sequences sequences = new Sequences(2);
    Rows _ = sequences.prompt(1, 4);
    assertThatThrownBy(() -> sequences.rows(ids(2, 1), positions(0, position)))
        .satisfies(e -> assertThat(code(e)).isEqualTo(Code.CONFLICT));
    assertThat(sequences.freePositions()).isEqualTo(32);
    assertThat(sequences.rows(ids(1), positions(4)).count()).isEqualTo(1);
  }

  @Test
  void aPromptIsCutAtTheChunksBoundaries() {
    Sequences sequences = new Sequences(16);
    Rows _ = sequences.prompt(1, 100);
    List<Rows.Run> runs = sequences.prompt(1, 200).runs();
    assertThat(runs).extracting(Rows.Run::position).containsExactly(100, 128, 256);
    assertThat(runs).extracting(Rows.Run::count).containsExactly(28, 128, 44);
    assertThat(runs).allMatch(Rows.Run::prompt);
  }

  @Test
  void whatIsCutOffIsFree() {
    Sequences sequences = new Sequences(4);
    Rows _ = sequences.prompt(7, 100);
    sequences.cut(7, 33);
    assertThat(sequences.freePositions()).isEqualTo(64);
    assertThat(sequences.rows(ids(7, 7), positions(33, 34)).positions()).containsExactly(33, 34);
    sequences.cut(7, 200);
    assertThat(sequences.length(7)).isEqualTo(35);
    sequences.release(8);
  }
}
