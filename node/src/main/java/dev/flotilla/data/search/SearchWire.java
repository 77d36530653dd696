package dev.flotilla.data.search;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import dev.flotilla.data.proto.FoundDocument;
import dev.flotilla.data.proto.ShardField;
import dev.flotilla.data.proto.ShardFrequencies;
import dev.flotilla.data.proto.ShardSearchReply;
import dev.flotilla.data.proto.ShardTerm;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.lucene.index.Term;
import org.apache.lucene.util.BytesRef;

/** What shards ask and answer, as messages between nodes. */
final class SearchWire {

  private SearchWire() {}

  static List<ShardTerm> terms(Set<Term> terms) {
    return terms.stream().map(term -> term(term).build()).toList();
  }

  private static ShardTerm.Builder term(Term term) {
    BytesRef bytes = term.bytes();
    return ShardTerm.newBuilder()
        .setField(term.field())
        .setTerm(ByteString.copyFrom(bytes.bytes, bytes.offset, bytes.length));
  }

  static Set<Term> terms(List<ShardTerm> terms) {
    Set<Term> all = new HashSet<>();
    terms.forEach(term -> all.add(term(term)));
    return all;
  }

  private static Term term(ShardTerm term) {
    return new Term(term.getField(), new BytesRef(term.getTerm().toByteArray()));
  }

  static ShardFrequencies toMessage(SearchFrequencies frequencies) {
    ShardFrequencies.Builder message = ShardFrequencies.newBuilder();
    frequencies
        .terms()
        .forEach(
            (term, count) ->
                message.addTerms(
                    term(term)
                        .setDocumentFrequency(count.documents())
                        .setTotalFrequency(count.occurrences())));
    frequencies
        .fields()
        .forEach(
            (field, total) ->
                message.addFields(
                    ShardField.newBuilder()
                        .setField(field)
                        .setDocuments(total.documents())
                        .setDocumentsWithField(total.documentsWithField())
                        .setTotalFrequency(total.occurrences())
                        .setTotalDocumentFrequency(total.documentOccurrences())));
    return message.build();
  }

  static SearchFrequencies fromMessage(ShardFrequencies message) {
    Map<Term, SearchFrequencies.Frequency> terms = new HashMap<>();
    for (ShardTerm term : message.getTermsList()) {
      terms.put(
          term(term),
          new SearchFrequencies.Frequency(term.getDocumentFrequency(), term.getTotalFrequency()));
    }
    Map<String, SearchFrequencies.FieldTotal> fields = new HashMap<>();
    for (ShardField field : message.getFieldsList()) {
      fields.put(
          field.getField(),
          new SearchFrequencies.FieldTotal(
              field.getDocuments(),
              field.getDocumentsWithField(),
              field.getTotalFrequency(),
              field.getTotalDocumentFrequency()));
    }
    return new SearchFrequencies(terms, fields);
  }

  static ShardSearchReply toMessage(SearchHits hits) {
    ShardSearchReply.Builder message =
        ShardSearchReply.newBuilder()
            .setTotal(hits.total())
            .setTotalIsExact(hits.totalIsExact())
            .setTimedOut(hits.timedOut());
    hits.list().forEach(hit -> message.addList(toMessage(hit)));
    hits.nearest().forEach(hit -> message.addNearest(toMessage(hit)));
    return message.build();
  }

  private static FoundDocument toMessage(SearchHits.ShardHit hit) {
    FoundDocument.Builder message =
        FoundDocument.newBuilder()
            .setId(hit.id())
            .setScore(hit.score())
            .setSourceJson(UnsafeByteOperations.unsafeWrap(hit.source()))
            .putAllHighlights(hit.highlights());
    hit.sort().forEach(value -> message.addSortValues(SearchPlan.encode(value)));
    return message.build();
  }

  static SearchHits fromMessage(ShardSearchReply message) {
    return new SearchHits(
        message.getListList().stream().map(SearchWire::fromMessage).toList(),
        message.getNearestList().stream().map(SearchWire::fromMessage).toList(),
        message.getTotal(),
        message.getTotalIsExact(),
        message.getTimedOut());
  }

  private static SearchHits.ShardHit fromMessage(FoundDocument message) {
    return new SearchHits.ShardHit(
        message.getId(),
        message.getScore(),
        message.getSortValuesList().stream().map(SearchPlan::decode).toList(),
        message.getSourceJson().toByteArray(),
        message.getHighlightsMap());
  }
}
