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

  @Test
  @Order(3)
  void aNodeOnItsOwnRefusesAndNoAnomalyIsFound() throws InterruptedException {
    Workloads.Elements workload = new Workloads.Elements("refused");
    workload.prepare(api(0));
    workload.step(0, api(1), RANDOM);
    writeAloneAndBeLost(workload, 0);
    assertThat(workload.history().getLast()).doesNotContain("outcome=" + Outcome.DONE);
    assertThat(workload.check(api(1))).isEmpty();
  }

  @Test
  @Order(4)
  void aNodeThatAcknowledgesBeforeAMajorityHasItIsFoundOut() throws InterruptedException {
    Workloads.Elements workload = new Workloads.Elements("planted");
    workload.prepare(api(1));
    workload.step(0, api(2), RANDOM);
    System.setProperty(Grid.ACKNOWLEDGE_BEFORE_MAJORITY, "true");
    writeAloneAndBeLost(workload, 1);
    assertThat(workload.check(api(2)))
        .singleElement()
        .asString()
        .startsWith("lost: ")
        .contains(workload.history().getLast());
  }

  /** The others go, the node writes and is lost, and the others come back and go on without it. */
  private static void writeAloneAndBeLost(Workload workload, int writer)
      throws InterruptedException {
    int next = (writer + 1) % NODES;
    int last = (writer + 2) % NODES;
    NODE.get(next).close();
    NODE.get(last).close();
    workload.step(0, api(writer), RANDOM);
    NODE.get(writer).close();
    Thread starting = Thread.ofPlatform().start(() -> NODE.set(last, Flotilla.start(config(last))));
    NODE.set(next, Flotilla.start(config(next)));
    starting.join();
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
