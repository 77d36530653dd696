package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.put;
import static dev.flotilla.cluster.TestNodes.value;
import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A disk without room for the registry's log, on one of three nodes. */
class FullLogTest {

  private static final RaftRegistry.Tuning SMALL = new RaftRegistry.Tuning(500, 4 << 10, 8_000);
  private static final Duration SOON = Duration.ofSeconds(30);

  @TempDir Path folder;

  private static Registry.Key key(int i) {
    return new Registry.Key("test", "x" + i);
  }

  private static void write(ClusterNode node, int from, int to) {
    for (int i = from; i < to; i++) {
      assertThat(node.registry().commit(List.of(), put(key(i), "v" + i))).isPresent();
    }
  }

  @Test
  void aLogThatFoundNoRoomIsOpenedAgainOnceThereIsSome() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("c"), 64);
        TestNodes nodes = new TestNodes(folder, SMALL)) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      ClusterNode b = nodes.joinAndStart(nodes.config("b"), configA, a.invite());
      ClusterConfig configC = nodes.config("c");
      ClusterNode c = nodes.joinAndStart(configC, configA, a.invite());
      write(a, 0, 20);
      c.registry().sync();
      disk.leave(0);
      write(a, 20, 300);
      TestNodes.await("a log that has failed", SOON, () -> c.disk().ownRefusal().isPresent());
      assertThat(c.disk().ownRefusal().orElseThrow()).contains("could not be written");
      // What it had, it still has.
      assertThat(value(c, key(19))).isEqualTo("v19");
      disk.free();
      TestNodes.await("a log that is well", SOON, () -> c.disk().ownRefusal().isEmpty());
      TestNodes.await("all that was decided", SOON, () -> c.registry().get(key(299)).isPresent());
      // And it counts again: without another one nothing is decided but with it.
      b.kill();
      write(a, 300, 320);
      TestNodes.await("a decision", SOON, () -> c.registry().get(key(319)).isPresent());
      write(c, 320, 330);
      assertThat(value(c, key(329))).isEqualTo("v329");
    }
  }

  /** Of the two voters that are left one has no room for its vote, so nobody is elected. */
  @Test
  void aNodeWhoseVoteFoundNoRoomStartsAgainWithoutHelp() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("c"), 64);
        TestNodes nodes = new TestNodes(folder, SMALL)) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      ClusterNode b = nodes.joinAndStart(nodes.config("b"), configA, a.invite());
      ClusterConfig configC = nodes.config("c");
      ClusterNode c = nodes.joinAndStart(configC, configA, a.invite());
      write(a, 0, 20);
      c.registry().sync();
      long before = term(a);
      disk.leave(0);
      a.kill();
      TestNodes.await("a vote that is asked for", SOON, () -> term(b) > before);
      c.kill();
      disk.free();
      c = nodes.start(configC);
      write(c, 20, 40);
      assertThat(value(c, key(19))).isEqualTo("v19");
      assertThat(value(c, key(39))).isEqualTo("v39");
    }
  }

  private static long term(ClusterNode node) {
    return node.raft().division().getInfo().getCurrentTerm();
  }
}
