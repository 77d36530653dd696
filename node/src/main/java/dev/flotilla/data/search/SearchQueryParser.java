package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.document.DoubleField;
import org.apache.lucene.document.KeywordField;
import org.apache.lucene.document.LongField;
import org.apache.lucene.index.Term;
import org.apache.lucene.queryparser.classic.ParseException;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.queryparser.classic.TokenMgrError;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.BoostQuery;
import org.apache.lucene.search.FuzzyQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.MultiTermQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.TermRangeQuery;
import org.apache.lucene.util.QueryBuilder;
import org.apache.lucene.util.automaton.TooComplexToDeterminizeException;
import org.jspecify.annotations.Nullable;

/**
 * The search library's query syntax over typed fields, with bounds: words without a field go to the
 * default fields; numbers, dates and keywords are compared, not analysed.
 *
 * <p>Words that stand for many (wildcards, regular expressions, fuzzy ones) score the same on every
 * shard, whatever words the shard holds: by a constant, or by their distance alone.
 */
final class SearchQueryParser extends QueryParser {

  private static final int DEPTH_MAX = 32;
  private static final int EXPANDING_MAX = 16;
  private static final int PATTERN_CHARACTERS_MAX = 256;
  private static final int FUZZY_WORDS_MAX = 50;
  private static final String DEFAULT = "";
  private static final Pattern COLUMN = Pattern.compile("column (\\d+)");

  private final Function<String, Optional<IndexField>> fields;
  private final Map<String, Float> defaults;
  private int expanding;

  /**
   * @param fields what each field is
   * @param defaults text fields, with weights, for words without a field
   */
  SearchQueryParser(
      Function<String, Optional<IndexField>> fields,
      Map<String, Float> defaults,
      Analyzer analyzer) {
    super(DEFAULT, analyzer);
    this.fields = fields;
    this.defaults = defaults;
    setAllowLeadingWildcard(false);
    setSplitOnWhitespace(true);
    setMultiTermRewriteMethod(MultiTermQuery.CONSTANT_SCORE_BLENDED_REWRITE);
  }

  /**
   * Reads a query.
   *
   * @throws FlotillaException {@code INVALID} with the place, {@code TOO_LARGE} for too many
   *     clauses
   */
  Query read(String query) {
    checkDepth(query);
    try {
      return parse(withoutQuestionMarks(query));
    } catch (ParseException e) {
      if (e.getCause() instanceof IndexSearcher.TooManyClauses) {
        throw tooMany();
      }
      throw malformed(query, e);
    } catch (IndexSearcher.TooManyClauses e) {
      throw tooMany();
    } catch (TooComplexToDeterminizeException e) {
      throw new FlotillaException(
          Code.INVALID, "the query's pattern is too complex" + here(), "Use a simpler one.", e);
    } catch (IllegalArgumentException e) {
      throw new FlotillaException(
          Code.INVALID, "the query is malformed" + here() + ": " + e.getMessage(), "", e);
    }
  }

  /** All words, none of them a sign of the syntax; any may match. */
  Query plain(String words) {
    List<Query> all = new ArrayList<>();
    QueryBuilder builder = new QueryBuilder(getAnalyzer());
    try {
      for (Map.Entry<String, Float> field : defaults.entrySet()) {
        Query one = builder.createBooleanQuery(field.getKey(), words, BooleanClause.Occur.SHOULD);
        if (one != null) {
          all.add(weighted(one, field.getValue()));
        }
      }
    } catch (IndexSearcher.TooManyClauses e) {
      throw tooMany();
    }
    return any(all);
  }

  private static FlotillaException tooMany() {
    return new FlotillaException(
        Code.TOO_LARGE,
        "the query has more than " + IndexSearcher.getMaxClauseCount() + " words or clauses",
        "Ask with fewer words.");
  }

  /** A question mark at the end of a word ends a question; elsewhere it stands for a character. */
  private static String withoutQuestionMarks(String query) {
    if (query.indexOf('?') < 0 || query.indexOf('/') >= 0) {
      return query;
    }
    StringBuilder result = new StringBuilder(query);
    for (int i = 1; i < query.length(); i++) {
      boolean last = i + 1 == query.length() || Character.isWhitespace(query.charAt(i + 1));
      if (query.charAt(i) == '?' && last && query.charAt(i - 1) != '\\') {
        result.setCharAt(i, ' ');
      }
    }
    return result.toString();
  }

  /** The parser calls itself at each parenthesis. */
  private static void checkDepth(String query) {
    int depth = 0;
    for (int i = 0; i < query.length(); i++) {
      char c = query.charAt(i);
      if (c == '\\') {
        i++;
      } else if (c == '(' && ++depth > DEPTH_MAX) {
        throw new FlotillaException(
            Code.INVALID,
            "the query is nested more than " + DEPTH_MAX + " deep at character " + (i + 1),
            "");
      } else if (c == ')') {
        depth--;
      }
    }
  }

  private static FlotillaException malformed(String query, ParseException e) {
    int position = query.length();
    String found = "";
    if (e.getCause() instanceof ParseException inner
        && inner.currentToken != null
        && inner.currentToken.next != null) {
      position = inner.currentToken.next.beginColumn;
      found = inner.currentToken.next.image;
    } else if (e.getCause() instanceof TokenMgrError) {
      Matcher column = COLUMN.matcher(String.valueOf(e.getCause().getMessage()));
      if (column.find()) {
        position = Integer.parseInt(column.group(1));
      }
    } else if (e.getCause() == null) {
      return new FlotillaException(
          Code.INVALID,
          "the query is malformed: "
              + String.valueOf(e.getMessage()).lines().findFirst().orElse(""),
          "",
          e);
    }
    String what =
        position >= query.length() || found.isEmpty()
            ? "it ends too early"
            : "'" + found + "' does not belong there";
    return new FlotillaException(
        Code.INVALID,
        "the query is malformed at character "
            + (Math.min(position, query.length()) + 1)
            + ": "
            + what,
        "Quote it, put \\ before signs, or ask with syntax plain.",
        e);
  }

  /** Where the parser stands, for what only the fields' types tell. */
  private String here() {
    return token == null ? "" : " at character " + (token.beginColumn + 1);
  }

  private IndexField known(String name) {
    return fields
        .apply(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.INVALID,
                    "the query asks for field '"
                        + name
                        + "'"
                        + here()
                        + ", which is not in this index",
                    "Put \\ before a colon that is text, or ask with syntax plain."));
  }

  private interface OneField {
    @Nullable Query of(String field) throws ParseException;
  }

  /** In the field, or in each default field by its weight. */
  private @Nullable Query in(String field, OneField query) throws ParseException {
    if (!field.equals(DEFAULT)) {
      return query.of(field);
    }
    List<Query> all = new ArrayList<>();
    for (Map.Entry<String, Float> each : defaults.entrySet()) {
      Query one = query.of(each.getKey());
      if (one != null) {
        all.add(weighted(one, each.getValue()));
      }
    }
    // Nothing but stop words: the clause is left out, as the library does.
    return all.isEmpty() ? null : any(all);
  }

  private static Query weighted(Query query, float weight) {
    return weight == 1 ? query : new BoostQuery(query, weight);
  }

  private static Query any(List<Query> queries) {
    if (queries.isEmpty()) {
      return MatchNoDocsQuery.INSTANCE;
    }
    if (queries.size() == 1) {
      return queries.getFirst();
    }
    BooleanQuery.Builder builder = new BooleanQuery.Builder();
    queries.forEach(query -> builder.add(query, BooleanClause.Occur.SHOULD));
    return builder.build();
  }

  @Override
  protected @Nullable Query getFieldQuery(String field, String text, boolean quoted)
      throws ParseException {
    return in(
        field,
        name -> {
          IndexField.Type type = known(name).type();
          return type == IndexField.Type.TEXT
              ? super.getFieldQuery(name, text, quoted)
              : exact(name, type, List.of(ofText(name, type, text)));
        });
  }

  @Override
  protected @Nullable Query getFieldQuery(String field, String text, int slop)
      throws ParseException {
    return in(
        field,
        name ->
            known(name).type() == IndexField.Type.TEXT
                ? super.getFieldQuery(name, text, slop)
                : getFieldQuery(name, text, true));
  }

  @Override
  protected @Nullable Query getRangeQuery(
      String field, String least, String most, boolean leastIncluded, boolean mostIncluded)
      throws ParseException {
    return in(
        field,
        name -> {
          IndexField.Type type = known(name).type();
          return range(
              name,
              type,
              Optional.ofNullable(least).map(text -> ofText(name, type, text)),
              leastIncluded,
              Optional.ofNullable(most).map(text -> ofText(name, type, text)),
              mostIncluded);
        });
  }

  @Override
  protected @Nullable Query getWildcardQuery(String field, String pattern) throws ParseException {
    if (pattern.equals("*")) {
      return field.equals("*") || field.equals(DEFAULT)
          ? newMatchAllDocsQuery()
          : exists(field, known(field).type());
    }
    return in(field, name -> super.getWildcardQuery(expandable(name, pattern), pattern));
  }

  @Override
  protected @Nullable Query getPrefixQuery(String field, String prefix) throws ParseException {
    return in(field, name -> super.getPrefixQuery(expandable(name, prefix), prefix));
  }

  @Override
  protected @Nullable Query getRegexpQuery(String field, String pattern) throws ParseException {
    return in(field, name -> super.getRegexpQuery(expandable(name, pattern), pattern));
  }

  @Override
  protected @Nullable Query getFuzzyQuery(String field, String word, float similarity)
      throws ParseException {
    return in(field, name -> super.getFuzzyQuery(expandable(name, word), word, similarity));
  }

  @Override
  protected Query newFuzzyQuery(Term term, float minimumSimilarity, int prefixLength) {
    int edits =
        FuzzyQuery.floatToEdits(
            minimumSimilarity, term.text().codePointCount(0, term.text().length()));
    return new FuzzyQuery(
        term,
        edits,
        Math.max(1, prefixLength),
        FUZZY_WORDS_MAX,
        true,
        new MultiTermQuery.TopTermsBoostOnlyBooleanQueryRewrite(FUZZY_WORDS_MAX));
  }

  /** Checks what stands for many words, and counts it. */
  private String expandable(String field, String pattern) {
    IndexField.Type type = known(field).type();
    if (type != IndexField.Type.TEXT && type != IndexField.Type.KEYWORD) {
      throw new FlotillaException(
          Code.INVALID,
          "the query asks for a pattern"
              + here()
              + " in field '"
              + field
              + "', which holds no words",
          "");
    }
    if (pattern.length() > PATTERN_CHARACTERS_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the query's pattern"
              + here()
              + " is longer than "
              + PATTERN_CHARACTERS_MAX
              + " characters",
          "");
    }
    if (++expanding > EXPANDING_MAX * Math.max(1, defaults.size())) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the query has more than " + EXPANDING_MAX + " patterns",
          "Ask with fewer wildcards, regular expressions and fuzzy words.");
    }
    return field;
  }

  /** A word of a query as its field's type keeps it. */
  private Object ofText(String name, IndexField.Type type, String text) {
    try {
      return switch (type) {
        case LONG -> Long.parseLong(text);
        case DOUBLE -> IndexSchema.normal("", name, type, Double.parseDouble(text));
        case BOOLEAN -> IndexSchema.normal("", name, type, flag(text));
        default -> IndexSchema.normal("", name, type, text);
      };
    } catch (FlotillaException e) {
      throw new FlotillaException(
          Code.INVALID, "the query's " + e.getMessage() + here(), e.remedy(), e);
    } catch (NumberFormatException e) {
      throw new FlotillaException(
          Code.INVALID,
          "the query compares field '"
              + name
              + "'"
              + here()
              + " with '"
              + text
              + "', which is not a "
              + type.name().toLowerCase(Locale.ROOT),
          "",
          e);
    }
  }

  private static Object flag(String text) {
    return switch (text.toLowerCase(Locale.ROOT)) {
      case "true" -> true;
      case "false" -> false;
      default -> text;
    };
  }

  /** One of these values, which have the form of {@link IndexSchema#normal}. */
  static Query exact(String field, IndexField.Type type, List<Object> values) {
    if (values.isEmpty()) {
      return MatchNoDocsQuery.INSTANCE;
    }
    return switch (type) {
      case LONG, DATE ->
          LongField.newSetQuery(field, values.stream().mapToLong(v -> (Long) v).toArray());
      case DOUBLE ->
          DoubleField.newSetQuery(field, values.stream().mapToDouble(v -> (Double) v).toArray());
      case KEYWORD, BOOLEAN, TEXT ->
          KeywordField.newSetQuery(
              field,
              values.stream().map(v -> new org.apache.lucene.util.BytesRef((String) v)).toList());
    };
  }

  /** Between bounds of the form of {@link IndexSchema#normal}. */
  static Query range(
      String field,
      IndexField.Type type,
      Optional<Object> least,
      boolean leastIncluded,
      Optional<Object> most,
      boolean mostIncluded) {
    return switch (type) {
      case LONG, DATE -> {
        long low = least.map(v -> (Long) v).orElse(Long.MIN_VALUE);
        long high = most.map(v -> (Long) v).orElse(Long.MAX_VALUE);
        boolean empty =
            (least.isPresent() && !leastIncluded && low == Long.MAX_VALUE)
                || (most.isPresent() && !mostIncluded && high == Long.MIN_VALUE);
        yield empty
            ? MatchNoDocsQuery.INSTANCE
            : LongField.newRangeQuery(
                field,
                least.isPresent() && !leastIncluded ? low + 1 : low,
                most.isPresent() && !mostIncluded ? high - 1 : high);
      }
      case DOUBLE -> {
        double low = least.map(v -> (Double) v).orElse(Double.NEGATIVE_INFINITY);
        double high = most.map(v -> (Double) v).orElse(Double.POSITIVE_INFINITY);
        yield DoubleField.newRangeQuery(
            field,
            least.isPresent() && !leastIncluded ? Math.nextUp(low) : low,
            most.isPresent() && !mostIncluded ? Math.nextDown(high) : high);
      }
      case KEYWORD, BOOLEAN, TEXT ->
          TermRangeQuery.newStringRange(
              field,
              least.map(v -> (String) v).orElse(null),
              most.map(v -> (String) v).orElse(null),
              leastIncluded,
              mostIncluded);
    };
  }

  /** The field has a value. */
  static Query exists(String field, IndexField.Type type) {
    // Norms for text, columns for all others: the library knows either.
    assert type != null;
    return new org.apache.lucene.search.FieldExistsQuery(field);
  }
}
