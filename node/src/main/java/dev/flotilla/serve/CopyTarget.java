package dev.flotilla.serve;

import dev.flotilla.model.LayerRange;
import dev.flotilla.serve.Placement.Placed;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;

/**
 * Which replica keeps the copies of another one's KV cache. Pure, and the same for all who ask: the
 * one that shares the fewest nodes with it; of several, the next one by number, so that each of
 * them keeps those of one other.
 */
final class CopyTarget {

  private CopyTarget() {}

  /**
   * @param ready replicas of the same deployment, itself among them or not
   * @return empty if there is none that would be left when a node of the source is lost
   */
  static Optional<Placed> of(Placement source, List<Placed> ready) {
    return ready.stream()
        .filter(other -> fits(source, other.placement()))
        .min(
            Comparator.comparingLong((Placed other) -> shared(source, other.placement()))
                .thenComparing(other -> other.placement().number() < source.number())
                .thenComparingInt(other -> other.placement().number()));
  }

  private static boolean fits(Placement source, Placement other) {
    return other.number() != source.number()
        && other.digest().equals(source.digest())
        && other.engine().kv() == source.engine().kv()
        && other.engine().wire() == source.engine().wire()
        // The sums of ranks are not those of whole layers, nor of other ranks.
        && source.tensor().isEmpty()
        && other.tensor().isEmpty()
        // Where states are rounded on their way, what comes behind depends on where that is.
        && (source.engine().wire() == WireType.F32 || cuts(source).equals(cuts(other)))
        && shared(source, other) < nodes(source).size();
  }

  private static List<LayerRange> cuts(Placement placement) {
    return IntStream.range(0, placement.stages().size()).mapToObj(placement::layers).toList();
  }

  private static List<String> nodes(Placement placement) {
    return placement.stages().stream().map(Deployments.StageView::node).distinct().toList();
  }

  private static long shared(Placement a, Placement b) {
    return nodes(a).stream().filter(nodes(b)::contains).count();
  }
}
