package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class VersionsTest {

  @Test
  void minorVersionsNextToEachOtherFormACluster() {
    assertThat(Versions.adjacent("0.1.0", "0.1.9")).isTrue();
    assertThat(Versions.adjacent("0.1.0", "0.2.3")).isTrue();
    assertThat(Versions.adjacent("0.10.0", "0.9.3")).isTrue();
    assertThat(Versions.adjacent("0.1.0", "0.3.0")).isFalse();
    assertThat(Versions.adjacent("1.1.0", "2.1.0")).isFalse();
    assertThat(Versions.adjacent("1.0.0", "2.0.0")).isFalse();
    assertThat(Versions.adjacent("0.1.0", "unknown")).isFalse();
    assertThat(Versions.adjacent("0.1.0", "0.1")).isFalse();
    assertThat(Versions.adjacent("test", "test")).isTrue();
  }
}
