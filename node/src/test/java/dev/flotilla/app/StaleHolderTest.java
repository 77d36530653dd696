package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.app.StaleHolder.Guarded;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks.Request;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A lock's holder, a process of its own, is really paused past its lease. */
class StaleHolderTest {

  /** With ten times as many to a blob's name and to a deployment, more than 100,000 writes. */
  private static final int SENDS = 100;

  @TempDir Path folder;

  @Test
  void aHolderPausedPastItsLeaseWritesNothingInAHundredThousandTries() throws Exception {
    assertThat(SENDS * (StaleHolder.BATCH + 20)).isGreaterThanOrEqualTo(100_000);
    try (TestNode node = TestNode.start(folder.resolve("node"))) {
      Flotilla flotilla = Flotilla.connect(node.url(), node.key());
      Client client = node.client();
      Path model = folder.resolve("model.gguf");
      RandomModel.write(
          model,
          new ModelConfig(300, 64, 2, 4, 2, 16, 128, 256, 10_000f, 1e-5f, false),
          WeightType.Q8_0,
          1);
      client.post("/api/models", Map.of("name", Guarded.MODEL, "source", model.toString()));
      String slowBlob = blob(flotilla, "slow");
      String nextBlob = blob(flotilla, "next");
      Guarded guarded = new Guarded(flotilla, client, nextBlob);
      Process holder = start(node, slowBlob);
      try (BufferedReader said = holder.inputReader()) {
        assertThat(said.readLine()).startsWith("holds ");
        assertThat(flotilla.locks().acquire(Request.exclusive(StaleHolder.LOCK, "next"))).isEmpty();
        signal(holder, "-STOP");
        try (Lease next =
            flotilla
                .locks()
                .lease(
                    Request.exclusive(StaleHolder.LOCK, "next")
                        .ttl(Duration.ofMinutes(1))
                        .await(Duration.ofSeconds(20)))
                .orElseThrow()) {
          guarded.send(next.fence(), "next");
          guarded.name(next.fence());
          guarded.deploy(next.fence());
          signal(holder, "-CONT");
          holder.outputWriter().append('\n').flush();
          assertThat(said.readLine()).isEqualTo("let through 0, believes that it holds: false");
          // What its successor writes goes through all the same, and nothing else was added.
          assertThat(flotilla.blobs().reference("default", Guarded.BLOB).orElseThrow().digest())
              .isEqualTo(nextBlob);
          guarded.send(next.fence(), "next");
          guarded.name(next.fence());
          guarded.deploy(next.fence());
          assertThat(flotilla.queue(Guarded.QUEUE).stats().sent())
              .isEqualTo(3L * StaleHolder.BATCH);
        }
      } finally {
        holder.destroyForcibly();
      }
    }
  }

  private static String blob(Flotilla flotilla, String content) {
    return flotilla
        .blobs()
        .put("default", new ByteArrayInputStream(content.getBytes(StandardCharsets.UTF_8)))
        .digest();
  }

  private static Process start(TestNode node, String digest) throws IOException {
    return new ProcessBuilder(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"),
                "-cp",
                System.getProperty("java.class.path"),
                StaleHolder.class.getName(),
                node.url(),
                node.key(),
                digest,
                Integer.toString(SENDS)))
        .redirectError(ProcessBuilder.Redirect.INHERIT)
        .start();
  }

  private static void signal(Process process, String signal) throws Exception {
    assertThat(new ProcessBuilder("kill", signal, Long.toString(process.pid())).start().waitFor())
        .isZero();
  }
}
