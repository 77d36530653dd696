package dev.flotilla.data.search;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Where shards are placed, by what the registry says. */
class IndexReplicasTest {

  private static final IndexReplicas.Tuning TUNING = new IndexReplicas.Tuning(100, 2_000, 200);

  private final FakeRegistry registry = new FakeRegistry();
  private final FakeCluster cluster =
      new FakeCluster(
          "a",
          registry,
          Stream.of("a", "b", "c").map(id -> FakeCluster.node(id, NodeInfo.State.UP)).toList());
  private final AtomicLong nowNs = new AtomicLong();
  private final IndexReplicas replicas =
      new IndexReplicas(cluster, null, Path.of("unused"), TUNING, nowNs::get);

  private static IndexCatalog.Known index(long epoch) {
    return new IndexCatalog.Known(
        "i", "generation", epoch, new IndexSchema(IndexSettings.DEFAULTS.withShards(8, 2)), null);
  }

  private Set<String> nodesOf(IndexCatalog.Known index) {
    Set<String> nodes = new HashSet<>();
    for (int shard = 0; shard < 8; shard++) {
      List<String> placed = replicas.placed(index, shard);
      assertThat(placed).hasSize(2);
      nodes.addAll(placed);
    }
    return nodes;
  }

  @Test
  void aNodeThatIsToStopGetsNoShardsOfIndexesMadeSince() {
    IndexCatalog.Known before = index(registry.revision());
    cluster.drain("b", true);
    IndexCatalog.Known since = index(registry.revision() + 1);
    assertThat(nodesOf(before)).containsExactlyInAnyOrder("a", "b", "c");
    assertThat(nodesOf(since)).containsExactlyInAnyOrder("a", "c");
    nowNs.addAndGet(TimeUnit.SECONDS.toNanos(3));
    assertThat(nodesOf(before)).containsExactlyInAnyOrder("a", "c");
    cluster.drain("b", false);
    assertThat(nodesOf(since)).containsExactlyInAnyOrder("a", "b", "c");
  }
}
