package dev.flotilla.simulate;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class LargeClusterTest {

  @Test
  void aHundredthOfTheNodesIsLostAndWhatWasOnThemIsPlacedAnew() {
    LargeCluster.Figures figures = LargeCluster.run(300, 30);
    assertThat(figures.placements()).isEqualTo(30);
    assertThat(figures.lost()).isEqualTo(3);
    assertThat(figures.replanned()).isBetween(1L, 6L);
    assertThat(figures.detectSeconds()).isBetween(2.0, 3.0);
    // Each node hears of what changed, not of everything.
    assertThat(figures.replanBytes()).isLessThan(figures.placeBytes());
  }
}
