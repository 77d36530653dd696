package dev.flotilla.data.search;

import java.util.List;
import java.util.Optional;

/**
 * An index of documents, searched by words, by vectors, or both.
 *
 * <p>A write that returned is durable: a majority of the cluster has it. It can be searched a
 * little later, once the replicas have seen it: within the index's refresh time as a rule, and for
 * certain if it was asked to wait. Writes of one document take effect in the order of their
 * sequence numbers; the last one stands.
 *
 * <p>Every method throws {@link dev.flotilla.FlotillaException}: {@code NOT_FOUND} if there is no
 * such index, {@code NO_MAJORITY} and {@code OUTCOME_UNKNOWN} as all writes do.
 */
public interface SearchIndex {

  /** What a write of documents returns. */
  enum Visibility {
    /** Once it is durable. */
    DURABLE,
    /** Once it can be found on every replica that answers, or after 10 s. */
    SEARCHABLE
  }

  /**
   * A write that is done.
   *
   * @param sequence its place among all writes of its shard
   * @param searchable whether every answering replica shows it
   */
  record Receipt(String id, int shard, long sequence, boolean searchable) {}

  /** A document as it is stored, and the sequence of the write that stored it. */
  record Stored(IndexDocument document, long sequence) {}

  /**
   * One shard as it stands.
   *
   * @param sequence of the last write
   * @param documents as the most advanced replica counts them
   */
  record ShardStats(int shard, long sequence, long documents, List<ReplicaStats> replicas) {}

  /**
   * One copy of a shard.
   *
   * @param state {@code ready}, {@code catching_up}, or why it does not answer
   * @param searchable up to which sequence it shows writes
   */
  record ReplicaStats(
      String node, String state, long searchable, long documents, long bytes, int segments) {}

  /** All of it. */
  record Stats(String name, IndexSettings settings, long documents, List<ShardStats> shards) {}

  /** Its name. */
  String name();

  /**
   * Makes it.
   *
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} if it is there
   */
  void create(IndexSettings settings);

  /** Removes it with all its documents. */
  void drop();

  /** Its settings, with the fields that documents brought. */
  IndexSettings settings();

  /**
   * Stores documents, each in place of the one with its id. Makes the index, with the usual
   * settings, if there is none. Not one transaction: some may be stored when it fails.
   *
   * @return one receipt each, in the order given
   * @throws dev.flotilla.FlotillaException {@code INVALID} naming the document and the field,
   *     {@code TOO_LARGE} for a document over 1 MB; nothing is stored then
   */
  List<Receipt> put(List<IndexDocument> documents, Visibility visibility);

  /** Stores one document. */
  default Receipt put(IndexDocument document) {
    return put(List.of(document), Visibility.DURABLE).getFirst();
  }

  /** Removes documents; receipts for those that were there. */
  List<Receipt> delete(List<String> ids, Visibility visibility);

  /** A document as it is stored, whether or not it can be searched yet. */
  Optional<Stored> document(String id);

  /**
   * Searches.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} saying where the query is wrong, {@code
   *     TOO_LARGE} if query or answer is beyond its bounds, {@code UNAVAILABLE} if no shard answers
   */
  SearchAnswer search(SearchRequest request);

  /** How it stands. */
  Stats stats();
}
