package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.KnnFloatVectorQuery;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.apache.lucene.search.RescoreTopNQuery;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortField;
import org.apache.lucene.search.SortedNumericSortField;
import org.apache.lucene.search.SortedSetSortField;
import org.apache.lucene.util.BytesRef;
import org.apache.lucene.util.automaton.ByteRunAutomaton;

/**
 * A request understood against a schema: the search library's queries, and the order in which hits
 * of all shards stand. The same on every node that knows the schema.
 */
final class SearchPlan {

  /** By score, equal ones by id: what stands where nothing else is asked. */
  static final Sort BY_SCORE =
      new Sort(SortField.FIELD_SCORE, new SortField(IndexSchema.ID, SortField.Type.STRING));

  private static final Sort BY_ID = new Sort(new SortField(IndexSchema.ID, SortField.Type.STRING));

  private static final int FUSION_WINDOW_MIN = 50;
  private static final int FIELDS_SHOWN = 50;

  private final IndexSchema schema;
  private final SearchRequest request;
  private final Optional<Query> words;
  private final Optional<Query> filter;
  private final Sort sort;
  private final Optional<List<Object>> after;

  private SearchPlan(
      IndexSchema schema,
      SearchRequest request,
      Optional<Query> words,
      Optional<Query> filter,
      Sort sort,
      Optional<List<Object>> after) {
    this.schema = schema;
    this.request = request;
    this.words = words;
    this.filter = filter;
    this.sort = sort;
    this.after = after;
  }

  static SearchPlan of(IndexSchema schema, SearchRequest request) {
    Optional<Query> words = words(schema, request);
    checkVector(schema, request.vector());
    Sort sort = sort(schema, request, words.isPresent());
    return new SearchPlan(
        schema,
        request,
        words,
        request.filter().map(filter -> filter(schema, filter)),
        sort,
        request.searchAfter().isEmpty()
            ? Optional.empty()
            : Optional.of(after(request.searchAfter(), sort)));
  }

  /**
   * Refuses what this index has not: where a search comes in, not on each shard, whose node may
   * hear later of what is new.
   *
   * @throws FlotillaException {@code INVALID} saying what there is instead
   */
  static void checkKnown(IndexSchema schema, SearchRequest request) {
    if (request.vector().length > 0 && schema.settings().vectors().dimensions() == 0) {
      throw new FlotillaException(
          Code.INVALID,
          "vector: this index has no vectors",
          "Search it by words, or store documents with vectors first.");
    }
    request.filter().ifPresent(filter -> checkFields(schema, filter));
    request.highlight().forEach(name -> checkShown(schema, "highlight", name));
    request.returnFields().forEach(name -> checkShown(schema, "return_fields", name));
  }

  private static void checkShown(IndexSchema schema, String where, String name) {
    if (!name.equals(IndexSchema.TEXT)) {
      checkField(schema, where, name);
    }
  }

  private static void checkFields(IndexSchema schema, SearchFilter filter) {
    switch (filter) {
      case SearchFilter.In in -> checkField(schema, "filter", in.field());
      case SearchFilter.Range range -> checkField(schema, "filter", range.field());
      case SearchFilter.Exists exists -> checkField(schema, "filter", exists.field());
      case SearchFilter.And and -> and.all().forEach(one -> checkFields(schema, one));
      case SearchFilter.Or or -> or.any().forEach(one -> checkFields(schema, one));
      case SearchFilter.Not not -> checkFields(schema, not.not());
    }
  }

  private static void checkField(IndexSchema schema, String where, String field) {
    if (schema.field(field).isEmpty()) {
      List<String> there = List.copyOf(schema.settings().fields().keySet());
      throw new FlotillaException(
          Code.INVALID,
          where
              + ": this index has no field '"
              + (field.length() > 64 ? field.substring(0, 64) + "…" : field)
              + "'",
          there.isEmpty()
              ? "Its documents have no fields yet."
              : "It has "
                  + String.join(", ", there.subList(0, Math.min(FIELDS_SHOWN, there.size())))
                  + (there.size() > FIELDS_SHOWN ? " and others." : "."));
    }
  }

  private static Optional<Query> words(IndexSchema schema, SearchRequest request) {
    if (request.query().isBlank()) {
      return Optional.empty();
    }
    Map<String, Float> defaults = new LinkedHashMap<>();
    for (String named : request.searchFields()) {
      int weight = named.indexOf('^');
      String name = weight < 0 ? named : named.substring(0, weight);
      if (schema.field(name).filter(f -> f.type() == IndexField.Type.TEXT).isEmpty()) {
        throw new FlotillaException(
            Code.INVALID, "search_fields: '" + name + "' is not a text field of this index", "");
      }
      defaults.put(name, weight < 0 ? 1f : weight(named.substring(weight + 1)));
    }
    if (defaults.isEmpty()) {
      defaults.put(IndexSchema.TEXT, 1f);
    }
    SearchQueryParser parser = new SearchQueryParser(schema::field, defaults, schema.analyzer());
    return Optional.of(
        request.syntax() == SearchRequest.Syntax.PLAIN
            ? parser.plain(request.query())
            : parser.read(request.query()));
  }

  private static float weight(String text) {
    try {
      float weight = Float.parseFloat(text);
      if (weight > 0 && weight <= 1000) {
        return weight;
      }
    } catch (NumberFormatException notANumber) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID, "search_fields: the weight '" + text + "' is not from 0 to 1000", "");
  }

  private static void checkVector(IndexSchema schema, float[] vector) {
    int dimensions = schema.settings().vectors().dimensions();
    if (vector.length > 0 && dimensions != 0 && vector.length != dimensions) {
      throw new FlotillaException(
          Code.INVALID,
          "vector has "
              + vector.length
              + " dimensions, but this index's vectors have "
              + dimensions,
          "Use the model that made the index's vectors.");
    }
    if (vector.length > 0
        && schema.settings().vectors().similarity() == IndexSettings.Similarity.COSINE) {
      for (float number : vector) {
        if (number != 0) {
          return;
        }
      }
      throw new FlotillaException(
          Code.INVALID, "vector is zero, which has no direction to compare", "");
    }
  }

  /** A field that no document has brought yet matches nothing. */
  static Query filter(IndexSchema schema, SearchFilter filter) {
    return switch (filter) {
      case SearchFilter.In(String field, List<Object> values) -> {
        Optional<IndexField> known = comparable(schema, field);
        yield known.isEmpty()
            ? MatchNoDocsQuery.INSTANCE
            : SearchQueryParser.exact(
                field,
                known.get().type(),
                values.stream()
                    .map(
                        value ->
                            IndexSchema.normal("", "filter: " + field, known.get().type(), value))
                    .toList());
      }
      case SearchFilter.Range range -> {
        Optional<IndexField> known = comparable(schema, range.field());
        yield known.isEmpty()
            ? MatchNoDocsQuery.INSTANCE
            : SearchQueryParser.range(
                range.field(),
                known.get().type(),
                range.least().map(v -> bound(range.field(), known.get(), v)),
                range.leastIncluded(),
                range.most().map(v -> bound(range.field(), known.get(), v)),
                range.mostIncluded());
      }
      case SearchFilter.Exists(String field) ->
          schema
              .field(field)
              .map(known -> SearchQueryParser.exists(field, known.type()))
              .orElse(MatchNoDocsQuery.INSTANCE);
      case SearchFilter.And(List<SearchFilter> all) -> {
        if (all.isEmpty()) {
          yield MatchAllDocsQuery.INSTANCE;
        }
        BooleanQuery.Builder builder = new BooleanQuery.Builder();
        all.forEach(one -> builder.add(filter(schema, one), BooleanClause.Occur.FILTER));
        yield builder.build();
      }
      case SearchFilter.Or(List<SearchFilter> any) -> {
        BooleanQuery.Builder builder = new BooleanQuery.Builder();
        any.forEach(one -> builder.add(filter(schema, one), BooleanClause.Occur.SHOULD));
        yield builder.build();
      }
      case SearchFilter.Not(SearchFilter not) ->
          new BooleanQuery.Builder()
              .add(MatchAllDocsQuery.INSTANCE, BooleanClause.Occur.FILTER)
              .add(filter(schema, not), BooleanClause.Occur.MUST_NOT)
              .build();
    };
  }

  /** A range of whole numbers may be asked for with fractions. */
  private static Object bound(String field, IndexField known, Object value) {
    return IndexSchema.normal("", "filter: " + field, known.type(), value);
  }

  private static Optional<IndexField> comparable(IndexSchema schema, String field) {
    Optional<IndexField> known = schema.field(field);
    if (known.isPresent() && known.get().type() == IndexField.Type.TEXT) {
      throw new FlotillaException(
          Code.INVALID,
          "filter: field '" + field + "' is text, which is searched, not compared",
          "Ask for it in the query.");
    }
    return known;
  }

  private static Sort sort(IndexSchema schema, SearchRequest request, boolean scored) {
    if (request.sort().isEmpty()) {
      return scored ? BY_SCORE : BY_ID;
    }
    List<SortField> keys = new ArrayList<>();
    for (SearchRequest.Order order : request.sort()) {
      keys.add(key(schema, order));
    }
    keys.add(new SortField(IndexSchema.ID, SortField.Type.STRING));
    return new Sort(keys.toArray(SortField[]::new));
  }

  private static SortField key(IndexSchema schema, SearchRequest.Order order) {
    if (order.field().equals(IndexSchema.SCORE)) {
      return new SortField(null, SortField.Type.SCORE, !order.descending());
    }
    if (order.field().equals(IndexSchema.ID)) {
      return new SortField(IndexSchema.ID, SortField.Type.STRING, order.descending());
    }
    Optional<IndexField> known = schema.field(order.field());
    if (known.isEmpty() || known.get().type() == IndexField.Type.TEXT) {
      throw new FlotillaException(
          Code.INVALID,
          "sort: '" + order.field() + "' is not a field of this index that has an order",
          "Sort by keywords, numbers, dates, true and false, _score or _id.");
    }
    boolean down = order.descending();
    return switch (known.get().type()) {
      case LONG, DATE ->
          new SortedNumericSortField(
              order.field(),
              SortField.Type.LONG,
              down,
              org.apache.lucene.search.SortedNumericSelector.Type.MIN,
              down ? Long.MIN_VALUE : Long.MAX_VALUE);
      case DOUBLE ->
          new SortedNumericSortField(
              order.field(),
              SortField.Type.DOUBLE,
              down,
              org.apache.lucene.search.SortedNumericSelector.Type.MIN,
              down ? Double.NEGATIVE_INFINITY : Double.POSITIVE_INFINITY);
      case KEYWORD, BOOLEAN, TEXT ->
          new SortedSetSortField(
              order.field(),
              down,
              org.apache.lucene.search.SortedSetSelector.Type.MIN,
              down ? SortField.STRING_FIRST : SortField.STRING_LAST);
    };
  }

  SearchRequest request() {
    return request;
  }

  IndexSchema schema() {
    return schema;
  }

  /** Whether hits have scores of words. */
  boolean isScored() {
    return words.isPresent();
  }

  boolean hasVector() {
    return request.vector().length > 0;
  }

  /** Whether documents are ranked by words or by a sort, and not by their vectors alone. */
  boolean hasList() {
    return words.isPresent() || !hasVector();
  }

  boolean isFused() {
    return hasVector() && words.isPresent();
  }

  /** How many of each ranking a shard gives. */
  int depth() {
    return isFused() ? Math.max(4 * request.k(), FUSION_WINDOW_MIN) : request.k();
  }

  Sort sort() {
    return sort;
  }

  /** Whether a clause stands for many words, of which nobody knows how many there are. */
  boolean isExpanding() {
    boolean[] expanding = {false};
    words.ifPresent(
        query ->
            query.visit(
                new QueryVisitor() {
                  @Override
                  public void consumeTermsMatching(
                      Query each, String field, Supplier<ByteRunAutomaton> automaton) {
                    expanding[0] = true;
                  }
                }));
    return expanding[0];
  }

  /** Whether the list is in the order of its scores. */
  boolean isByScore() {
    return sort.equals(BY_SCORE);
  }

  Optional<List<Object>> after() {
    return after;
  }

  /** The words' query alone, for highlighting. */
  Optional<Query> words() {
    return words;
  }

  /** Words and filter. */
  Query listQuery() {
    if (filter.isEmpty()) {
      return words.orElse(MatchAllDocsQuery.INSTANCE);
    }
    BooleanQuery.Builder both = new BooleanQuery.Builder();
    words.ifPresent(query -> both.add(query, BooleanClause.Occur.MUST));
    return both.add(filter.get(), BooleanClause.Occur.FILTER).build();
  }

  /**
   * The nearest vectors among those that pass the filter. The graph is searched for more than are
   * asked, since it is approximate; quantised ones for more yet, and then compared in full.
   */
  Query vectorQuery() {
    boolean exact = isExact();
    int candidates = candidates();
    float[] vector = schema.comparable(request.vector());
    Query nearest =
        new KnnFloatVectorQuery(IndexSchema.VECTOR, vector, candidates, filter.orElse(null));
    return exact
        ? nearest
        : RescoreTopNQuery.createFullPrecisionRescorerQuery(
            nearest, vector, IndexSchema.VECTOR, candidates);
  }

  private boolean isExact() {
    return schema.settings().vectors().quantization() == IndexSettings.Quantization.FLOAT32;
  }

  /** How many nearest vectors are weighed. */
  int candidates() {
    int least = isExact() ? Math.max(2 * depth(), 64) : Math.max(4 * depth(), 100);
    return Math.min(
        SearchRequest.CANDIDATES_MAX,
        request.candidates() == 0 ? least : Math.max(request.candidates(), depth()));
  }

  /** The words whose frequencies the scores rest on. */
  Set<Term> terms() {
    Set<Term> terms = new HashSet<>();
    words.ifPresent(query -> query.visit(QueryVisitor.termCollector(terms)));
    return terms;
  }

  /** How hits of different shards stand to each other: as the sort says. */
  Comparator<SearchHits.ShardHit> order() {
    SortField[] keys = sort.getSort();
    return (left, right) -> {
      for (int i = 0; i < keys.length; i++) {
        int order = compare(keys[i], left.sort().get(i), right.sort().get(i));
        if (order != 0) {
          return order;
        }
      }
      return 0;
    };
  }

  private static int compare(SortField key, Object left, Object right) {
    if (left instanceof Missing || right instanceof Missing) {
      return Boolean.compare(left instanceof Missing, right instanceof Missing);
    }
    int order =
        switch (left) {
          case BytesRef text -> text.compareTo((BytesRef) right);
          case Long number -> number.compareTo((Long) right);
          case Double number -> number.compareTo((Double) right);
          case Float score -> ((Float) right).compareTo(score);
          default -> throw new IllegalStateException("sort value " + left.getClass());
        };
    return key.getReverse() ? -order : order;
  }

  /** Stands for no value in a sort by strings. */
  enum Missing {
    MISSING
  }

  /** A sort value as text, for the way between nodes and for {@code next}. */
  static String encode(Object value) {
    return switch (value) {
      case BytesRef text -> "s" + text.utf8ToString();
      case Long number -> "l" + number;
      case Double number -> "d" + Double.doubleToLongBits(number);
      case Float score -> "f" + Float.floatToIntBits(score);
      case Missing _ -> "m";
      default -> throw new IllegalStateException("sort value " + value.getClass());
    };
  }

  static Object decode(String text) {
    String rest = text.substring(1);
    return switch (text.charAt(0)) {
      case 's' -> new BytesRef(rest);
      case 'l' -> Long.parseLong(rest);
      case 'd' -> Double.longBitsToDouble(Long.parseLong(rest));
      case 'f' -> Float.intBitsToFloat(Integer.parseInt(rest));
      case 'm' -> Missing.MISSING;
      default -> throw new IllegalArgumentException("sort value of kind " + text.charAt(0));
    };
  }

  /** Where the next page starts: each value as text, behind its length. */
  static String next(List<Object> sortValues) {
    StringBuilder text = new StringBuilder();
    for (Object value : sortValues) {
      String one = encode(value);
      text.append(one.length()).append(':').append(one);
    }
    return Base64.getUrlEncoder()
        .withoutPadding()
        .encodeToString(text.toString().getBytes(StandardCharsets.UTF_8));
  }

  private static List<Object> after(String text, Sort sort) {
    try {
      List<Object> values = new ArrayList<>();
      String all = new String(Base64.getUrlDecoder().decode(text), StandardCharsets.UTF_8);
      int at = 0;
      while (at < all.length()) {
        int colon = all.indexOf(':', at);
        int end = colon + 1 + Integer.parseInt(all.substring(at, colon));
        values.add(decode(all.substring(colon + 1, end)));
        at = end;
      }
      if (values.size() == sort.getSort().length && fits(values, sort)) {
        return values;
      }
    } catch (IllegalArgumentException | StringIndexOutOfBoundsException e) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID,
        "search_after is not the next of an answer to this search",
        "Keep query, sort and filter the same from page to page.");
  }

  private static boolean fits(List<Object> values, Sort sort) {
    for (int i = 0; i < values.size(); i++) {
      SortField key = sort.getSort()[i];
      boolean fits =
          switch (values.get(i)) {
            case Float _ -> key.getType() == SortField.Type.SCORE;
            case BytesRef _, Missing _ ->
                key.getType() == SortField.Type.STRING || key instanceof SortedSetSortField;
            case Long _ ->
                key instanceof SortedNumericSortField numeric
                    && numeric.getNumericType() == SortField.Type.LONG;
            case Double _ ->
                key instanceof SortedNumericSortField numeric
                    && numeric.getNumericType() == SortField.Type.DOUBLE;
            default -> false;
          };
      if (!fits) {
        return false;
      }
    }
    return true;
  }
}
