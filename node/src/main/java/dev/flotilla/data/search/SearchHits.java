package dev.flotilla.data.search;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.lucene.util.BytesRef;

/**
 * What one shard found: its best by words or sort, and its nearest by vector.
 *
 * @param list in the plan's order
 * @param nearest best first, equal ones by id
 * @param total how many the list was taken from, or the vectors weighed; at least if not exact
 */
record SearchHits(
    List<ShardHit> list,
    List<ShardHit> nearest,
    long total,
    boolean totalIsExact,
    boolean timedOut) {

  /**
   * One document of a shard.
   *
   * @param sort what it was ordered by, id last: BytesRef, Long, Double, Float or {@link
   *     SearchPlan.Missing}
   */
  record ShardHit(
      String id, float score, List<Object> sort, byte[] source, Map<String, String> highlights) {}

  /** Best score first, equal ones by id, in the order of its bytes. */
  static final Comparator<ShardHit> BY_SCORE =
      (left, right) ->
          left.score != right.score
              ? Float.compare(right.score, left.score)
              : new BytesRef(left.id).compareTo(new BytesRef(right.id));

  /**
   * The constant of reciprocal rank fusion: a document's score is the sum, over the rankings it is
   * in, of 1 / (60 + its rank), ranks counted from 1.
   *
   * <p>Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet and individual
   * Rank Learning Methods, SIGIR 2009, equation in section 2, where k = 60.
   */
  static final int FUSION_K = 60;

  /** A document and its score among all shards' documents. */
  record Ranked(ShardHit hit, double score) {}

  /** Fuses rankings, each best first; equal ones by id. */
  static List<Ranked> fuse(List<List<ShardHit>> rankings) {
    Map<String, Double> scores = new HashMap<>();
    Map<String, ShardHit> hits = new LinkedHashMap<>();
    for (List<ShardHit> ranking : rankings) {
      int rank = 0;
      for (ShardHit hit : ranking) {
        rank++;
        scores.merge(hit.id, 1.0 / (FUSION_K + rank), Double::sum);
        hits.merge(hit.id, hit, SearchHits::withHighlights);
      }
    }
    List<Ranked> fused = new ArrayList<>();
    hits.forEach((id, hit) -> fused.add(new Ranked(hit, scores.getOrDefault(id, 0.0))));
    fused.sort(
        Comparator.comparingDouble(Ranked::score)
            .reversed()
            .thenComparing(ranked -> new BytesRef(ranked.hit.id)));
    return fused;
  }

  private static ShardHit withHighlights(ShardHit first, ShardHit second) {
    return first.highlights.isEmpty() ? second : first;
  }
}
