package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.HttpSearchIndexes;
import dev.flotilla.client.Models;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.IndexSettings;
import dev.flotilla.data.search.SearchAnswer;
import dev.flotilla.data.search.SearchFilter;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchRequest;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/**
 * Searches an index, and keeps indexes. A word that is the name of a subcommand is searched for
 * after {@code --}.
 */
@Command(
    name = "search",
    description = "Search an index, or keep indexes.",
    mixinStandardHelpOptions = true,
    subcommands = {
      SearchCommand.Put.class,
      SearchCommand.Create.class,
      SearchCommand.Remove.class,
      SearchCommand.Stats.class
    })
final class SearchCommand extends ClientCommand {

  @Parameters(index = "0", paramLabel = "INDEX", description = "The index's name.", arity = "0..1")
  private String index = "";

  @Parameters(
      index = "1..*",
      paramLabel = "QUERY",
      description = "Words, in Lucene's syntax unless --plain; none for all documents.")
  private List<String> query = List.of();

  @Option(names = "-k", paramLabel = "K", defaultValue = "10", description = "How many hits.")
  private int k;

  @Option(
      names = "--filter",
      paramLabel = "JSON",
      description = "Only documents that pass, such as {\"year\": {\"gte\": 1990}}.")
  private Optional<String> filter = Optional.empty();

  @Option(
      names = "--vector",
      paramLabel = "NUMBERS",
      description = "Nearest to this vector, its numbers separated by commas.")
  private Optional<String> vector = Optional.empty();

  @Option(
      names = "--embed",
      paramLabel = "MODEL",
      description = "Nearest to the query's vector, too, as this model embeds it.")
  private Optional<String> embed = Optional.empty();

  @Option(names = "--plain", description = "Take the query as words, whatever signs it holds.")
  private boolean plain;

  @Override
  public Integer call() {
    if (index.isEmpty()) {
      throw new FlotillaException(
          Code.INVALID, "name an index", "Say flotilla search INDEX QUERY; see --help.");
    }
    SearchRequest request =
        SearchRequest.of(String.join(" ", query))
            .withK(k)
            .withHighlight("text")
            .withSyntax(plain ? SearchRequest.Syntax.PLAIN : SearchRequest.Syntax.LUCENE);
    if (filter.isPresent()) {
      request = request.withFilter(SearchFilter.fromJson(parse("--filter", filter.get())));
    }
    if (vector.isPresent()) {
      request = request.withVector(numbers(vector.get()));
    }
    if (embed.isPresent()) {
      List<String> text = List.of(String.join(" ", query));
      request = request.withVector(new Models(client()).embed(embed.get(), text).getFirst());
    }
    SearchAnswer answer = new HttpSearchIndexes(client()).index(index).search(request);
    return asJson ? print(answer.toJson()) : print(answer);
  }

  private int print(SearchAnswer answer) {
    List<List<String>> rows = new ArrayList<>();
    for (SearchAnswer.Hit hit : answer.hits()) {
      String text = hit.highlights().getOrDefault("text", hit.text()).replaceAll("\\s+", " ");
      rows.add(
          List.of(
              hit.id(),
              String.format("%.4f", hit.score()),
              text.length() > 100 ? text.substring(0, 100) + "…" : text));
    }
    table(List.of("ID", "SCORE", "TEXT"), rows);
    if (answer.partial()) {
      System.err.println(
          "partial: "
              + (answer.timedOut() ? "time ran out" : "no replica answered of shards ")
              + answer.missingShards());
    }
    if (answer.stale()) {
      System.err.println("stale: the node that answered sees no majority of the cluster");
    }
    return 0;
  }

  private static JsonNode parse(String what, String json) {
    try {
      return Json.MAPPER.readTree(json);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.INVALID, what + " is not JSON: " + e.getMessage(), "Quote it for the shell.", e);
    }
  }

  private static float[] numbers(String list) {
    String[] parts = list.split(",", -1);
    float[] numbers = new float[parts.length];
    for (int i = 0; i < parts.length; i++) {
      try {
        numbers[i] = Float.parseFloat(parts[i].strip());
      } catch (NumberFormatException e) {
        throw new FlotillaException(
            Code.INVALID, "--vector: '" + parts[i] + "' is not a number", "", e);
      }
    }
    return numbers;
  }

  /** Stores documents. */
  @Command(
      name = "put",
      description = "Store one document, or those of a file of JSON lines.",
      mixinStandardHelpOptions = true)
  static final class Put extends ClientCommand {

    private static final int BATCH_BYTES = 2 << 20;
    private static final int BATCH = 1000;

    @Parameters(paramLabel = "INDEX", description = "The index; made if it is not there.")
    private String index = "";

    @ArgGroup(multiplicity = "1")
    private What what = new What();

    /** Either one document, or a file of them. */
    static final class What {
      @Option(
          names = "--file",
          paramLabel = "FILE",
          description = "Lines of {\"id\",\"text\",\"vector\",\"fields\"}.")
      private Optional<Path> file = Optional.empty();

      @Option(names = "--id", paramLabel = "ID", description = "The document's id.")
      private Optional<String> id = Optional.empty();
    }

    @Option(names = "--text", paramLabel = "TEXT", defaultValue = "", description = "Its text.")
    private String text = "";

    @Option(names = "--fields", paramLabel = "JSON", description = "Its fields, an object.")
    private Optional<String> fields = Optional.empty();

    @Option(names = "--vector", paramLabel = "NUMBERS", description = "Its vector, with commas.")
    private Optional<String> vector = Optional.empty();

    @Option(names = "--refresh", description = "Wait until they can be found.")
    private boolean refresh;

    @Override
    public Integer call() throws IOException {
      SearchIndex target = new HttpSearchIndexes(client()).index(index);
      Visibility visibility = refresh ? Visibility.SEARCHABLE : Visibility.DURABLE;
      long stored =
          what.file.isPresent()
              ? putFile(target, what.file.get(), visibility)
              : target.put(List.of(document()), visibility).size();
      System.out.println(asJson ? json(Map.of("stored", stored)) : "stored " + stored);
      return 0;
    }

    private IndexDocument document() {
      var body = Json.MAPPER.createObjectNode().put("text", text);
      fields.ifPresent(json -> body.set("fields", parse("--fields", json)));
      IndexDocument document = IndexDocument.fromJson(what.id.orElseThrow(), body);
      return vector.map(list -> document.withVector(numbers(list))).orElse(document);
    }

    private static long putFile(SearchIndex target, Path file, Visibility visibility)
        throws IOException {
      List<IndexDocument> batch = new ArrayList<>();
      long stored = 0;
      int bytes = 0;
      int number = 0;
      try (BufferedReader lines = Files.newBufferedReader(file)) {
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
          number++;
          if (line.isBlank()) {
            continue;
          }
          batch.add(document(file, number, line));
          bytes += line.length();
          if (batch.size() == BATCH || bytes > BATCH_BYTES) {
            stored += target.put(batch, Visibility.DURABLE).size();
            batch.clear();
            bytes = 0;
          }
        }
      } catch (java.nio.file.NoSuchFileException e) {
        throw new FlotillaException(Code.NOT_FOUND, "there is no file " + file, "", e);
      }
      return batch.isEmpty() ? stored : stored + target.put(batch, visibility).size();
    }

    private static IndexDocument document(Path file, int number, String line) {
      String at = file + ", line " + number;
      JsonNode json = parse(at, line);
      if (!(json instanceof com.fasterxml.jackson.databind.node.ObjectNode object)
          || !object.path("id").isTextual()) {
        throw new FlotillaException(
            Code.INVALID, at + ": no id", "Each line is {\"id\",\"text\",\"vector\",\"fields\"}.");
      }
      String id = object.remove("id").textValue();
      try {
        return IndexDocument.fromJson(id, object);
      } catch (FlotillaException e) {
        throw new FlotillaException(e.code(), at + ": " + e.getMessage(), e.remedy(), e);
      }
    }
  }

  /** Makes an index. */
  @Command(name = "create", description = "Make an index.", mixinStandardHelpOptions = true)
  static final class Create extends ClientCommand {

    @Parameters(paramLabel = "INDEX", description = "Its name.")
    private String index = "";

    @Option(
        names = "--settings",
        paramLabel = "JSON",
        defaultValue = "{}",
        description =
            "Such as {\"shards\": 4, \"replicas\": 2, \"analyzer\": \"english\", \"fields\":"
                + " {\"title\": {\"type\": \"text\"}}, \"vector\": {\"quantization\": \"int8\"}}.")
    private String settings = "{}";

    @Override
    public Integer call() {
      SearchIndex made = new HttpSearchIndexes(client()).index(index);
      made.create(IndexSettings.fromJson(parse("--settings", settings)));
      System.out.println(asJson ? made.settings().toJson().toPrettyString() : "made " + index);
      return 0;
    }
  }

  /** Removes an index, or documents of it. */
  @Command(
      name = "rm",
      description = "Remove documents, or without ids the whole index.",
      mixinStandardHelpOptions = true)
  static final class Remove extends ClientCommand {

    @Parameters(index = "0", paramLabel = "INDEX", description = "Its name.")
    private String index = "";

    @Parameters(index = "1..*", paramLabel = "ID", description = "Documents to remove.")
    private List<String> ids = List.of();

    @Override
    public Integer call() {
      SearchIndex target = new HttpSearchIndexes(client()).index(index);
      if (ids.isEmpty()) {
        target.drop();
        System.out.println(asJson ? json(Map.of("removed", index)) : "removed " + index);
        return 0;
      }
      int removed = target.delete(ids, Visibility.DURABLE).size();
      System.out.println(asJson ? json(Map.of("removed", removed)) : "removed " + removed);
      return removed == ids.size() ? 0 : 1;
    }
  }

  /** Shows an index. */
  @Command(
      name = "stats",
      description = "Show an index's shards and replicas, or without a name all indexes.",
      mixinStandardHelpOptions = true)
  static final class Stats extends ClientCommand {

    @Parameters(paramLabel = "INDEX", arity = "0..1", description = "Its name.")
    private String index = "";

    @Override
    public Integer call() {
      HttpSearchIndexes indexes = new HttpSearchIndexes(client());
      if (index.isEmpty()) {
        List<String> names = indexes.names();
        System.out.println(asJson ? json(names) : String.join("\n", names));
        return 0;
      }
      if (asJson) {
        return print(client().get("/api/indexes/" + dev.flotilla.client.Client.encode(index)));
      }
      SearchIndex.Stats stats = indexes.index(index).stats();
      System.out.println(stats.documents() + " documents");
      List<List<String>> rows = new ArrayList<>();
      for (SearchIndex.ShardStats shard : stats.shards()) {
        for (SearchIndex.ReplicaStats replica : shard.replicas()) {
          rows.add(
              List.of(
                  Integer.toString(shard.shard()),
                  replica.node(),
                  replica.state(),
                  replica.searchable() + " of " + shard.sequence(),
                  Long.toString(replica.documents()),
                  String.format("%.1f MB", replica.bytes() / 1e6)));
        }
      }
      table(List.of("SHARD", "NODE", "STATE", "WRITES", "DOCUMENTS", "SIZE"), rows);
      return 0;
    }
  }
}
