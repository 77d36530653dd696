package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.client.HttpSagas;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.sql.Sagas;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Three real processes; the one that drives a saga is killed with -9 in the middle of a step. */
class SagaKillTest {

  @TempDir Path folder;

  /**
   * A program that embeds a node and knows the saga {@code trip}. Arguments as of {@code up}. Each
   * step notes its key and node in the file {@code notes}; {@code hotel} does not end on the node
   * called {@code stuck}.
   */
  static final class Program {

    private Program() {}

    public static void main(String[] arguments) throws Exception {
      Map<String, String> given = new HashMap<>();
      for (int i = 1; i < arguments.length; i += 2) {
        given.put(arguments[i], arguments[i + 1]);
      }
      String name = given.get("--name");
      Flotilla.Config config =
          new Flotilla.Config(
              Path.of(given.get("--data")),
              name,
              "127.0.0.1",
              Integer.parseInt(given.get("--port")),
              Optional.ofNullable(given.get("--join"))
                  .map(address -> new Flotilla.Join(address, given.get("--token"))));
      Sagas.Action note =
          context -> {
            note(context, context.key() + " " + name);
            return name;
          };
      Sagas.Action hotel =
          context -> {
            if (name.equals(context.parameters().get("stuck"))) {
              note(context, "stuck");
              sleep();
            }
            return note.run(context);
          };
      List<Sagas.Step> steps =
          List.of(
              new Sagas.Step("flight", note, Optional.of(note)),
              new Sagas.Step("hotel", hotel, Optional.of(note)),
              new Sagas.Step("pay", note, Optional.empty()));
      var _ = Flotilla.start(config, data -> data.sagas().register("trip", steps));
      System.out.println("ready http://127.0.0.1:" + config.port());
      sleep();
    }

    private static void note(Sagas.Context context, String line) {
      try {
        Files.writeString(
            Path.of(context.parameters().get("notes")),
            line + "\n",
            StandardOpenOption.CREATE,
            StandardOpenOption.APPEND);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    private static void sleep() {
      try {
        Thread.sleep(Duration.ofMinutes(10));
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  @Test
  void aSagaWhoseDriverIsKilledEndsOnAnotherNode() throws Exception {
    try (TestProcesses nodes = new TestProcesses(folder, Program.class)) {
      nodes.add("one");
      nodes.add("n1");
      NodeProcess doomed = nodes.add("n2");
      Path notes = folder.resolve("notes");
      new HttpSagas(nodes.client(2))
          .start("trip", "t1", Map.of("notes", notes.toString(), "stuck", doomed.name()));
      TestNodes.await("stuck", Duration.ofSeconds(60), () -> isStuck(notes));
      doomed.kill();
      HttpSagas sagas = new HttpSagas(nodes.client(0));
      Sagas.View ended = sagas.await("t1", Duration.ofSeconds(60));
      assertThat(ended.state()).as("%s", ended).isEqualTo(Sagas.State.DONE);
      String heir = ended.results().get("hotel");
      assertThat(heir).isIn("one", "n1");
      assertThat(ended.results()).containsEntry("flight", "n2").containsEntry("pay", heir);
      assertThat(Files.readAllLines(notes))
          .containsExactly("t1/flight n2", "stuck", "t1/hotel " + heir, "t1/pay " + heir);
    }
  }

  private static boolean isStuck(Path notes) {
    try {
      return Files.exists(notes) && Files.readString(notes).contains("stuck");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
