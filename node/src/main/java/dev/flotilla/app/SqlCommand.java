package dev.flotilla.app;

import com.fasterxml.jackson.databind.node.ArrayNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpSql;
import dev.flotilla.data.sql.Migration;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.SqlResult;
import dev.flotilla.data.sql.SqlValues;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** The database from the shell. */
@Command(
    name = "sql",
    description = {
      "Run SQL: a statement, a file, or what is typed.",
      "Without a STATEMENT, read statements from the terminal or standard input;",
      "there, \\d lists the tables, \\d TABLE its columns, and \\q ends."
    },
    subcommands = SqlCommand.Migrate.class,
    mixinStandardHelpOptions = true)
final class SqlCommand extends ClientCommand {

  @Parameters(
      index = "0",
      arity = "0..1",
      paramLabel = "STATEMENT",
      description = "One statement, or several parted by semicolons.")
  private Optional<String> statement = Optional.empty();

  @Option(
      names = {"-f", "--file"},
      paramLabel = "FILE",
      description = "Run the statements of a file, and stop at the first that fails.")
  private Optional<Path> file = Optional.empty();

  @Option(
      names = "--rows",
      paramLabel = "N",
      defaultValue = "10000",
      description = "Return so many rows at most (default ${DEFAULT-VALUE}).")
  private int rowsMax;

  @Option(
      names = "--timeout",
      paramLabel = "SECONDS",
      defaultValue = "30",
      description = "Cancel a statement after so long (default ${DEFAULT-VALUE}).")
  private int timeoutSeconds;

  @Override
  public Integer call() throws IOException {
    Sql sql = new HttpSql(client());
    if (file.isPresent() && statement.isPresent()) {
      throw new FlotillaException(
          Code.INVALID, "both a STATEMENT and a FILE", "Give one of the two.");
    }
    if (file.isPresent() || statement.isPresent()) {
      String script = file.isPresent() ? read(file.get()) : statement.orElseThrow();
      for (String each : Sql.split(script)) {
        execute(sql, each);
      }
      return 0;
    }
    return shell(sql);
  }

  private static String read(Path path) {
    try {
      return Files.readString(path);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          "cannot read " + path + ": " + IoReason.of(e),
          "It must be a text in UTF-8.",
          e);
    }
  }

  /** Goes on after a failure on a terminal, and ends with it otherwise. */
  private int shell(Sql sql) throws IOException {
    boolean terminal = Terminal.attached();
    BufferedReader input =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    StringBuilder script = new StringBuilder();
    while (true) {
      if (terminal) {
        System.err.print(script.isEmpty() ? "sql> " : "...> ");
        System.err.flush();
      }
      String line = input.readLine();
      boolean ended = line == null || (script.isEmpty() && line.strip().equals("\\q"));
      if (line != null && !ended && script.isEmpty() && line.startsWith("\\d")) {
        describe(sql, line.substring(2).strip());
        continue;
      }
      if (line != null && !ended && !(line.isBlank() && script.isEmpty())) {
        script.append(line).append('\n');
      }
      if (ended || script.toString().stripTrailing().endsWith(";")) {
        try {
          for (String each : Sql.split(script.toString())) {
            execute(sql, each);
          }
        } catch (FlotillaException e) {
          if (!terminal) {
            throw e;
          }
          System.err.println(e.explanation());
        }
        script.setLength(0);
      }
      if (ended) {
        return 0;
      }
    }
  }

  private static void describe(Sql sql, String name) {
    List<List<String>> rows = new ArrayList<>();
    for (Sql.Table table : sql.tables()) {
      if (name.isEmpty()) {
        rows.add(List.of(table.name(), String.valueOf(table.columns().size())));
      } else if (table.name().equalsIgnoreCase(name)) {
        for (Sql.TableColumn column : table.columns()) {
          rows.add(
              List.of(
                  column.name(),
                  column.type(),
                  column.nullable() ? "" : "not null",
                  column.key() > 0 ? "key " + column.key() : ""));
        }
      }
    }
    table(
        name.isEmpty() ? List.of("TABLE", "COLUMNS") : List.of("COLUMN", "TYPE", "", "KEY"), rows);
  }

  private void execute(Sql sql, String text) {
    SqlResult result =
        sql.execute(
            new Sql.Request(text, List.of(), rowsMax, Duration.ofSeconds(timeoutSeconds)),
            new Sql.Cancel());
    if (asJson) {
      print(SqlValues.toJson(result));
      return;
    }
    if (result.columns().isEmpty()) {
      System.out.println(result.updated() + (result.updated() == 1 ? " row" : " rows"));
      return;
    }
    List<List<String>> rows = new ArrayList<>();
    for (List<@Nullable Object> row : result.rows()) {
      rows.add(row.stream().map(SqlCommand::cell).toList());
    }
    table(result.columns().stream().map(SqlResult.Column::name).toList(), rows);
    System.out.printf(
        "(%d %s%s)%n",
        rows.size(),
        rows.size() == 1 ? "row" : "rows",
        result.truncated() ? ", and more; see --rows" : "");
  }

  private static String cell(@Nullable Object value) {
    return value == null
        ? "NULL"
        : SqlValues.toJson(value)
            .asText()
            .replace("\n", "\\n")
            .replace("\r", "\\r")
            .replace("\t", "\\t");
  }

  /** Brings the schema to the version of a folder of migrations. */
  @Command(
      name = "migrate",
      description = "Run the migrations of a folder (V1__name.sql, …) that have not run yet.",
      mixinStandardHelpOptions = true)
  static final class Migrate extends ClientCommand {

    @Parameters(paramLabel = "DIR", description = "The folder.")
    private Path folder = Path.of("");

    @Override
    public Integer call() {
      Map<String, String> files = new TreeMap<>();
      try (Stream<Path> all = Files.list(folder)) {
        for (Path each : all.filter(path -> path.toString().endsWith(".sql")).toList()) {
          files.put(each.getFileName().toString(), read(each));
        }
      } catch (IOException e) {
        throw new FlotillaException(
            Code.BAD_FILE,
            "cannot read the folder " + folder + ": " + IoReason.of(e),
            "Check its name.",
            e);
      }
      List<Migration.Applied> applied = new HttpSql(client()).migrate(Migration.of(files));
      if (asJson) {
        ArrayNode json = Json.MAPPER.createArrayNode();
        applied.forEach(each -> json.add(Client.snakeCase(each)));
        return print(json);
      }
      for (Migration.Applied each : applied) {
        System.out.println("applied " + each.version() + " " + each.name());
      }
      System.out.println(
          switch (applied.size()) {
            case 0 -> "nothing to do";
            case 1 -> "1 migration applied";
            default -> applied.size() + " migrations applied";
          });
      return 0;
    }
  }
}
