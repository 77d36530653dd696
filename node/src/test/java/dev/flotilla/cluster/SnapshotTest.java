package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.put;
import static dev.flotilla.cluster.TestNodes.value;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.apache.ratis.statemachine.impl.SimpleStateMachineStorage;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SnapshotTest {

  private static final RaftRegistry.Tuning SMALL = new RaftRegistry.Tuning(50, 4 << 10, 8_000);

  @TempDir Path folder;

  private static Registry.Key key(int i) {
    return new Registry.Key("test", "x" + i % 40);
  }

  private static void write(ClusterNode node, int from, int to) {
    for (int i = from; i < to; i++) {
      assertThat(node.registry().commit(List.of(), put(key(i), "v" + i))).isPresent();
    }
  }

  private static List<Path> snapshots(ClusterConfig config) throws IOException {
    try (Stream<Path> files = Files.walk(config.dataFolder().resolve("data"))) {
      return files
          .filter(
              file ->
                  SimpleStateMachineStorage.SNAPSHOT_REGEX
                      .matcher(file.getFileName().toString())
                      .matches())
          .sorted(Comparator.comparingLong(file -> file.toFile().lastModified()))
          .toList();
    }
  }

  @Test
  void aJoinerIsGivenASnapshotWhereTheLogWasPurged() {
    try (TestNodes nodes = new TestNodes(folder, SMALL)) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      write(a, 0, 500);
      ClusterNode b = nodes.joinAndStart(nodes.config("b"), configA, a.invite());
      assertThat(b.raft().stateMachine().snapshotsInstalled()).isPositive();
      for (int i = 460; i < 500; i++) {
        assertThat(value(b, key(i))).isEqualTo("v" + i);
        assertThat(b.registry().get(key(i)).orElseThrow().epoch())
            .isEqualTo(a.registry().get(key(i)).orElseThrow().epoch());
      }
      // And it takes part: with two voters nothing is decided without it.
      write(a, 500, 520);
      b.registry().sync();
      assertThat(value(b, key(519))).isEqualTo("v519");
    }
  }

  @Test
  void aTornSnapshotIsSetAsideAndTheOneBeforeIsUsed() throws Exception {
    try (TestNodes nodes = new TestNodes(folder, SMALL)) {
      ClusterConfig config = nodes.config("a");
      ClusterNode node = nodes.start(config);
      write(node, 0, 300);
      node.kill();
      List<Path> before = snapshots(config);
      assertThat(before).hasSize(2);
      try (RandomAccessFile newest = new RandomAccessFile(before.getLast().toFile(), "rw")) {
        newest.setLength(newest.length() / 2);
      }
      ClusterNode again = nodes.start(config);
      for (int i = 260; i < 300; i++) {
        assertThat(value(again, key(i))).isEqualTo("v" + i);
      }
      assertThat(before.getLast().resolveSibling(before.getLast().getFileName() + ".corrupt"))
          .exists();
      write(again, 300, 310);
    }
  }
}
