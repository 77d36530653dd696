package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CacheCommandTest {

  private static final Optional<Duration> NO_TTL = Optional.empty();

  @TempDir static Path folder;
  private static TestNode node;

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("node"));
  }

  @AfterAll
  static void stop() {
    node.close();
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  @Test
  void theSameInterfaceWorksOverHttp() {
    HttpCaches caches = new HttpCaches(node.client());
    Cache cache = caches.create("web", CacheConfig.DEFAULT.withTtlMs(60_000));
    long version = cache.put("k", bytes("v"), NO_TTL);
    Cache.Entry entry = cache.entry("k").orElseThrow();
    assertThat(entry.value()).isEqualTo(bytes("v"));
    assertThat(entry.version()).isEqualTo(version);
    assertThat(entry.expiresAtMs()).isPositive();
    assertThat(cache.putIfAbsent("k", bytes("w"), NO_TTL)).isEmpty();
    long next = cache.compareAndSet("k", version, bytes("w"), NO_TTL).orElseThrow();
    assertThat(cache.compareAndSet("k", version, bytes("x"), NO_TTL)).isEmpty();
    assertThat(cache.compareAndSet("k", Optional.of(bytes("x")), bytes("y"), NO_TTL)).isEmpty();
    assertThat(cache.compareAndSet("k", Optional.of(bytes("w")), bytes("y"), NO_TTL)).isPresent();
    assertThat(cache.remove("k", next)).isFalse();
    assertThat(cache.getAndPut("k", bytes("z"), NO_TTL)).contains(bytes("y"));
    assertThat(cache.getAndRemove("k")).contains(bytes("z"));
    assertThat(cache.getAndRemove("k")).isEmpty();
    assertThat(cache.increment("n", 41)).isEqualTo(41);
    assertThat(cache.increment("n", 1)).isEqualTo(42);
    cache.putAll(Map.of("a", bytes("1"), "b", new byte[] {0, -1}), NO_TTL);
    assertThat(cache.getAll(List.of("a", "b", "c")))
        .hasSize(2)
        .containsEntry("b", new byte[] {0, -1});
    assertThat(cache.statistics().entries()).isEqualTo(3);
    assertThat(cache.statistics().writes()).isGreaterThan(5);
    assertThat(cache.config().ttlMs()).isEqualTo(60_000);
    cache.clear();
    assertThat(cache.get("a")).isEmpty();
    assertThatThrownBy(() -> caches.create("web", CacheConfig.DEFAULT))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
    assertThat(caches.drop("web")).isTrue();
    assertThat(caches.drop("web")).isFalse();
  }

  @Test
  void aKeyMayHoldAnyCharacters() {
    Cache cache = new HttpCaches(node.client()).cache("keys");
    List<String> keys =
        List.of("a/b", "..", ".", "50%", "%2F", "a b+c?d#e;f", "日本語 🚀", "\\\n\t", "\"quoted\"");
    for (String key : keys) {
      cache.put(key, bytes(key));
      assertThat(cache.get(key)).as(key).contains(bytes(key));
    }
    assertThat(cache.statistics().entries()).isEqualTo(keys.size());
  }

  @Test
  void wrongUseIsRefusedWithAReason() {
    Client client = node.client();
    Cache cache = new HttpCaches(client).cache("wrong");
    assertThatThrownBy(() -> cache.put("k", new byte[Cache.VALUE_BYTES_MAX + 1]))
        .hasMessageContaining("1048577 bytes");
    assertThatThrownBy(() -> cache.put("k".repeat(1025), bytes("v")))
        .hasMessageContaining("longer than 1024 bytes");
    Cache own = new HttpCaches(client).cache("flotilla.responses");
    assertThatThrownBy(() -> own.put("k", bytes("v"))).hasMessageContaining("Flotilla's own");
    assertThatThrownBy(
            () -> client.exchange("PUT", "/api/caches/wrong/k?ttl_ms=soon", Map.of(), bytes("v")))
        .hasMessageContaining("ttl_ms");
    String absent = "/api/caches/nobody-made-it";
    assertThatThrownBy(() -> client.get(absent)).hasMessageContaining("no cache");
    assertThat(client.exchange("GET", absent + "/k", Map.of(), new byte[0], 404).status())
        .isEqualTo(404);
  }

  /** {@code If-Match: *} stands for any version that is there. */
  @Test
  void anyVersionThatIsThereCanBeReplacedOrRemoved() {
    Client client = node.client();
    Cache cache = new HttpCaches(client).cache("matched");
    Map<String, String> any = Map.of("If-Match", "*");
    String path = "/api/caches/matched/k";
    assertThat(client.exchange("PUT", path, any, bytes("v"), 412).status()).isEqualTo(412);
    assertThat(client.exchange("DELETE", path, any, new byte[0], 412).status()).isEqualTo(412);
    assertThat(cache.get("k")).isEmpty();
    cache.put("k", bytes("v"));
    assertThat(client.exchange("PUT", path, any, bytes("w"), 412).status()).isEqualTo(200);
    assertThat(cache.get("k")).contains(bytes("w"));
    assertThat(client.exchange("DELETE", path, any, new byte[0], 412).status()).isEqualTo(200);
    assertThat(cache.get("k")).isEmpty();
    assertThat(
            client.exchange("PUT", path, Map.of("If-Match", "perhaps"), bytes("v"), 400).status())
        .isEqualTo(400);
  }

  @Test
  void aFileThatIsNotThereIsSaidSoInWords() {
    PrintStream before = System.err;
    ByteArrayOutputStream said = new ByteArrayOutputStream();
    System.setErr(new PrintStream(said, true, StandardCharsets.UTF_8));
    try {
      assertThat(node.run("cache", "put", "shell", "k", "--file", "/nope")).isEqualTo(1);
      assertThat(node.run("blob", "put", "/nope")).isEqualTo(1);
      assertThat(node.run("sql", "--file", "/nope")).isEqualTo(1);
    } finally {
      System.setErr(before);
    }
    List<String> lines =
        said.toString(StandardCharsets.UTF_8)
            .lines()
            .filter(line -> line.startsWith("flotilla: "))
            .toList();
    assertThat(lines)
        .hasSize(3)
        .allMatch(line -> line.contains("/nope: there is no such file"))
        .noneMatch(line -> line.contains("java.") || line.contains("Exception"));
  }

  @Test
  void theCommandsDoWhatTheySay() {
    assertThat(node.run("cache", "create", "shell", "--ttl-ms", "60000", "--mode", "replicated"))
        .isZero();
    assertThat(node.run("cache", "put", "shell", "greeting", "hello")).isZero();
    assertThat(node.run("cache", "get", "shell", "greeting")).isZero();
    assertThat(node.run("cache", "put", "shell", "greeting")).isEqualTo(2);
    assertThat(node.run("cache", "put", "shell", "greeting", "x", "--file", "x")).isEqualTo(2);
    assertThat(node.run("cache", "put", "shell", "greeting", "again", "--if-absent")).isEqualTo(1);
    assertThat(node.run("cache", "get", "shell", "nothing")).isEqualTo(1);
    assertThat(node.run("cache", "incr", "shell", "n", "5", "--json")).isZero();
    assertThat(node.run("cache", "stats", "shell")).isZero();
    assertThat(node.run("cache", "list", "--json")).isZero();
    assertThat(node.run("cache", "rm", "shell", "greeting")).isZero();
    Cache shell = new HttpCaches(node.client()).cache("shell");
    assertThat(shell.get("greeting")).isEmpty();
    assertThat(shell.get("n")).contains(bytes("5"));
    assertThat(node.run("cache", "drop", "shell")).isZero();
    assertThat(node.run("cache", "create", "x", "--mode", "sideways")).isEqualTo(1);
  }
}
