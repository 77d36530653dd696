package dev.flotilla.data.search;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.Term;
import org.apache.lucene.index.TermStates;
import org.apache.lucene.search.CollectionStatistics;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.TermStatistics;
import org.jspecify.annotations.Nullable;

/**
 * How often words occur, which BM25 weighs them by. Each shard counts its own; the sums over all
 * shards are what each then scores with, so that a score does not depend on how documents are
 * spread. (Documents that were replaced count until their segment is merged, as in the library
 * itself.)
 */
record SearchFrequencies(Map<Term, Frequency> terms, Map<String, FieldTotal> fields) {

  /** Of one word: documents that hold it, and its occurrences. */
  record Frequency(long documents, long occurrences) {}

  /** Of one field, as {@link CollectionStatistics} has it. */
  record FieldTotal(
      long documents, long documentsWithField, long occurrences, long documentOccurrences) {}

  static SearchFrequencies count(IndexSearcher searcher, Set<Term> terms) throws IOException {
    Map<Term, Frequency> counted = new HashMap<>();
    Map<String, FieldTotal> fields = new HashMap<>();
    for (Term term : terms) {
      TermStates states = TermStates.build(searcher, term, true);
      if (states.docFreq() > 0) {
        counted.put(term, new Frequency(states.docFreq(), states.totalTermFreq()));
      }
      CollectionStatistics field = searcher.collectionStatistics(term.field());
      if (field != null) {
        fields.put(
            term.field(),
            new FieldTotal(
                field.maxDoc(), field.docCount(), field.sumTotalTermFreq(), field.sumDocFreq()));
      }
    }
    return new SearchFrequencies(counted, fields);
  }

  static SearchFrequencies sum(List<SearchFrequencies> shards) {
    Map<Term, Frequency> terms = new HashMap<>();
    Map<String, FieldTotal> fields = new HashMap<>();
    for (SearchFrequencies shard : shards) {
      shard.terms.forEach(
          (term, frequency) ->
              terms.merge(
                  term,
                  frequency,
                  (a, b) ->
                      new Frequency(a.documents + b.documents, a.occurrences + b.occurrences)));
      shard.fields.forEach(
          (field, total) ->
              fields.merge(
                  field,
                  total,
                  (a, b) ->
                      new FieldTotal(
                          a.documents + b.documents,
                          a.documentsWithField + b.documentsWithField,
                          a.occurrences + b.occurrences,
                          a.documentOccurrences + b.documentOccurrences)));
    }
    return new SearchFrequencies(terms, fields);
  }

  /** A searcher of one shard that scores by these. */
  IndexSearcher searcher(IndexReader reader) {
    return new IndexSearcher(reader) {
      @Override
      public TermStatistics termStatistics(Term term, int documents, long occurrences)
          throws IOException {
        Frequency all = terms.get(term);
        // A word that came between the counting and the search counts as this shard has it.
        return all == null
            ? super.termStatistics(term, documents, occurrences)
            : new TermStatistics(term.bytes(), all.documents, all.occurrences);
      }

      @Override
      public @Nullable CollectionStatistics collectionStatistics(String field) throws IOException {
        FieldTotal all = fields.get(field);
        return all == null
            ? super.collectionStatistics(field)
            : new CollectionStatistics(
                field,
                all.documents,
                all.documentsWithField,
                all.occurrences,
                all.documentOccurrences);
      }
    };
  }
}
