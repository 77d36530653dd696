package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;

/**
 * What is searched for. Words alone rank by BM25; a vector alone by nearness; both together by
 * reciprocal rank fusion; neither takes all that pass the filter.
 *
 * <p>As JSON {@code {"query","vector","k","filter","syntax","search_fields","sort","search_after",
 * "highlight","return_fields","candidates","timeout_ms","allow_stale"}}; all may be left out.
 *
 * @param query words, in the syntax below; at most 10,000 characters
 * @param vector of the index's dimensions; empty for none
 * @param k how many hits, 1 to 1,000
 * @param syntax how the query is read
 * @param searchFields text fields in which words without a field are looked for, each as {@code
 *     name} or {@code name^weight}; empty means the documents' {@code text}
 * @param sort what orders the hits instead of the score; equal ones are ordered by id
 * @param searchAfter the {@code next} of the answer before, for the next page; empty for the first
 * @param highlight fields whose matches are shown, {@code text} for the text
 * @param returnFields what a hit shows of the document's fields ({@code text} for its text); empty
 *     means all
 * @param candidates how many nearest vectors each shard weighs, k to 10,000; 0 chooses
 * @param timeoutMs when to stop and answer with what is there, 1 to 60,000
 * @param allowStale whether a node that sees no majority may answer, marked; otherwise it refuses
 */
public record SearchRequest(
    String query,
    float[] vector,
    int k,
    Optional<SearchFilter> filter,
    Syntax syntax,
    List<String> searchFields,
    List<Order> sort,
    String searchAfter,
    List<String> highlight,
    List<String> returnFields,
    int candidates,
    int timeoutMs,
    boolean allowStale) {

  /** How a query is read. */
  public enum Syntax {
    /**
     * Lucene's: {@code field:word}, {@code "a phrase"~2}, {@code +must -not}, {@code AND OR NOT},
     * {@code (groups)}, {@code wild*}, {@code fuzzy~1}, {@code /regex/}, {@code [a TO b]}, {@code
     * word^2}.
     */
    LUCENE,
    /** Words and nothing else, whatever signs they hold; any of them may match. */
    PLAIN
  }

  /** One key of an order. Documents without the field come last. */
  public record Order(String field, boolean descending) {}

  static final int QUERY_CHARACTERS_MAX = 10_000;
  static final int K_MAX = 1_000;
  static final int CANDIDATES_MAX = 10_000;
  private static final int KEYS_MAX = 8;
  private static final int NAMES_MAX = 64;

  /** Checks the bounds. */
  public SearchRequest {
    within("k", k, 1, K_MAX);
    within("candidates", candidates, 0, CANDIDATES_MAX);
    within("timeout_ms", timeoutMs, 1, 60_000);
    within("the number of sort keys", sort.size(), 0, KEYS_MAX);
    within("the number of search_fields", searchFields.size(), 0, NAMES_MAX);
    within("the number of highlight fields", highlight.size(), 0, NAMES_MAX);
    within("the number of return_fields", returnFields.size(), 0, NAMES_MAX);
    if (query.length() > QUERY_CHARACTERS_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the query has " + query.length() + " characters, more than " + QUERY_CHARACTERS_MAX,
          "Ask with fewer words.");
    }
    if (candidates != 0 && candidates < k) {
      throw new FlotillaException(Code.INVALID, "candidates must not be less than k", "");
    }
    for (int i = 0; i < vector.length; i++) {
      if (!Float.isFinite(vector[i])) {
        throw new FlotillaException(Code.INVALID, "vector[" + i + "] is not a finite number", "");
      }
    }
    if (vector.length > 0 && !(sort.isEmpty() && searchAfter.isEmpty())) {
      throw new FlotillaException(
          Code.INVALID,
          "a search by vector has no sort and no search_after",
          "Ask for more with k.");
    }
    searchFields = List.copyOf(searchFields);
    sort = List.copyOf(sort);
    highlight = List.copyOf(highlight);
    returnFields = List.copyOf(returnFields);
  }

  private static void within(String name, int value, int least, int most) {
    if (value < least || value > most) {
      throw new FlotillaException(
          Code.INVALID, name + " must be from " + least + " to " + most + ", not " + value, "");
    }
  }

  private static final SearchRequest ALL =
      new SearchRequest(
          "",
          new float[0],
          10,
          Optional.empty(),
          Syntax.LUCENE,
          List.of(),
          List.of(),
          "",
          List.of(),
          List.of(),
          0,
          10_000,
          true);

  /** Everything. */
  public static SearchRequest all() {
    return ALL;
  }

  /** By words. */
  public static SearchRequest of(String query) {
    return ALL.withQuery(query);
  }

  /** By nearness. */
  public static SearchRequest of(float[] vector) {
    return ALL.withVector(vector);
  }

  /** A request in the making: what the next one does not change stays. */
  private static final class Draft {
    private String query;
    private float[] vector;
    private int k;
    private Optional<SearchFilter> filter;
    private Syntax syntax;
    private List<String> searchFields;
    private List<Order> sort;
    private String searchAfter;
    private List<String> highlight;
    private int candidates;

    Draft(SearchRequest from) {
      query = from.query;
      vector = from.vector;
      k = from.k;
      filter = from.filter;
      syntax = from.syntax;
      searchFields = from.searchFields;
      sort = from.sort;
      searchAfter = from.searchAfter;
      highlight = from.highlight;
      candidates = from.candidates;
    }
  }

  private SearchRequest but(Consumer<Draft> change) {
    Draft draft = new Draft(this);
    change.accept(draft);
    return new SearchRequest(
        draft.query,
        draft.vector,
        draft.k,
        draft.filter,
        draft.syntax,
        draft.searchFields,
        draft.sort,
        draft.searchAfter,
        draft.highlight,
        returnFields,
        draft.candidates,
        timeoutMs,
        allowStale);
  }

  /** The same by these words. */
  public SearchRequest withQuery(String other) {
    return but(draft -> draft.query = other);
  }

  /** The same by this vector. */
  public SearchRequest withVector(float[] other) {
    return but(draft -> draft.vector = other);
  }

  /** The same for so many hits. */
  public SearchRequest withK(int other) {
    return but(draft -> draft.k = other);
  }

  /** The same among these. */
  public SearchRequest withFilter(SearchFilter other) {
    return but(draft -> draft.filter = Optional.of(other));
  }

  /** The same with the query read so. */
  public SearchRequest withSyntax(Syntax other) {
    return but(draft -> draft.syntax = other);
  }

  /** The same in these fields. */
  public SearchRequest withSearchFields(String... fields) {
    return but(draft -> draft.searchFields = List.of(fields));
  }

  /** The same in this order. */
  public SearchRequest withSort(Order... keys) {
    return but(draft -> draft.sort = List.of(keys));
  }

  /** The next page. */
  public SearchRequest after(String next) {
    return but(draft -> draft.searchAfter = next);
  }

  /** The same with matches shown in these. */
  public SearchRequest withHighlight(String... fields) {
    return but(draft -> draft.highlight = List.of(fields));
  }

  /** The same with so many nearest weighed on each shard. */
  public SearchRequest withCandidates(int other) {
    return but(draft -> draft.candidates = other);
  }

  /** In the form above. */
  public ObjectNode toJson() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("query", query);
    if (vector.length > 0) {
      ArrayNode numbers = json.putArray("vector");
      for (float number : vector) {
        numbers.add(number);
      }
    }
    json.put("k", k);
    filter.ifPresent(value -> json.set("filter", value.toJson()));
    json.put("syntax", syntax == Syntax.LUCENE ? "lucene" : "plain");
    put(json, "search_fields", searchFields);
    ArrayNode keys = json.putArray("sort");
    for (Order order : sort) {
      keys.addObject().put("field", order.field).put("order", order.descending ? "desc" : "asc");
    }
    json.put("search_after", searchAfter);
    put(json, "highlight", highlight);
    put(json, "return_fields", returnFields);
    json.put("candidates", candidates).put("timeout_ms", timeoutMs).put("allow_stale", allowStale);
    return json;
  }

  private static void put(ObjectNode json, String name, List<String> texts) {
    ArrayNode array = json.putArray(name);
    texts.forEach(array::add);
  }

  private enum Direction {
    ASC,
    DESC
  }

  /**
   * The inverse.
   *
   * @throws FlotillaException {@code INVALID} naming what is wrong
   */
  public static SearchRequest fromJson(JsonNode json) {
    SearchJson at = SearchJson.of(json, "");
    at.only(
        "query",
        "vector",
        "k",
        "filter",
        "syntax",
        "search_fields",
        "sort",
        "search_after",
        "highlight",
        "return_fields",
        "candidates",
        "timeout_ms",
        "allow_stale");
    List<Order> sort = new ArrayList<>();
    at.value("sort")
        .ifPresent(
            keys -> {
              if (!keys.isArray()) {
                throw at.wrong("sort", "must be an array of {\"field\", \"order\"}");
              }
              for (JsonNode key : keys) {
                SearchJson one = SearchJson.of(key, "sort[" + sort.size() + "]");
                one.only("field", "order");
                sort.add(
                    new Order(
                        one.text("field").orElseThrow(() -> one.wrong("field", "is required")),
                        one.choice("order", Direction.class).orElse(Direction.ASC)
                            == Direction.DESC));
              }
            });
    return new SearchRequest(
        at.text("query").orElse(""),
        at.vector("vector"),
        at.integer("k", ALL.k, 1, K_MAX),
        at.value("filter").map(SearchFilter::fromJson),
        at.choice("syntax", Syntax.class).orElse(ALL.syntax),
        at.texts("search_fields"),
        sort,
        at.text("search_after").orElse(""),
        at.texts("highlight"),
        at.texts("return_fields"),
        at.integer("candidates", 0, 0, CANDIDATES_MAX),
        at.integer("timeout_ms", ALL.timeoutMs, 1, 60_000),
        at.flag("allow_stale", ALL.allowStale));
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof SearchRequest that && toJson().equals(that.toJson());
  }

  @Override
  public int hashCode() {
    return Objects.hash(query, Arrays.hashCode(vector), k, filter, sort);
  }
}
