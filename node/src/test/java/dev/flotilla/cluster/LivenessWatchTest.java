package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.Threads;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

final class LivenessWatchTest {

  /**
   * What a node that is elected knows: first the leader, then itself, and at last that it leads.
   */
  private static final class Elected implements ReplicatedLog {
    volatile Optional<String> leader = Optional.of("dead");
    volatile boolean leads;

    @Override
    public Optional<String> leader() {
      return leader;
    }

    @Override
    public boolean leads() {
      return leads;
    }

    @Override
    public List<String> voters() {
      return List.of("self", "dead", "other");
    }

    @Override
    public List<String> members() {
      return voters();
    }

    @Override
    public RegistryState state() {
      throw new UnsupportedOperationException();
    }

    @Override
    public long appliedIndex() {
      throw new UnsupportedOperationException();
    }

    @Override
    public boolean awaitApplied(long index, long timeoutNs) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Answer propose(String to, byte[] command) {
      throw new UnsupportedOperationException();
    }

    @Override
    public void standForElectionAsVoterOnly() {}

    @Override
    public void handOver() {}

    @Override
    public boolean expel(String nodeId, List<String> alive) {
      throw new UnsupportedOperationException();
    }
  }

  @Test
  void aLeaderThatWasFoundDeadIsDeadForItsSuccessorFromItsFirstMomentOn() throws Exception {
    Elected group = new Elected();
    NodeInfo dead = FakeCluster.node("dead", NodeInfo.State.UP);
    List<NodeInfo> nodes = List.of(FakeCluster.node("self", NodeInfo.State.UP), dead);
    try (LivenessWatch watch =
        new LivenessWatch(
            "self",
            group,
            () -> nodes,
            (node, outcome) -> outcome.accept(new Pings.Refused()),
            Threads.real(),
            () -> {})) {
      watch.start();
      TestNodes.await("the leader found dead", Duration.ofSeconds(10), () -> !watch.alive(dead));
      group.leader = Optional.empty();
      staysDead(watch, dead);
      group.leader = Optional.of("self");
      staysDead(watch, dead);
      group.leads = true;
      staysDead(watch, dead);
    }
  }

  /** For more than a round. */
  private static void staysDead(LivenessWatch watch, NodeInfo node) throws InterruptedException {
    long endNs = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(400);
    while (System.nanoTime() < endNs) {
      assertThat(watch.alive(node)).isFalse();
      Thread.sleep(5);
    }
  }
}
