package dev.flotilla.data.grid;

import java.util.Collection;
import java.util.HashSet;
import java.util.Set;
import org.apache.ignite.Ignite;
import org.apache.ignite.cluster.BaselineNode;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.configuration.TopologyValidator;
import org.apache.ignite.resources.IgniteInstanceResource;
import org.jspecify.annotations.Nullable;

/**
 * Lets a cache be written only where a majority of the baseline is. The grid asks it at each change
 * of the topology, so it cannot see a cut in the middle of a write: {@link Grid} looks again after.
 */
public final class MajorityValidator implements TopologyValidator {

  private static final long serialVersionUID = 1L;

  @IgniteInstanceResource private transient @Nullable Ignite ignite;

  @Override
  public boolean validate(Collection<ClusterNode> nodes) {
    return Grid.acknowledgesAlone()
        || (ignite != null && isMajority(nodes, ignite.cluster().currentBaselineTopology()));
  }

  /** Whether more than half of the baseline's nodes are among these. */
  static boolean isMajority(
      Collection<ClusterNode> nodes, @Nullable Collection<BaselineNode> baseline) {
    if (baseline == null || baseline.isEmpty()) {
      return false;
    }
    Set<Object> here = new HashSet<>();
    nodes.forEach(node -> here.add(node.consistentId()));
    long present = baseline.stream().filter(node -> here.contains(node.consistentId())).count();
    return 2 * present > baseline.size();
  }
}
