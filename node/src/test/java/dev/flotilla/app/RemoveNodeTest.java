package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.client.HttpSql;
import dev.flotilla.cluster.TestNodes;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Nodes that are taken out of the cluster for good, dead and alive. */
class RemoveNodeTest {

  private static final Duration SOON = Duration.ofSeconds(60);
  private static final byte[] BLOB = "kept".getBytes(StandardCharsets.UTF_8);

  @TempDir Path folder;

  private static JsonNode named(Client client, String name) {
    return StreamSupport.stream(client.get("/api/cluster").path("nodes").spliterator(), false)
        .filter(node -> node.path("name").asText().equals(name))
        .findFirst()
        .orElseThrow();
  }

  private static int nodes(Client client) {
    return client.get("/api/cluster").path("nodes").size();
  }

  private static void checkData(Client client, String digest) {
    TestNodes.await(
        "data is there",
        SOON,
        () -> {
          try (InputStream content = new HttpBlobs(client).read(digest, 0, BLOB.length)) {
            assertThat(content.readAllBytes()).isEqualTo(BLOB);
            return new HttpSql(client)
                .execute("SELECT COUNT(*) FROM kept")
                .rows()
                .equals(List.of(List.of(50L)));
          } catch (FlotillaException | IOException e) {
            return false;
          }
        });
  }

  private static void refused(Runnable removal, String why) {
    assertThatThrownBy(removal::run)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT))
        .hasMessageContaining(why);
  }

  @Test
  void aDeadAndALiveNodeAreRemovedAndANewOneTakesTheirPlace() {
    TestNode first = TestNode.start(folder.resolve("first"));
    TestNode second = first.join(folder.resolve("second"));
    TestNode third = first.join(folder.resolve("third"));
    Client client = first.client();
    try (first;
        second;
        third) {
      new HttpSql(client).execute("CREATE TABLE kept (id INT PRIMARY KEY, t VARCHAR)");
      for (int i = 0; i < 50; i++) {
        new HttpSql(client).execute("INSERT INTO kept VALUES (?, ?)", i, "t" + i);
      }
      String digest = new HttpBlobs(client).put("default", new ByteArrayInputStream(BLOB)).digest();
      refused(
          () ->
              client.delete(
                  "/api/cluster/nodes/" + client.get("/api/cluster").path("self").asText()),
          "cannot remove itself");

      assertThat(first.run("drain", "second")).isZero();
      assertThat(named(client, "second").path("state").asText()).isEqualTo("draining");
      assertThat(first.run("drain", "second", "--undo")).isZero();
      TestNodes.await(
          "it is up again",
          SOON,
          () -> named(client, "second").path("state").asText().equals("up"));
      assertThat(first.run("drain", "nobody")).isEqualTo(1);

      third.close();
      TestNodes.await(
          "it is lost", SOON, () -> named(client, "third").path("state").asText().equals("lost"));
      // Of the two voters left only one would answer.
      refused(() -> client.delete("/api/cluster/nodes/second?force=true"), "could decide nothing");
      assertThat(first.run("rm-node", "third")).isZero();
      assertThat(nodes(client)).isEqualTo(2);
      checkData(client, digest);
      assertThatThrownBy(third::again)
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("was removed from cluster")
          .hasMessageContaining("for good");
      // Now it knows without asking.
      assertThatThrownBy(third::again).hasMessageContaining("was removed from cluster");

      try (TestNode fourth = first.join(folder.resolve("fourth"))) {
        Client fourths = new Client(fourth.url(), java.util.Optional.of(first.key()));
        TestNodes.await("it is filled", SOON, () -> removes(first, "second"));
        assertThat(nodes(client)).isEqualTo(2);
        checkData(client, digest);
        checkData(fourths, digest);
        new HttpSql(fourths).execute("INSERT INTO kept VALUES (50, 'x')");
        TestNodes.await("it has stopped, and is told so", SOON, () -> isTold(second));
      }
    }
  }

  private static boolean isTold(TestNode removed) {
    try (TestNode again = removed.again()) {
      throw new AssertionError(again.url() + " runs");
    } catch (FlotillaException e) {
      return String.valueOf(e.getMessage()).contains("was removed from cluster");
    }
  }

  private static boolean removes(TestNode through, String name) {
    try {
      through.client().delete("/api/cluster/nodes/" + name);
      return true;
    } catch (FlotillaException e) {
      assertThat(e.getMessage()).contains("would be lost");
      return false;
    }
  }
}
