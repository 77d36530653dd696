package dev.flotilla.data.sql;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import dev.flotilla.data.sql.Sagas.Action;
import dev.flotilla.data.sql.Sagas.Context;
import dev.flotilla.data.sql.Sagas.State;
import dev.flotilla.data.sql.Sagas.Step;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SagasTest {

  private static final int MANY = 30;

  @TempDir Path folder;

  private final ConcurrentLinkedQueue<String> done = new ConcurrentLinkedQueue<>();
  private final CountDownLatch reached = new CountDownLatch(MANY);
  private final CountDownLatch never = new CountDownLatch(1);
  private final Set<String> refused = ConcurrentHashMap.newKeySet();

  private Action note(String node) {
    return context -> {
      done.add(context.key());
      return node;
    };
  }

  /** On the third node it gets stuck in its second step. */
  private List<Step> trip(int number) {
    Action second =
        context -> {
          if (number == 2) {
            reached.countDown();
            try {
              never.await();
            } catch (InterruptedException e) {
              throw new IllegalStateException(e);
            }
          }
          return note("" + number).run(context) + context.results().get("flight");
        };
    return List.of(
        new Step("flight", note("" + number), Optional.of(note("" + number))),
        new Step("hotel", second, Optional.of(note("" + number))),
        new Step("pay", this::pay, Optional.empty()));
  }

  private String pay(Context context) {
    if (context.parameters().containsKey("poor")) {
      throw new IllegalArgumentException("no money");
    }
    if (refused.add(context.key())) {
      throw new FlotillaException(Code.BUSY, "the bank is busy", "");
    }
    done.add(context.key());
    return "";
  }

  private List<String> doneOf(String id) {
    return done.stream().filter(key -> key.startsWith(id + "/")).toList();
  }

  @Test
  void sagasEndOnOtherNodesWhenTheirOwnDiesAndAreUndoneWhenAStepFails() throws Exception {
    Map<Path, GridSagas> sagas = new LinkedHashMap<>();
    try (TestGrids grids =
        new TestGrids(
            folder,
            (cluster, grid, data) ->
                sagas.put(data, new GridSagas(cluster, grid, InstantSource.system())))) {
      var nodes = grids.add(3);
      for (int i = 0; i < 3; i++) {
        sagas.get(nodes.get(i).config().dataFolder()).register("trip", trip(i));
      }
      GridSagas first = sagas.get(nodes.get(0).config().dataFolder());
      GridSagas doomed = sagas.get(nodes.get(2).config().dataFolder());

      aStartThatWasCutOffIsDoneByTheNext(nodes.getFirst().grid(), first);

      // Many, for the news that this node drives one may come before or after its start goes on.
      for (int i = 0; i < MANY; i++) {
        doomed.start("trip", "many-" + i, Map.of("to", "Rome"));
      }
      reached.await();
      assertThat(first.find("many-0").orElseThrow().stepsDone()).isEqualTo(1);
      doomed.close();
      grids.stop(nodes.get(2));
      for (int i = 0; i < MANY; i++) {
        var ended = first.await("many-" + i, Duration.ofSeconds(60));
        assertThat(ended.state()).as("saga %d: %s", i, ended).isEqualTo(State.DONE);
        assertThat(ended.results().get("flight")).isEqualTo("2");
        assertThat(ended.results().get("hotel")).isIn("02", "12");
        assertThat(doneOf(ended.id()))
            .containsExactly(ended.id() + "/flight", ended.id() + "/hotel", ended.id() + "/pay");
      }

      first.start("trip", "poor", Map.of("poor", ""));
      first.start("trip", "poor", Map.of("poor", ""));
      var undone = first.await("poor", Duration.ofSeconds(60));
      assertThat(undone.state()).isEqualTo(State.COMPENSATED);
      assertThat(undone.error()).isEqualTo("pay: no money");
      assertThat(doneOf("poor"))
          .containsExactly("poor/flight", "poor/hotel", "poor/hotel/undo", "poor/flight/undo");
      TestNodes.await(
          "nobody drives what is over",
          Duration.ofSeconds(10),
          () -> nodes.getFirst().cluster().registry().list("saga").isEmpty());
      sagas.values().forEach(GridSagas::close);
    }
  }

  /** Its node died when the record was there and nobody drove it. */
  private void aStartThatWasCutOffIsDoneByTheNext(Grid grid, GridSagas first) throws Exception {
    var begun = new GridSagas.Stored("cut", "trip", State.RUNNING, Map.of(), Map.of(), 0, "", 0, 0);
    grid.write(
        "a test's record",
        ignite -> {
          ignite.<String, byte[]>cache("flotilla.sagas").put("cut", Json.write(begun));
          return true;
        });
    first.start("trip", "cut", Map.of());
    assertThat(first.await("cut", Duration.ofSeconds(60)).state()).isEqualTo(State.DONE);
    assertThat(doneOf("cut")).containsExactly("cut/flight", "cut/hotel", "cut/pay");
  }
}
