package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.InstanceOfAssertFactories.type;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.net.InetAddress;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DownloadTest {

  private static final int BYTES = 100_000;

  @TempDir private Path folder;
  private TestHub hub;
  private final Download download = new Download(new Origins(true, Optional.empty()), 1);
  private final byte[] content = new byte[BYTES];

  @BeforeEach
  void start() throws IOException {
    new Random(5).nextBytes(content);
    hub = new TestHub();
    hub.put("/model.gguf", content);
  }

  @AfterEach
  void stop() {
    hub.close();
  }

  private Path fetch(Optional<String> sha256) {
    return download.file(
        new Download.Wanted(hub.at("/model.gguf"), "model.gguf", sha256, Optional.empty()),
        folder,
        () -> {},
        (what, bytes, total) -> assertThat(total).isIn((long) BYTES));
  }

  private static void refused(ThrowingCallable call, Code code, String said) {
    assertThatThrownBy(call)
        .hasMessageContaining(said)
        .asInstanceOf(type(FlotillaException.class))
        .extracting(FlotillaException::code)
        .isEqualTo(code);
  }

  @Test
  void breaksAreBridgedFromWhereTheyHappened() throws Exception {
    hub.breaks.addAll(List.of(40_000, 30_000));
    assertThat(fetch(Optional.empty())).hasBinaryContent(content);
    assertThat(hub.asked).hasSize(3);
    long second = Long.parseLong(hub.asked.get(1).replaceAll("[^0-9]", ""));
    long third = Long.parseLong(hub.asked.get(2).replaceAll("[^0-9]", ""));
    assertThat(second).isBetween(1L, 40_000L);
    assertThat(third).isGreaterThan(second);
    try (var left = Files.list(folder)) {
      assertThat(left.map(p -> p.getFileName().toString())).containsExactly("model.gguf");
    }
  }

  @Test
  void whatAnEarlierProcessLeftIsGoneOnWith() throws Exception {
    hub.breaks.addAll(List.of(40_000, 0, 0, 0, 0, 0, 0, 0));
    refused(() -> fetch(Optional.empty()), Code.UNAVAILABLE, "model.gguf");
    long there = Files.size(folder.resolve("model.gguf.part"));
    assertThat(there).isBetween(1L, 40_000L);
    hub.breaks.clear();
    hub.asked.clear();
    assertThat(fetch(Optional.empty())).hasBinaryContent(content);
    assertThat(hub.asked).containsExactly("/model.gguf bytes=" + there + "-");
  }

  @Test
  void anotherFileAtTheSameAddressIsFetchedFromTheStart() {
    hub.breaks.addAll(List.of(40_000, 0, 0, 0, 0, 0, 0, 0));
    refused(() -> fetch(Optional.empty()), Code.UNAVAILABLE, "model.gguf");
    hub.breaks.clear();
    byte[] other = content.clone();
    other[5]++;
    hub.put("/model.gguf", other);
    assertThat(fetch(Optional.empty())).hasBinaryContent(other);
  }

  @Test
  void whereNobodyCanTellWhetherItIsTheSameItStartsAnew() {
    hub.tags = false;
    hub.breaks.add(40_000);
    assertThat(fetch(Optional.empty())).hasBinaryContent(content);
    assertThat(hub.asked).containsExactly("/model.gguf", "/model.gguf");
  }

  @Test
  void aWrongDigestIsRefusedAndNothingIsLeft() throws Exception {
    refused(() -> fetch(Optional.of("0".repeat(64))), Code.BAD_FILE, "does not match its SHA-256");
    assertThat(folder.resolve("model.gguf")).doesNotExist();
    assertThat(Files.size(folder.resolve("model.gguf.part"))).isZero();
    assertThat(fetch(Optional.of(TestHub.sha256(content)))).hasBinaryContent(content);
  }

  @Test
  void aTokenDoesNotFollowToAnotherHost() throws Exception {
    try (TestHub other = new TestHub()) {
      other.put("/elsewhere", content);
      hub.redirect = Optional.of(other.at("/elsewhere").toString());
      Path file =
          download.file(
              new Download.Wanted(
                  hub.at("/model.gguf"), "m", Optional.empty(), Optional.of("secret")),
              folder,
              () -> {},
              (what, bytes, total) -> {});
      assertThat(file).hasBinaryContent(content);
      assertThat(hub.asked).containsExactly("/model.gguf token");
      assertThat(other.asked).containsExactly("/elsewhere");
    }
  }

  @Test
  void redirectsEndSomewhere() {
    hub.redirect = Optional.of(hub.at("/model.gguf").toString());
    refused(() -> fetch(Optional.empty()), Code.UNAVAILABLE, "redirects more than");
  }

  @Test
  void whatIsNotThereOrNotForUsIsSaidAtOnce() {
    refused(
        () ->
            download.file(
                new Download.Wanted(hub.at("/none"), "n", Optional.empty(), Optional.empty()),
                folder,
                () -> {},
                (what, bytes, total) -> {}),
        Code.NOT_FOUND,
        "404");
    hub.token = Optional.of("secret");
    refused(() -> fetch(Optional.empty()), Code.UNAUTHENTICATED, "401");
    assertThat(hub.asked).hasSize(2);
  }

  @Test
  void aFullDiskEndsItAndWhatIsThereIsKept() throws Exception {
    refused(
        () ->
            download.file(
                new Download.Wanted(hub.at("/model.gguf"), "m", Optional.empty(), Optional.empty()),
                folder,
                () -> {
                  throw new FlotillaException(Code.STORAGE, "no room", "Make some.");
                },
                (what, bytes, total) -> {}),
        Code.STORAGE,
        "no room");
  }

  @Test
  void privateAddressesAreRefusedAlsoByRedirect() throws Exception {
    Origins strict = new Origins(false, Optional.of(hub.at("/")));
    for (String address :
        List.of(
            "http://127.0.0.1/x",
            "http://localhost/x",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/x",
            "http://192.168.1.1/x",
            "http://172.20.0.1/x",
            "http://100.64.0.1/x",
            "http://0.0.0.0/x",
            "http://[::1]/x",
            "http://[fd00::1]/x",
            "http://[fe80::1]/x",
            "http://[::ffff:127.0.0.1]/x",
            "http://2130706433/x",
            "file:///etc/passwd",
            "http://user@8.8.8.8/x",
            "ftp://8.8.8.8/x")) {
      refused(() -> strict.check(URI.create(address)), Code.INVALID, "");
    }
    strict.check(URI.create("https://8.8.8.8/x"));
    strict.check(hub.at("/any")); // which the operator has named
    assertThat(Origins.isPrivate(InetAddress.getByName("64:ff9b::a00:1"))).isTrue();

    hub.redirect = Optional.of("http://169.254.169.254/latest/meta-data");
    refused(
        () ->
            new Download(strict, 1)
                .file(
                    new Download.Wanted(
                        hub.at("/model.gguf"), "m", Optional.empty(), Optional.empty()),
                    folder,
                    () -> {},
                    (what, bytes, total) -> {}),
        Code.INVALID,
        "private network");
  }
}
