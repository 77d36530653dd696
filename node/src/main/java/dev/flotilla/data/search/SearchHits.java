package dev.flotilla.data.search;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Set;
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
   * @param source empty if it was not read, since it cannot be on the page
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

  /** Best score first, equal ones by id. */
  static final Comparator<Ranked> BEST_FUSED =
      Comparator.comparingDouble(Ranked::score)
          .reversed()
          .thenComparing(ranked -> new BytesRef(ranked.hit.id));

  /** Fuses rankings, each best first; equal ones by id. */
  static List<Ranked> fuse(List<List<ShardHit>> rankings) {
    Map<String, Double> scores = new HashMap<>();
    Map<String, ShardHit> hits = new LinkedHashMap<>();
    for (List<ShardHit> ranking : rankings) {
      int rank = 0;
      for (ShardHit hit : ranking) {
        rank++;
        scores.merge(hit.id, 1.0 / (FUSION_K + rank), Double::sum);
        hits.merge(hit.id, hit, SearchHits::thatWasRead);
      }
    }
    List<Ranked> fused = new ArrayList<>();
    hits.forEach((id, hit) -> fused.add(new Ranked(hit, scores.getOrDefault(id, 0.0))));
    fused.sort(BEST_FUSED);
    return fused;
  }

  private static ShardHit thatWasRead(ShardHit first, ShardHit second) {
    return first.source.length == 0 ? second : first;
  }

  /**
   * Those of a shard's documents that may be among the best {@code k} once its two rankings have
   * been merged with other shards' and fused; no other need be read.
   *
   * <p>Merging only puts documents of other shards between these. So one that is in a single
   * ranking has all of that ranking before it: it must be among its first {@code k}. One that is in
   * both has those before it that are before it in both: they must be fewer than {@code k}, if it
   * is to be fused from both, and otherwise the first case holds for what is left of it.
   *
   * @param <D> a document, equal in both rankings
   */
  static <D> Set<D> mayBeAmongTheBest(List<D> list, List<D> nearest, int k) {
    Set<D> possible = new HashSet<>(first(list, k));
    possible.addAll(first(nearest, k));
    Map<D, Integer> nearRanks = new HashMap<>();
    for (int rank = 0; rank < nearest.size(); rank++) {
      nearRanks.put(nearest.get(rank), rank);
    }
    // The k best ranks among the nearest of those that come before in the list, worst on top.
    PriorityQueue<Integer> before = new PriorityQueue<>(Comparator.reverseOrder());
    for (D document : list) {
      Integer rank = nearRanks.get(document);
      if (rank == null) {
        continue;
      }
      if (before.size() < k || rank < before.element()) {
        possible.add(document);
        before.add(rank);
        if (before.size() > k) {
          before.remove();
        }
      }
    }
    return possible;
  }

  /** At most so many, from the front. */
  static <T> List<T> first(List<T> all, int count) {
    return all.size() <= count ? all : all.subList(0, count);
  }
}
