package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpBackups;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpQueues;
import dev.flotilla.client.HttpSql;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.Backups;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.queue.Queue;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Going back to a moment, on one node and three, and onto another cluster. */
class RestoreMomentTest {

  private static final Duration SOON = Duration.ofSeconds(60);
  private static final int ACCOUNTS = 8;

  @TempDir Path folder;

  private static void sql(Client client, String statement, Object... arguments) {
    var _ = new HttpSql(client).execute(statement, arguments);
  }

  private static long number(Client client, String statement) {
    return ((Number)
            Objects.requireNonNull(
                new HttpSql(client).execute(statement).rows().getFirst().getFirst()))
        .longValue();
  }

  private static void put(Client client, String key, String value) {
    var _ =
        new HttpCaches(client)
            .cache("moments")
            .put(key, value.getBytes(StandardCharsets.UTF_8), Optional.empty());
  }

  private static Optional<String> got(Client client, String key) {
    return new HttpCaches(client)
        .cache("moments")
        .get(key)
        .map(bytes -> new String(bytes, StandardCharsets.UTF_8));
  }

  private static void bank(Client client) {
    sql(client, "CREATE TABLE bank (id INT PRIMARY KEY, amount BIGINT)");
    for (int i = 0; i < ACCOUNTS; i++) {
      sql(client, "INSERT INTO bank VALUES (?, 100)", i);
    }
    sql(client, "CREATE TABLE steps (id INT PRIMARY KEY, n BIGINT)");
    sql(client, "INSERT INTO steps VALUES (0, 0)");
  }

  /** Moves money, and counts in the same transaction; false if another came first. */
  private static boolean transfer(Client client, Random random, long step) {
    int from = random.nextInt(ACCOUNTS);
    int to = (from + 1 + random.nextInt(ACCOUNTS - 1)) % ACCOUNTS;
    try {
      var _ =
          client.post(
              "/api/transactions",
              Map.of(
                  "steps",
                  List.of(
                      step("UPDATE bank SET amount = amount - 7 WHERE id = ?", from),
                      step("UPDATE bank SET amount = amount + 7 WHERE id = ?", to),
                      step("UPDATE steps SET n = ? WHERE id = 0", step))));
      return true;
    } catch (FlotillaException e) {
      return false;
    }
  }

  private static Map<String, Object> step(String statement, Object... arguments) {
    return Map.of("statement", statement, "arguments", List.of(arguments));
  }

  /** A moment, with what was acknowledged before it and what had not begun. */
  private record Noted(Instant moment, long stepsDone) {}

  private static Noted noted(long steps) throws InterruptedException {
    Thread.sleep(30);
    Noted noted = new Noted(Instant.now(), steps);
    Thread.sleep(30);
    return noted;
  }

  private static void awaitRestorable(Client client, String name, Instant moment) {
    TestNodes.await(
        "changes are written up to the moment",
        SOON,
        () ->
            new HttpBackups(client)
                .list().stream()
                    .filter(each -> each.name().equals(name))
                    .findFirst()
                    .flatMap(Backups.Backup::anyMoment)
                    .filter(each -> each.to().isAfter(moment))
                    .isPresent());
  }

  private static void awaitOpen(Client client) {
    TestNodes.await(
        "open again",
        SOON,
        () -> {
          try {
            return number(client, "SELECT COUNT(*) FROM bank") == ACCOUNTS;
          } catch (FlotillaException e) {
            return false;
          }
        });
  }

  private static void check(Client client, Noted noted) {
    awaitOpen(client);
    assertThat(number(client, "SELECT SUM(amount) FROM bank")).isEqualTo(100 * ACCOUNTS);
    assertThat(number(client, "SELECT n FROM steps")).isEqualTo(noted.stepsDone());
  }

  @Test
  void threeNodesGoBackToAMomentAndAnotherClusterOfOneTakesItOver() throws Exception {
    Path shared = folder.resolve("shared");
    Files.createDirectories(shared);
    List<Noted> noted = new ArrayList<>();
    try (TestNode first = TestNode.start(folder.resolve("first"));
        TestNode second = first.join(folder.resolve("second"));
        TestNode third = first.join(folder.resolve("third"))) {
      Client client = first.client();
      Client thirds = new Client(third.url(), Optional.of(first.key()));
      bank(client);
      var _ = new HttpCaches(client).create("moments", CacheConfig.DEFAULT);
      sql(client, "CREATE TABLE doomed (id INT PRIMARY KEY, t VARCHAR)");
      sql(client, "INSERT INTO doomed VALUES (1, 'old')");
      put(client, "copied", "before");
      put(client, "deleted", "here");
      var _ = new HttpBackups(client).create("shared", Optional.of(shared.toString()));
      noted.add(noted(0));

      Random random = new Random(3);
      long steps = 0;
      for (int i = 0; i < 20; i++) {
        steps += transfer(i % 2 == 0 ? client : thirds, random, steps + 1) ? 1 : 0;
      }
      put(thirds, "copied", "changed");
      sql(client, "INSERT INTO doomed VALUES (2, 'new')");
      sql(client, "CREATE TABLE fresh (id INT PRIMARY KEY, t VARCHAR)");
      sql(thirds, "INSERT INTO fresh VALUES (1, 'fresh')");
      var _ =
          new HttpQueues(client)
              .queue("q")
              .send(Queue.Outgoing.of("k", "m".getBytes(StandardCharsets.UTF_8)));
      Thread.sleep(1_000);
      noted.add(noted(steps));

      for (int i = 0; i < 20; i++) {
        steps += transfer(client, random, steps + 1) ? 1 : 0;
      }
      put(client, "copied", "too late");
      put(client, "late", "too late");
      var _ = new HttpCaches(client).cache("moments").remove("deleted");
      sql(client, "DROP TABLE doomed");
      sql(client, "DELETE FROM fresh");
      noted.add(noted(steps));
      awaitRestorable(client, "shared", noted.get(2).moment());
      assertThat(new HttpBackups(client).list().getFirst().anyMoment().orElseThrow().trouble())
          .isEmpty();

      assertThatThrownBy(
              () ->
                  new HttpBackups(client)
                      .restore(
                          "shared", Optional.empty(), Optional.of(Instant.now().plusSeconds(60))))
          .hasMessageContaining("can be gone back to from");
      assertThat(first.run("restore", "shared", "--to", noted.get(1).moment().toString())).isZero();
      checkSecond(client, noted.get(1));
      checkSecond(thirds, noted.get(1));
      // The same lists still lead to the other moments.
      var _ =
          new HttpBackups(client)
              .restore("shared", Optional.empty(), Optional.of(noted.get(2).moment()));
      check(client, noted.get(2));
      assertThat(got(client, "copied")).contains("too late");
      assertThat(got(client, "deleted")).isEmpty();
      assertThatThrownBy(() -> sql(client, "SELECT * FROM doomed"))
          .isInstanceOf(FlotillaException.class);
      assertThat(number(client, "SELECT COUNT(*) FROM fresh")).isZero();
    }
    try (TestNode other = TestNode.start(folder.resolve("other"))) {
      Client client = other.client();
      var _ =
          new HttpBackups(client)
              .restore(
                  "shared", Optional.of(shared.toString()), Optional.of(noted.get(1).moment()));
      checkSecond(client, noted.get(1));
      var _ =
          new HttpBackups(client)
              .restore(
                  "shared", Optional.of(shared.toString()), Optional.of(noted.get(0).moment()));
      check(client, noted.get(0));
      assertThat(got(client, "copied")).contains("before");
    }
  }

  private static void checkSecond(Client client, Noted noted) throws InterruptedException {
    check(client, noted);
    assertThat(got(client, "copied")).contains("changed");
    assertThat(got(client, "deleted")).contains("here");
    assertThat(got(client, "late")).isEmpty();
    assertThat(number(client, "SELECT COUNT(*) FROM doomed")).isEqualTo(2);
    assertThat(number(client, "SELECT COUNT(*) FROM fresh WHERE t = 'fresh'")).isEqualTo(1);
    assertThat(new HttpQueues(client).queue("q").stats().sent()).isEqualTo(1);
  }

  @Test
  void oneNodeGoesOnWithItsListAfterARestartAndNoticesATornOne() throws Exception {
    Path place = folder.resolve("place");
    Files.createDirectories(place);
    Noted before;
    Noted after;
    TestNode node = TestNode.start(folder.resolve("node"));
    try (node) {
      bank(node.client());
      var _ = new HttpBackups(node.client()).create("one", Optional.of(place.toString()));
      Random random = new Random(5);
      assertThat(transfer(node.client(), random, 1)).isTrue();
      before = noted(1);
      awaitRestorable(node.client(), "one", before.moment());
      assertThat(transfer(node.client(), random, 2)).isTrue();
    }
    try (TestNode again = node.again()) {
      Client client = again.client();
      assertThat(transfer(client, new Random(6), 3)).isTrue();
      after = noted(3);
      assertThat(transfer(client, new Random(6), 4)).isTrue();
      awaitRestorable(client, "one", after.moment());
      var _ = new HttpBackups(client).restore("one", Optional.empty(), Optional.of(after.moment()));
      check(client, after);
      tear(place.resolve("one.changes"));
      assertThatThrownBy(
              () ->
                  new HttpBackups(client)
                      .restore("one", Optional.empty(), Optional.of(after.moment())))
          .hasMessageContaining("damaged");
      check(client, after);
      var _ =
          new HttpBackups(client).restore("one", Optional.empty(), Optional.of(before.moment()));
      check(client, before);
      new HttpBackups(client).delete("one");
      TestNodes.await(
          "its files are gone", SOON, () -> !Files.exists(place.resolve("one.changes")));
    }
  }

  /** Turns a bit in the last third of the last list that holds anything. */
  private static void tear(Path lists) throws IOException {
    List<Path> files = new ArrayList<>();
    try (var all = Files.newDirectoryStream(lists)) {
      all.forEach(files::add);
    }
    files.sort(null);
    Path last = files.getLast();
    byte[] bytes = Files.readAllBytes(last);
    bytes[300] ^= 1;
    Files.write(last, bytes, StandardOpenOption.TRUNCATE_EXISTING);
  }
}
