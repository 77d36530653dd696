package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.time.Instant;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeParseException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Pattern;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.DelegatingAnalyzerWrapper;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.DoubleField;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.KeywordField;
import org.apache.lucene.document.KnnFloatVectorField;
import org.apache.lucene.document.LongField;
import org.apache.lucene.document.SortedDocValuesField;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.document.StringField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.VectorSimilarityFunction;
import org.apache.lucene.util.BytesRef;

/**
 * What the fields of an index mean, at one moment: types the values of documents and queries, and
 * makes the search library's documents.
 */
final class IndexSchema {

  /** The search library's fields of ours; users' names cannot be these. */
  static final String ID = "_id";

  static final String SOURCE = "_source";
  static final String TEXT = "text";
  static final String VECTOR = "vector";
  static final String SCORE = "_score";

  private static final Pattern FIELD_NAME = Pattern.compile("[A-Za-z][A-Za-z0-9_.-]{0,127}");
  private static final int KEYWORD_CHARACTERS_MAX = 8191;
  private static final int VALUES_MAX = 1000;

  private final IndexSettings settings;
  private final Analyzer analyzer;

  IndexSchema(IndexSettings settings) {
    this.settings = settings;
    this.analyzer =
        new DelegatingAnalyzerWrapper(Analyzer.PER_FIELD_REUSE_STRATEGY) {
          @Override
          protected Analyzer getWrappedAnalyzer(String field) {
            return SearchAnalyzers.of(analyzerOf(field));
          }
        };
  }

  IndexSettings settings() {
    return settings;
  }

  Analyzer analyzer() {
    return analyzer;
  }

  String analyzerOf(String field) {
    IndexField known = settings.fields().get(field);
    return known == null || known.analyzer().isEmpty() ? settings.analyzer() : known.analyzer();
  }

  static void checkFieldName(String name) {
    if (!FIELD_NAME.matcher(name).matches() || name.equals(TEXT) || name.equals(VECTOR)) {
      throw new FlotillaException(
          Code.INVALID,
          "field " + shown(name) + " cannot be called so",
          "A name has up to 128 letters, digits, _ . -, starts with a letter, and is not text or"
              + " vector.");
    }
  }

  private static String shown(String name) {
    return name.length() <= 64 ? "'" + name + "'" : "'" + name.substring(0, 64) + "…'";
  }

  /** A field by name, the documents' text among them. */
  Optional<IndexField> field(String name) {
    return name.equals(TEXT)
        ? Optional.of(new IndexField(IndexField.Type.TEXT))
        : Optional.ofNullable(settings.fields().get(name));
  }

  /**
   * The settings with what this document brings; the same object if that is nothing new.
   *
   * @throws FlotillaException {@code INVALID} naming the field that holds something else already
   */
  IndexSettings with(IndexDocument document) {
    Map<String, IndexField> fresh = new HashMap<>();
    for (Map.Entry<String, Object> entry : document.fields().entrySet()) {
      String name = entry.getKey();
      List<?> values = List.copyOf(IndexDocument.values(entry.getValue()));
      if (values.size() > VALUES_MAX) {
        throw wrong(document.id(), name, "has more than " + VALUES_MAX + " values");
      }
      IndexField known = settings.fields().get(name);
      if (known == null && !values.isEmpty()) {
        checkFieldName(name);
        known = new IndexField(typeOf(document.id(), name, values));
        fresh.put(name, known);
      }
      for (Object value : values) {
        var _ =
            normal(document.id(), name, known == null ? IndexField.Type.TEXT : known.type(), value);
      }
    }
    IndexSettings result = fresh.isEmpty() ? settings : settings.withFields(fresh);
    float[] vector = document.vector();
    if (vector.length > 0) {
      result = withVector(document.id(), vector, result);
    }
    return result;
  }

  private IndexSettings withVector(String id, float[] vector, IndexSettings soFar) {
    IndexSettings.Vectors kind = settings.vectors();
    if (kind.dimensions() != 0 && kind.dimensions() != vector.length) {
      throw wrong(
          id,
          VECTOR,
          "has "
              + vector.length
              + " dimensions, but this index's vectors have "
              + kind.dimensions());
    }
    if (vector.length > IndexSettings.DIMENSIONS_MAX) {
      throw wrong(id, VECTOR, "has more than " + IndexSettings.DIMENSIONS_MAX + " dimensions");
    }
    for (int i = 0; i < vector.length; i++) {
      if (!Float.isFinite(vector[i])) {
        throw wrong(id, VECTOR + "[" + i + "]", "is not a finite number");
      }
    }
    if (kind.similarity() == IndexSettings.Similarity.COSINE && isZero(vector)) {
      throw wrong(id, VECTOR, "is zero, which has no direction to compare");
    }
    return kind.dimensions() != 0
        ? soFar
        : soFar.withVectors(
            new IndexSettings.Vectors(vector.length, kind.similarity(), kind.quantization()));
  }

  private static boolean isZero(float[] vector) {
    for (float number : vector) {
      if (number != 0) {
        return false;
      }
    }
    return true;
  }

  private static FlotillaException wrong(String id, String field, String complaint) {
    return new FlotillaException(
        Code.INVALID, (id.isEmpty() ? "" : "document " + id + ": ") + field + " " + complaint, "");
  }

  private static IndexField.Type typeOf(String id, String name, List<?> values) {
    boolean fraction = values.stream().anyMatch(v -> v instanceof Double || v instanceof Float);
    return switch (values.getFirst()) {
      case String _ -> IndexField.Type.KEYWORD;
      case Boolean _ -> IndexField.Type.BOOLEAN;
      case Number _ -> fraction ? IndexField.Type.DOUBLE : IndexField.Type.LONG;
      default -> throw wrong(id, name, "holds a value of an unknown kind");
    };
  }

  /**
   * A value as its type keeps it: String, Long (dates in milliseconds) or Double.
   *
   * @param id of the document, for the error; empty in queries
   */
  static Object normal(String id, String name, IndexField.Type type, Object value) {
    return switch (type) {
      case TEXT -> {
        if (value instanceof String text) {
          yield text;
        }
        throw conflict(id, name, type, value);
      }
      case KEYWORD -> {
        if (!(value instanceof String text)) {
          throw conflict(id, name, type, value);
        }
        if (text.length() > KEYWORD_CHARACTERS_MAX) {
          throw wrong(
              id,
              name,
              "is a keyword of more than " + KEYWORD_CHARACTERS_MAX + " characters; make it text");
        }
        yield text;
      }
      case BOOLEAN -> {
        if (value instanceof Boolean flag) {
          yield flag.toString();
        }
        throw conflict(id, name, type, value);
      }
      case LONG -> {
        if (value instanceof Long || value instanceof Integer) {
          yield ((Number) value).longValue();
        }
        throw conflict(id, name, type, value);
      }
      case DOUBLE -> {
        if (value instanceof Number number && Double.isFinite(number.doubleValue())) {
          yield number.doubleValue();
        }
        throw conflict(id, name, type, value);
      }
      case DATE -> {
        if (value instanceof String text) {
          yield instant(id, name, text);
        }
        throw conflict(id, name, type, value);
      }
    };
  }

  private static FlotillaException conflict(
      String id, String name, IndexField.Type type, Object value) {
    return wrong(
        id,
        name,
        "holds "
            + type.name().toLowerCase(java.util.Locale.ROOT)
            + " in this index, not "
            + shown(String.valueOf(value)));
  }

  private static long instant(String id, String name, String text) {
    try {
      return text.length() == 10
          ? LocalDate.parse(text).atStartOfDay(ZoneOffset.UTC).toInstant().toEpochMilli()
          : text.endsWith("Z")
              ? Instant.parse(text).toEpochMilli()
              : OffsetDateTime.parse(text).toInstant().toEpochMilli();
    } catch (DateTimeParseException | ArithmeticException e) {
      throw wrong(id, name, "is not a date such as 2026-01-31T12:00:00Z: " + shown(text));
    }
  }

  /** Whether all of the document's fields have a type here. */
  boolean knows(IndexDocument document) {
    return settings.fields().keySet().containsAll(document.fields().keySet());
  }

  /** The search library's form; the document must have passed {@link #with}. */
  Document toLucene(IndexDocument document) {
    Document result = new Document();
    result.add(new StringField(ID, document.id(), Field.Store.YES));
    result.add(new SortedDocValuesField(ID, new BytesRef(document.id())));
    result.add(new StoredField(SOURCE, Json.write(document.sourceJson())));
    if (!document.text().isEmpty()) {
      result.add(new TextField(TEXT, document.text(), Field.Store.NO));
    }
    for (Map.Entry<String, Object> entry : document.fields().entrySet()) {
      IndexField field = settings.fields().get(entry.getKey());
      if (field == null) {
        continue; // An empty list: it has no type yet.
      }
      for (Object value : IndexDocument.values(entry.getValue())) {
        result.add(
            toLucene(
                entry.getKey(),
                field.type(),
                normal(document.id(), entry.getKey(), field.type(), value)));
      }
    }
    if (document.vector().length > 0) {
      result.add(
          new KnnFloatVectorField(VECTOR, comparable(document.vector()), similarityFunction()));
    }
    return result;
  }

  private static Field toLucene(String name, IndexField.Type type, Object value) {
    return switch (type) {
      case TEXT -> new TextField(name, (String) value, Field.Store.NO);
      case KEYWORD, BOOLEAN -> new KeywordField(name, (String) value, Field.Store.NO);
      case LONG, DATE -> new LongField(name, (Long) value, Field.Store.NO);
      case DOUBLE -> new DoubleField(name, (Double) value, Field.Store.NO);
    };
  }

  /**
   * Cosine is the inner product of vectors of length one: they are made so once, not compared so.
   */
  float[] comparable(float[] vector) {
    if (settings.vectors().similarity() != IndexSettings.Similarity.COSINE) {
      return vector;
    }
    double squares = 0;
    for (float number : vector) {
      squares += (double) number * number;
    }
    double length = Math.sqrt(squares);
    float[] unit = new float[vector.length];
    for (int i = 0; i < unit.length; i++) {
      unit[i] = (float) (vector[i] / length);
    }
    return unit;
  }

  VectorSimilarityFunction similarityFunction() {
    return switch (settings.vectors().similarity()) {
      case COSINE -> VectorSimilarityFunction.DOT_PRODUCT;
      case DOT -> VectorSimilarityFunction.MAXIMUM_INNER_PRODUCT;
      case EUCLIDEAN -> VectorSimilarityFunction.EUCLIDEAN;
    };
  }
}
