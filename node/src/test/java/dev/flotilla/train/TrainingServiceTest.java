package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeDeath;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.train.TrainingJobs.JobView;
import dev.flotilla.train.TrainingRecord.Member;
import dev.flotilla.train.TrainingRecord.State;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Predicate;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Jobs on two real nodes. */
class TrainingServiceTest {

  private static final TrainingConfig TINY = DataParallelTest.TINY;

  @TempDir Path folder;

  private final List<ClusterNode> nodes = new ArrayList<>();
  private final List<TrainingService> services = new ArrayList<>();
  private final List<String> accepted = new CopyOnWriteArrayList<>();

  @BeforeEach
  void startTwoNodes() throws IOException {
    ClusterConfig first = config("a");
    add(ClusterNode.create(first), first);
    ClusterConfig second = config("b");
    String address = "127.0.0.1:" + first.httpPort();
    add(ClusterNode.join(second, address, nodes.getFirst().invite()), second);
  }

  private ClusterConfig config(String name) throws IOException {
    return new ClusterConfig(
        folder.resolve(name),
        name,
        "127.0.0.1",
        "127.0.0.1",
        NodeDeath.freePorts(),
        "0.1.0",
        InstantSource.system(),
        Map.of());
  }

  private void add(ClusterNode node, ClusterConfig config) {
    TrainingService service =
        new TrainingService(
            node,
            config.dataFolder(),
            new InetSocketAddress("127.0.0.1", config.httpPort() + 4),
            (job, model, checkpoint) -> {
              assertThat(checkpoint.resolve("model.safetensors")).exists();
              accepted.add(model);
            },
            InstantSource.system(),
            1);
    nodes.add(node);
    services.add(service);
    node.start();
    service.start();
  }

  @AfterEach
  void stop() {
    services.forEach(TrainingService::close);
    nodes.reversed().forEach(ClusterNode::close);
    assertThat(workerProcesses()).as("no worker outlives its node").isEmpty();
  }

  private static List<ProcessHandle> workerProcesses() {
    return ProcessHandle.current()
        .children()
        .filter(ProcessHandle::isAlive)
        .filter(child -> child.info().command().orElse("").endsWith("java"))
        .toList();
  }

  private JobView await(String id, Predicate<JobView> condition) throws InterruptedException {
    long deadline = System.nanoTime() + Duration.ofSeconds(90).toNanos();
    while (true) {
      JobView job = services.getLast().get(id);
      if (condition.test(job)) {
        return job;
      }
      assertThat(System.nanoTime()).as("still waiting: %s", job).isLessThan(deadline);
      Thread.sleep(50);
    }
  }

  private static TrainingConfig steps(int steps) {
    return new TrainingConfig(
        "tiny", Optional.empty(), 5, 2, 400, 32, 2, 2, 1, 64, 96, 7, steps, 3e-3, 3, 0.1, 1.0);
  }

  @Test
  void aJobOnATextRunsOnBothNodesAndItsResultIsTakenUp() throws Exception {
    String text = "the quick brown fox jumps over the lazy dog, again and again. ".repeat(200);
    String id = services.getLast().submit(steps(12).withText(Optional.of(text)));
    JobView job =
        await(id, view -> !view.state().equals("queued") && !view.state().equals("running"));
    assertThat(job.state()).as(job.reason()).isEqualTo("succeeded");
    assertThat(job.nodes()).hasSize(2).doesNotHaveDuplicates();
    assertThat(job.curve()).extracting(TrainingJobs.LossPoint::step).contains(12);
    assertThat(job.curve().getLast().validationLoss()).isBetween(0.0, 8.0);
    assertThat(accepted).containsExactly("tiny");
    assertThat(services.getFirst().list()).hasSize(1);
    for (String node : List.of("a", "b")) {
      assertThat(Files.readString(folder.resolve(node + "/data/training/" + id + "/text.txt")))
          .isEqualTo(text);
    }
  }

  @Test
  void aKilledWorkerStartsTheJobAgainAndCancellingEndsIt() throws Exception {
    String id = services.getFirst().submit(steps(100_000));
    await(id, job -> !job.curve().isEmpty());
    List<ProcessHandle> before = workerProcesses();
    assertThat(before).hasSize(2);
    before.getLast().destroyForcibly();
    await(id, job -> job.state().equals("running") && job.reason().contains("exit code 137"));
    List<Long> killed = before.stream().map(ProcessHandle::pid).toList();
    await(
        id,
        job ->
            workerProcesses().size() == 2
                && workerProcesses().stream().noneMatch(worker -> killed.contains(worker.pid())));
    services.getLast().cancel(id);
    assertThat(await(id, job -> job.state().equals("cancelled")).state()).isEqualTo("cancelled");
    await(id, job -> workerProcesses().isEmpty());
    assertThat(accepted).isEmpty();
  }

  @Test
  void refusesWhatCannotBeTrained() {
    assertThatThrownBy(() -> services.getFirst().submit(steps(0)))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("steps");
    assertThatThrownBy(() -> services.getFirst().submit(TINY.withText(Optional.of("  "))))
        .hasMessageContaining("empty");
    assertThatThrownBy(() -> services.getFirst().get("nothing"))
        .hasMessageContaining("no training job nothing");
  }

  private static NodeInfo node(String id, long incarnation) {
    return new NodeInfo(
        id, id, "127.0.0.1", 1, "0.1.0", 1, incarnation, NodeInfo.State.UP, Map.of());
  }

  @Test
  void decidesByWhoAnswers() {
    TrainingRecord job =
        new TrainingRecord(
            "j",
            0,
            steps(5),
            Optional.empty(),
            State.QUEUED,
            "",
            0,
            List.of(),
            List.of(),
            Optional.empty());
    var a = node("a", 1);
    var b = node("b", 1);
    assertThat(TrainingService.decide(job, List.of(a)).reason()).contains("waits for 2 nodes");
    TrainingRecord running = TrainingService.decide(job, List.of(a, b));
    assertThat(running.members()).containsExactly(new Member("a", 1), new Member("b", 1));
    assertThat(TrainingService.decide(running, List.of(a, b))).isEqualTo(running);
    TrainingRecord lost = TrainingService.decide(running, List.of(a, node("b", 2)));
    assertThat(lost.state()).isEqualTo(State.QUEUED);
    TrainingRecord again = TrainingService.decide(lost, List.of(a));
    assertThat(again.attempt()).isEqualTo(2);
    assertThat(again.members()).containsExactly(new Member("a", 1));
    for (int i = 0; i < 3; i++) {
      again = TrainingService.decide(TrainingService.decide(again, List.of()), List.of(a));
    }
    assertThat(again.attempt()).isEqualTo(5);
    assertThat(TrainingService.decide(again, List.of()).state()).isEqualTo(State.FAILED);
  }
}
