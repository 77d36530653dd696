package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import java.time.Instant;
import org.junit.jupiter.api.Test;

class JoinTokenTest {

  private final JoinToken token =
      JoinToken.create(new byte[32], Instant.parse("2026-07-01T10:00:00Z"));

  @Test
  void isOneWordThatCanBeReadBack() {
    assertThat(token.text()).matches("flotilla1_[A-Za-z0-9_-]{80}");
    JoinToken read = JoinToken.parse(" " + token.text() + "\n");
    assertThat(read.secret()).isEqualTo(token.secret());
    assertThat(read.authorityFingerprint()).isEqualTo(token.authorityFingerprint());
    assertThat(read.expiresAt()).isEqualTo(token.expiresAt());
  }

  @Test
  void aWordCutShortOrMistypedIsRecognised() {
    String text = token.text();
    String mistyped =
        text.substring(0, 20) + (text.charAt(20) == 'x' ? 'y' : 'x') + text.substring(21);
    for (String wrong : new String[] {"", "abc", text.substring(0, 60), text + "AAAA", mistyped}) {
      assertThatThrownBy(() -> JoinToken.parse(wrong))
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("malformed or was not copied whole");
    }
  }
}
