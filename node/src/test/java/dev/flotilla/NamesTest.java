package dev.flotilla;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class NamesTest {

  @ParameterizedTest
  @ValueSource(strings = {"a", "7", "Orders", "orders.2026-01_eu", "a.", "0-0"})
  void lettersDigitsDotsDashesAndUnderscoresPass(String name) {
    assertThat(Names.check("a queue", name)).isEqualTo(name);
  }

  @Test
  void aHundredAndTwentyEightCharactersAreTheMost() {
    assertThat(Names.fits("x".repeat(128))).isTrue();
    assertThat(Names.fits("x".repeat(129))).isFalse();
  }

  @ParameterizedTest
  @ValueSource(strings = {"", " ", ".", "..", "-a", "_a", "a b", "a/b", "a\n", "é", "a'b", "a\0"})
  void anythingElseIsRefusedAndTheErrorSaysWhat(String name) {
    assertThatThrownBy(() -> Names.check("a queue", name))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            refused -> {
              assertThat(refused.code()).isEqualTo(FlotillaException.Code.INVALID);
              assertThat(refused).hasMessageContaining("a queue cannot be called '" + name + "'");
            });
  }

  @Test
  void aLongNameIsShownInPart() {
    assertThatThrownBy(() -> Names.check("a cache", "y".repeat(100_000)))
        .hasMessageContaining("yyy…'")
        .message()
        .hasSizeLessThan(300);
  }
}
