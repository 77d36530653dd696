package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.jobs.JobDefinition;
import dev.flotilla.data.jobs.TextLines;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchIndexes;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.function.BiConsumer;

/**
 * The job that embeds texts into a search index. A line is a text, or, if it begins with a brace, a
 * document as JSON: {@code {"id","text","fields"}}. A document without an id is named by the digest
 * of its text, so that equal lines are one, and a task that runs twice changes nothing.
 *
 * <p>Its rows are the numbers of {@code documents} and {@code tokens}, and of texts that are {@code
 * too_long} for the model, which are left out.
 */
final class EmbedJob implements JobDefinition {

  private static final int TOGETHER = 64;
  private static final int ID_CHARACTERS = 32;

  private final SearchIndexes indexes;
  private final TextVectors vectors;

  EmbedJob(SearchIndexes indexes, TextVectors vectors) {
    this.indexes = indexes;
    this.vectors = vectors;
  }

  @Override
  public String name() {
    return "embed";
  }

  @Override
  public String description() {
    return "Embeds each line, a text or a JSON document, into a search index; input: model, index,"
        + " and blob, cache or lines.";
  }

  @Override
  public List<Task> plan(Context context, JsonNode input) {
    TextLines.only(input, TextLines.FIELDS, "model", "index");
    String model = required(input, "model");
    String index = required(input, "index");
    indexes.index(index).name();
    open(model).close();
    List<Task> tasks = new ArrayList<>();
    for (Task task : TextLines.plan(context, input)) {
      ObjectNode payload = task.payload().deepCopy();
      payload.put("model", model).put("index", index);
      tasks.add(new Task(task.name(), payload, task.nodes(), task.bound()));
    }
    return tasks;
  }

  private static String required(JsonNode input, String name) {
    String value = input.path(name).asText();
    if (value.isEmpty() || !input.path(name).isTextual()) {
      throw new FlotillaException(
          Code.INVALID,
          "the job's input names no " + name,
          "Give {\"model\": …, \"index\": …} beside the texts.");
    }
    return value;
  }

  private ServedModel open(String model) {
    try {
      return vectors.open(model);
    } catch (ApiError e) {
      throw new FlotillaException(Code.INVALID, String.valueOf(e.getMessage()), "", e);
    }
  }

  @Override
  public void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
      throws InterruptedException {
    try (ServedModel model = open(payload.path("model").asText())) {
      Gathered gathered = new Gathered(model, indexes.index(payload.path("index").asText()), emit);
      TextLines.read(context, payload, gathered::line);
      gathered.store();
    }
  }

  @Override
  public JsonNode merge(JsonNode first, JsonNode second) {
    return number(first.asLong() + second.asLong());
  }

  private static JsonNode number(long value) {
    return Json.MAPPER.getNodeFactory().numberNode(value);
  }

  /** Documents that wait to be embedded and stored together. */
  private final class Gathered {
    private final ServedModel model;
    private final SearchIndex index;
    private final BiConsumer<String, JsonNode> emit;
    private final List<IndexDocument> documents = new ArrayList<>();
    private final List<int[]> texts = new ArrayList<>();

    Gathered(ServedModel model, SearchIndex index, BiConsumer<String, JsonNode> emit) {
      this.model = model;
      this.index = index;
      this.emit = emit;
    }

    void line(String place, String line) throws InterruptedException {
      if (line.isBlank()) {
        return;
      }
      IndexDocument document = document(place, line);
      try {
        texts.add(TextVectors.tokens(model, document.text()));
      } catch (FlotillaException e) {
        if (e.code() == Code.TOO_LARGE) {
          emit.accept("too_long", number(1));
          return;
        }
        throw new FlotillaException(
            e.code(), "the line at " + place + ": " + e.getMessage(), e.remedy(), e);
      }
      documents.add(document);
      if (documents.size() == TOGETHER) {
        store();
      }
    }

    void store() throws InterruptedException {
      if (documents.isEmpty()) {
        return;
      }
      List<float[]> embedded;
      try {
        embedded = vectors.embed(model, texts);
      } catch (ApiError e) {
        throw new FlotillaException(Code.INVALID, String.valueOf(e.getMessage()), "", e);
      }
      List<IndexDocument> complete = new ArrayList<>();
      for (int i = 0; i < embedded.size(); i++) {
        complete.add(documents.get(i).withVector(embedded.get(i)));
      }
      var _ = index.put(complete, Visibility.DURABLE);
      emit.accept("documents", number(documents.size()));
      emit.accept("tokens", number(texts.stream().mapToLong(text -> text.length).sum()));
      documents.clear();
      texts.clear();
    }
  }

  private static IndexDocument document(String place, String line) {
    if (!line.stripLeading().startsWith("{")) {
      return IndexDocument.ofText(id(line), line);
    }
    try {
      ObjectNode json = Json.read(line.getBytes(StandardCharsets.UTF_8), ObjectNode.class);
      JsonNode id = json.remove("id");
      IndexDocument document = IndexDocument.fromJson("none", json);
      return new IndexDocument(
          id == null ? id(document.text()) : id.asText(),
          document.text(),
          document.vector(),
          document.fields());
    } catch (FlotillaException e) {
      throw new FlotillaException(
          Code.INVALID,
          "the line at " + place + " is not a document: " + e.getMessage(),
          "Give texts, or objects with id, text and fields.",
          e);
    }
  }

  private static String id(String text) {
    try {
      return HexFormat.of()
          .formatHex(
              MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8)))
          .substring(0, ID_CHARACTERS);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }
}
