package dev.flotilla.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.app.Flotilla;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.bench.History.Outcome;
import dev.flotilla.bench.Workloads.Lock.Claim;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Fencing;
import dev.flotilla.data.grid.Grid;
import java.net.http.HttpClient;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/**
 * The checkers find what they are there for: on three real nodes with a bug planted, by a schedule
 * that leads to it; and find nothing by the same schedule without.
 */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class PlantedBugsTest {

  private static final int NODES = 3;
  private static final int WAITS = 10;
  private static final Random RANDOM = new Random(1);

  @TempDir static Path folder;

  private static final HttpClient HTTP = Api.client();
  private static final List<Flotilla> NODE = new ArrayList<>();
  private static int port;

  @BeforeAll
  static void startNodes() {
    port = NodeProcess.freePorts(23_000);
    for (int index = 0; index < NODES; index++) {
      Flotilla.Config config = config(index);
      NODE.add(Flotilla.start(index == 0 ? config : config.joining(address(), token())));
    }
  }

  @AfterEach
  void takeTheBugsOut() {
    System.clearProperty(Fencing.SKIP);
    System.clearProperty(Grid.ACKNOWLEDGE_BEFORE_MAJORITY);
  }

  @AfterAll
  static void stopNodes() {
    NODE.forEach(Flotilla::close);
    HTTP.close();
  }

  @Test
  @Order(1)
  void aStaleHolderIsRefusedAndNoAnomalyIsFound() throws InterruptedException {
    Workloads.Lock workload = new Workloads.Lock();
    assertThat(pastItsLease(workload)).isEqualTo(Outcome.NOT_DONE);
    assertThat(workload.check(api(1))).isEmpty();
  }

  @Test
  @Order(2)
  void aNodeThatSkipsFencingIsFoundOut() throws InterruptedException {
    System.setProperty(Fencing.SKIP, "true");
    Workloads.Lock workload = new Workloads.Lock();
    assertThat(pastItsLease(workload)).isEqualTo(Outcome.DONE);
    assertThat(workload.check(api(1)))
        .singleElement()
        .asString()
        .startsWith("a stale token wrote: ");
  }

  /** One holds the lock and is slow, another gets it and writes; then the first one writes. */
  private static Outcome pastItsLease(Workloads.Lock workload) throws InterruptedException {
    String lock = "planted";
    workload.prepare(api(0));
    Claim slow = acquire(workload, 0, lock);
    assertThat(workload.write(slow, api(0))).isEqualTo(Outcome.DONE);
    Claim next = acquire(workload, 1, lock);
    assertThat(workload.write(next, api(1))).isEqualTo(Outcome.DONE);
    Outcome stale = workload.write(slow, api(2));
    workload.release(slow, api(0));
    workload.release(next, api(1));
    return stale;
  }

  private static Claim acquire(Workloads.Lock workload, int client, String lock)
      throws InterruptedException {
    for (int i = 0; i < WAITS; i++) {
      Optional<Claim> claim = workload.acquire(client, api(client), lock);
      if (claim.isPresent()) {
        return claim.get();
      }
    }
    throw new AssertionError("client " + client + " waits for the lock in vain");
  }

  /**
   * The others go, the node writes and is lost, and the others come back and go on without it. Both
   * kinds of node in one such schedule, since a cluster takes long to come back so.
   */
  @Test
  @Order(3)
  void aNodeOnItsOwnRefusesAndOneThatAcknowledgesBeforeAMajorityHasItIsFoundOut()
      throws InterruptedException {
    Workloads.Elements refused = new Workloads.Elements("refused");
    Workloads.Elements planted = new Workloads.Elements("planted");
    for (Workloads.Elements each : List.of(refused, planted)) {
      each.prepare(api(0));
      each.step(0, api(1), RANDOM);
    }
    NODE.get(1).close();
    NODE.get(2).close();
    refused.step(0, api(0), RANDOM);
    System.setProperty(Grid.ACKNOWLEDGE_BEFORE_MAJORITY, "true");
    planted.step(0, api(0), RANDOM);
    NODE.get(0).close();
    System.clearProperty(Grid.ACKNOWLEDGE_BEFORE_MAJORITY);
    Thread starting = Thread.ofPlatform().start(() -> NODE.set(2, Flotilla.start(config(2))));
    NODE.set(1, Flotilla.start(config(1)));
    starting.join();

    assertThat(refused.history().getLast()).doesNotContain("outcome=" + Outcome.DONE);
    assertThat(refused.check(api(1))).isEmpty();
    assertThat(planted.check(api(1)))
        .singleElement()
        .asString()
        .startsWith("lost: ")
        .contains(planted.history().getLast());
  }

  private static Flotilla.Config config(int index) {
    return Flotilla.Config.of(folder.resolve("node-" + (index + 1)), port + 10 * index);
  }

  private static String address() {
    return "127.0.0.1:" + port;
  }

  private static String key() {
    return Client.keyIn(folder.resolve("node-1")).orElseThrow();
  }

  private static String token() {
    return new Client("http://" + address(), Optional.of(key()))
        .post("/api/invites", Map.of())
        .path("token")
        .asText();
  }

  private static Api api(int index) {
    return new Api(HTTP, "http://127.0.0.1:" + (port + 10 * index), key());
  }
}
