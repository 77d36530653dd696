package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.Registry;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ApiKeysTest {

  @TempDir private Path folder;
  private final FakeRegistry registry = new FakeRegistry();
  private final AtomicLong nowNs = new AtomicLong(1);
  private final ApiKeys keys = new ApiKeys(() -> registry, nowNs::get);

  private String adminKey() {
    return ApiKeys.ensureAdminKey(folder.resolve("admin.key"), registry, new SecureRandom(), 5);
  }

  private static Optional<String> bearer(String key) {
    return Optional.of("Bearer " + key);
  }

  @Test
  void theAdminKeyIsForItsOwnerOnlyAndTheRegistryDoesNotHoldIt() throws Exception {
    String key = adminKey();
    Path file = folder.resolve("admin.key");
    assertThat(key).matches("fk-[A-Za-z0-9_-]{43}");
    assertThat(Files.readString(file).strip()).isEqualTo(key);
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(file)))
        .isEqualTo("rw-------");
    assertThat(registry.list("key")).hasSize(1);
    assertThat(new String(registry.list("key").getFirst().value(), StandardCharsets.UTF_8))
        .doesNotContain(key)
        .doesNotContain(key.substring(3));
    try (var files = Files.list(folder)) {
      assertThat(files).hasSize(1);
    }
    keys.check(bearer(key), "10.0.0.1");
  }

  @Test
  void theAdminKeyStaysTheSameAtTheNextStart() {
    String key = adminKey();
    long revision = registry.revision();
    assertThat(adminKey()).isEqualTo(key);
    assertThat(registry.revision()).isEqualTo(revision);
  }

  @Test
  void aNewKeyFileReplacesTheOldKey() throws Exception {
    String old = adminKey();
    Files.delete(folder.resolve("admin.key"));
    String fresh = adminKey();
    keys.check(bearer(fresh), "10.0.0.1");
    assertThatThrownBy(() -> keys.check(bearer(old), "10.0.0.1")).isInstanceOf(ApiError.class);
  }

  @Test
  void aFolderThatIsMissingSaysWhatToDo() {
    assertThatThrownBy(
            () ->
                ApiKeys.ensureAdminKey(
                    folder.resolve("absent/admin.key"), registry, new SecureRandom(), 0))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("admin.key");
    assertThat(registry.list("key")).isEmpty();
  }

  private void refused(Optional<String> authorization, int status) {
    assertThatThrownBy(() -> keys.check(authorization, "10.0.0.1"))
        .isInstanceOfSatisfying(
            ApiError.class, error -> assertThat(error.status()).isEqualTo(status));
  }

  @Test
  void everythingButTheKeyIsRefused() {
    String key = adminKey();
    refused(Optional.empty(), 401);
    refused(bearer(""), 401);
    refused(Optional.of(key), 401);
    refused(Optional.of("Basic " + key), 401);
    refused(bearer(key + "x"), 401);
    refused(bearer(key.substring(1)), 401);
    assertThatCode(() -> keys.check(Optional.of("bearer " + key), "10.0.0.1"))
        .doesNotThrowAnyException();
  }

  @Test
  void manyWrongKeysAreThrottledForAWhileAndOthersAreNot() {
    String key = adminKey();
    for (int i = 0; i < 20; i++) {
      refused(bearer("fk-guess" + i), 401);
    }
    refused(bearer("fk-guess"), 429);
    refused(bearer(key), 429);
    keys.check(bearer(key), "10.0.0.2");
    nowNs.addAndGet(11_000_000_000L);
    keys.check(bearer(key), "10.0.0.1");
  }

  @Test
  void aKeyThatThisNodeHasNotHeardOfYetIsNotTakenForWrong() {
    AtomicReference<String> key = new AtomicReference<>("");
    registry.arriving = () -> key.set(adminKey());
    refused(bearer("fk-guess"), 401);
    keys.check(bearer(key.get()), "10.0.0.1");

    registry.commit(
        List.of(), List.of(new Registry.Write(new Registry.Key("key", "admin"), Optional.empty())));
    registry.arriving = () -> adminKey();
    keys.check(bearer(key.get()), "10.0.0.1");

    registry.commit(
        List.of(), List.of(new Registry.Write(new Registry.Key("key", "admin"), Optional.empty())));
    registry.arriving =
        () -> {
          throw new FlotillaException(FlotillaException.Code.NO_MAJORITY, "nobody answers", "");
        };
    for (int i = 0; i < 30; i++) {
      assertThatThrownBy(() -> keys.check(bearer(key.get()), "10.0.0.1"))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              error -> assertThat(error.code()).isEqualTo(FlotillaException.Code.NO_MAJORITY));
    }
  }
}
