package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

final class EngineTest {

  @Test
  void theFormIsWhatMayChangeATextAndNothingElse() {
    String form = Engine.DEFAULT.form();
    assertThat(Engine.of("q8_0", "f32", false, "").form()).isNotEqualTo(form);
    assertThat(Engine.of("f16", "bf16", false, "").form()).isNotEqualTo(form);
    assertThat(Engine.of("f16", "f32", true, "small").form()).isEqualTo(form);
  }

  @Test
  void anUnknownKindIsRefusedWithThoseThatThereAre() {
    assertThatThrownBy(() -> Engine.of("F16", "f32", false, ""))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.explanation()).contains("kv F16").contains("f32, f16 or q8_0"));
    assertThatThrownBy(() -> Engine.of("f16", "f8", false, ""))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.explanation()).contains("wire f8").contains("f32 or bf16"));
  }

  @Test
  void whatAnEarlierVersionWantedRunsAsByDefault() {
    byte[] earlier =
        "{\"model\":\"m\",\"replicas\":1,\"stages\":2,\"routing\":\"least_load\",\"force\":true}"
            .getBytes(StandardCharsets.UTF_8);
    assertThat(Json.read(earlier, Deployments.Wanted.class).engine()).isEqualTo(Engine.DEFAULT);
    Engine other = Engine.of("q8_0", "bf16", true, "small");
    assertThat(Json.read(Json.write(other), Engine.class)).isEqualTo(other);
  }
}
