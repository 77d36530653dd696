package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class TrainingConfigFileTest {

  @Test
  void readsSnakeCaseKeysAndKeepsDefaultsForTheRest() {
    var parsed =
        TrainingConfigFile.parse(
            "model: mine\ntext: tiny.txt\nkv_heads: 1\nlearning_rate: 1e-3\nsteps: 70\n", "c.yaml");
    assertThat(parsed.textFile()).contains("tiny.txt");
    assertThat(parsed.config().model()).isEqualTo("mine");
    assertThat(parsed.config().kvHeads()).isEqualTo(1);
    assertThat(parsed.config().learningRate()).isEqualTo(1e-3);
    assertThat(parsed.config().width()).isEqualTo(TrainingConfig.smallWorld().width());
  }

  @Test
  void anEmptyFileIsTheSmallWorld() {
    assertThat(TrainingConfigFile.parse("", "c.yaml").config())
        .isEqualTo(TrainingConfig.smallWorld());
  }

  @Test
  void namesEveryErrorWithItsLine() {
    String yaml =
        "model: ok\nwidht: 3\nlayers: many\n\nheads: 3\nwidth: 128\nbatch: [1, 2]\nsteps: -1\n";
    assertThatThrownBy(() -> TrainingConfigFile.parse(yaml, "c.yaml"))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("c.yaml has 4 errors")
        .hasMessageContaining("line 2: unknown key widht")
        .hasMessageContaining("line 3: layers must be a whole number, not many")
        .hasMessageContaining("line 7: batch must be a single value")
        .hasMessageContaining("line 8: steps is -1");
    assertThatThrownBy(() -> TrainingConfigFile.parse("width: 100\nheads: 3\nkv_heads: 1\n", "c"))
        .hasMessageContaining("line 2: width / heads must be a whole even number");
  }

  @Test
  void brokenYamlAndDuplicateKeysAreErrors() {
    assertThatThrownBy(() -> TrainingConfigFile.parse("model: [1\nx", "c.yaml"))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("line");
    assertThatThrownBy(() -> TrainingConfigFile.parse("steps: 3\nsteps: 4\n", "c.yaml"))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("line 2");
    assertThatThrownBy(() -> TrainingConfigFile.parse("- a\n- b\n", "c.yaml"))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("key: value");
  }

  @Test
  void textMustBeUtf8AndNotEmpty() {
    byte[] bad = "fine so far ".getBytes(StandardCharsets.UTF_8);
    bad[5] = (byte) 0xff;
    assertThatThrownBy(() -> TrainingText.decode(bad, "t.txt"))
        .isInstanceOf(FlotillaException.class)
        .hasMessage("t.txt is not UTF-8: byte 0xff at offset 5");
    byte[] cut = "abc\u00e9".getBytes(StandardCharsets.UTF_8);
    assertThatThrownBy(
            () -> TrainingText.decode(java.util.Arrays.copyOf(cut, cut.length - 1), "t.txt"))
        .hasMessageContaining("offset 3");
    assertThatThrownBy(() -> TrainingText.decode(new byte[] {' ', '\n'}, "t.txt"))
        .hasMessage("t.txt is empty");
    assertThat(TrainingText.decode("\uFEFFaé".getBytes(StandardCharsets.UTF_8), "t"))
        .isEqualTo("aé");
  }
}
