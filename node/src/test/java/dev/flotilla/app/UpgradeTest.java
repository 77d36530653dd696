package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Real nodes, one after the other, become other builds and go back, while streams run. The builds
 * are this one under other version strings, and one whose nodes the others refuse. They run without
 * the optimizing compiler: it takes more time at each of the many starts than it could give back,
 * and slow streams are the ones that a restart meets.
 */
class UpgradeTest {

  private static final Duration START = Duration.ofMinutes(3);

  /** A client reads its answer before it asks again; else clients alone would fill the machine. */
  private static final int READS_MS = 500;

  private static final Map<String, Object> REQUEST =
      Map.of(
          "model",
          "random",
          "prompt",
          "The ship's log says",
          "max_tokens",
          100,
          "temperature",
          1,
          "seed",
          7,
          "ignore_eos",
          true,
          "stream",
          true,
          "cache",
          false);

  @TempDir Path folder;
  private final List<NodeProcess> nodes = new ArrayList<>();

  private Path build(String name, String version) throws IOException {
    return build(name, version, version);
  }

  /**
   * A folder with a launcher.
   *
   * @param asNode the version that a node of it has
   */
  private Path build(String name, String version, String asNode) throws IOException {
    Path home = Files.createDirectories(folder.resolve(name));
    Path launcher = home.resolve("flotilla");
    Files.writeString(
        launcher,
        String.join(
            "\n",
            "#!/usr/bin/env bash",
            "version=" + version,
            "[ \"$1\" != up ] || version=" + asNode,
            "exec '" + Path.of(System.getProperty("java.home"), "bin", "java") + "' \\",
            "  '@"
                + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options")
                + "' -Xmx512m -XX:TieredStopAtLevel=1 \\",
            "  '-Dflotilla.home=" + home + "' -Dflotilla.version=$version \\",
            "  -cp '" + System.getProperty("java.class.path") + "' dev.flotilla.app.Main \"$@\"",
            ""));
    Files.setPosixFilePermissions(launcher, PosixFilePermissions.fromString("rwxr-xr-x"));
    return home;
  }

  private NodeProcess node(Path home, int index, List<String> more) throws IOException {
    return new NodeProcess(
        List.of(home.resolve("flotilla").toString()),
        "node-" + index,
        folder.resolve("data-" + index),
        nodes.getFirst().port() + 10 * index,
        more);
  }

  private Client client(int index) {
    return new Client(nodes.get(index).url(), Client.keyIn(nodes.getFirst().folder()));
  }

  private int upgrade(Path to) {
    return upgrade(to, 150);
  }

  private int upgrade(Path to, int timeoutS) {
    return Main.run(
        "upgrade",
        "--url",
        nodes.get(1).url(),
        "--key",
        Client.keyIn(nodes.getFirst().folder()).orElseThrow(),
        "--timeout",
        Integer.toString(timeoutS),
        "--to",
        to.toString());
  }

  private List<String> all(String field) {
    List<String> values = new ArrayList<>();
    client(0).get("/api/cluster").path("nodes").forEach(n -> values.add(n.path(field).asText()));
    return values;
  }

  private static String text(Client client) {
    StringBuilder text = new StringBuilder();
    client.stream(
        "/v1/completions",
        REQUEST,
        (JsonNode event) -> text.append(event.path("choices").path(0).path("text").asText()));
    return text.toString();
  }

  @Test
  void nodesAreUpgradedOneByOneAndGoBackWhereOneDoesNotStart() throws Exception {
    Path old = build("old", "0.1.0");
    Path next = build("next", "0.2.0");
    Path broken = build("broken", "0.2.0", "0.9.0");
    Path far = build("far", "0.3.0");
    try {
      nodes.add(
          new NodeProcess(
              List.of(old.resolve("flotilla").toString()),
              "node-0",
              folder.resolve("data-0"),
              NodeProcess.freePorts(18_000),
              List.of()));
      nodes.getFirst().awaitReady(START);
      for (int i = 1; i < 3; i++) {
        nodes.add(
            node(old, i, NodeProcess.joining(client(0), "127.0.0.1:" + nodes.getFirst().port())));
        nodes.get(i).awaitReady(START);
      }
      Path file = folder.resolve("random.gguf");
      RandomModel.write(
          file,
          new ModelConfig(300, 64, 3, 4, 2, 16, 128, 1024, 10_000f, 1e-5f, false),
          WeightType.Q8_0,
          3);
      client(0).post("/api/models", Map.of("name", "random", "source", file.toString()));
      Waiting.deployed(
          client(0), Map.of("model", "random", "replicas", 1, "stages", 1, "force", true), s -> {});
      String undisturbed = text(client(0));
      List<String> pids = all("pid");

      AtomicBoolean over = new AtomicBoolean();
      AtomicInteger streams = new AtomicInteger();
      List<String> wrong = new CopyOnWriteArrayList<>();
      List<Thread> readers = new ArrayList<>();
      for (int i = 0; i < 2; i++) {
        Client reader = client(i).knowing(nodes.stream().map(NodeProcess::url).toList());
        readers.add(
            Thread.ofPlatform()
                .daemon()
                .start(
                    () -> {
                      while (!over.get()) {
                        try {
                          String text = text(reader);
                          streams.incrementAndGet();
                          if (!text.equals(undisturbed)) {
                            wrong.add(text);
                          }
                          Thread.sleep(READS_MS);
                        } catch (RuntimeException e) {
                          wrong.add(e.toString());
                        } catch (InterruptedException e) {
                          return;
                        }
                      }
                    }));
      }

      List<String> lives = all("incarnation");
      assertThat(upgrade(far)).isEqualTo(1);
      assertThatThrownBy(
              () ->
                  client(0)
                      .post(
                          "/api/cluster/nodes/node-0/restart",
                          Map.of("home", far.toString(), "check", true)))
          .hasMessageContaining("version 0.3.0")
          .hasMessageContaining("cannot be in one cluster with version 0.1.0");
      assertThatThrownBy(() -> client(0).post("/api/cluster/nodes/node-1/restart", Map.of()))
          .hasMessageContaining("Ask that node itself");
      assertThat(upgrade(folder)).as("no build").isEqualTo(1);
      assertThat(all("incarnation")).as("nothing was stopped for these").isEqualTo(lives);

      assertThat(upgrade(broken)).isEqualTo(1);
      assertThat(all("version")).containsOnly("0.1.0");
      StringBuilder said = new StringBuilder();
      for (NodeProcess each : nodes) {
        said.append(Files.readString(each.folder().resolve("stderr.txt")));
      }
      assertThat(said).contains("runs version 0.9.0").contains("going back to the build in " + old);
      for (NodeProcess each : nodes) {
        assertThat(each.folder().resolve("logs").resolve("node.log"))
            .content()
            .as("also who never started stops as it should")
            .doesNotContain("did not stop cleanly");
      }
      assertThat(all("incarnation")).as("one node tried").isNotEqualTo(lives);
      assertThat(all("state")).containsOnly("up");

      lives = all("incarnation");
      assertThat(upgrade(next, 2)).as("no node is back so soon").isEqualTo(1);
      assertThat(all("version")).containsOnly("0.1.0");
      assertThat(all("incarnation")).isNotEqualTo(lives);
      assertThat(all("state")).containsOnly("up");

      assertThat(upgrade(next)).isZero();
      assertThat(all("version")).hasSize(3).containsOnly("0.2.0");
      assertThat(all("pid")).as("the processes are the same").isEqualTo(pids);

      over.set(true);
      for (Thread reader : readers) {
        reader.join();
      }
      assertThat(wrong).as("of %d streams", streams.get()).isEmpty();
      assertThat(streams.get()).isGreaterThan(4);
    } finally {
      nodes.forEach(NodeProcess::kill);
    }
  }

  @Test
  void aBuildThatOthersCouldChangeIsNotRun() throws Exception {
    assertThat(Builds.look(build("mine", "0.1.7")).version()).isEqualTo("0.1.7");
    Path open = build("open", "0.1.0");
    Files.setPosixFilePermissions(
        open.resolve("flotilla"), PosixFilePermissions.fromString("rwxrwxrwx"));
    assertThatThrownBy(() -> Builds.look(open)).hasMessageContaining("may change it");
    Path inside = build("inside", "0.1.0");
    Path jar =
        Files.createDirectories(inside.resolve("node").resolve("target")).resolve("flotilla.jar");
    Files.write(jar, new byte[1]);
    assertThat(Builds.look(inside).version()).isEqualTo("0.1.0");
    Files.setPosixFilePermissions(jar, PosixFilePermissions.fromString("rw-r--rw-"));
    assertThatThrownBy(() -> Builds.look(inside)).hasMessageContaining(jar + " belongs to");
    Path elsewhere = Files.move(jar, folder.resolve("elsewhere.jar"));
    Files.createSymbolicLink(jar, elsewhere);
    assertThatThrownBy(() -> Builds.look(inside)).hasMessageContaining(elsewhere + " belongs to");
    Files.setPosixFilePermissions(elsewhere, PosixFilePermissions.fromString("rw-r--r--"));
    assertThat(Builds.look(inside).version()).isEqualTo("0.1.0");
  }
}
