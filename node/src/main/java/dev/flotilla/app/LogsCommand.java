package dev.flotilla.app;

import dev.flotilla.client.Client;
import dev.flotilla.client.HttpLog;
import dev.flotilla.data.log.Log;
import java.time.Duration;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Searches and follows the log of all nodes. */
@Command(
    name = "logs",
    description = "Search the log of all nodes, or follow it.",
    mixinStandardHelpOptions = true)
final class LogsCommand extends ClientCommand {

  @Spec private CommandSpec spec = CommandSpec.create();

  @Parameters(
      arity = "0..*",
      paramLabel = "QUERY",
      description =
          "Words that the message must have (Lucene's syntax; also logger:… exception:…).")
  private List<String> words = List.of();

  @Option(names = "--node", paramLabel = "NODE", description = "Only this node's, by id or name.")
  private Optional<String> node = Optional.empty();

  @Option(
      names = "--from",
      paramLabel = "TIME",
      description = "The earliest: 2026-01-31T12:00:00Z, milliseconds, or how long ago: 15m, 2h.")
  private Optional<String> from = Optional.empty();

  @Option(names = "--to", paramLabel = "TIME", description = "The latest, in the same forms.")
  private Optional<String> to = Optional.empty();

  @Option(
      names = "--level",
      paramLabel = "LEVEL",
      description = "At least this severe: trace, debug, info, warn, error.")
  private Optional<String> level = Optional.empty();

  @Option(
      names = {"-n", "--limit"},
      paramLabel = "N",
      defaultValue = "100",
      description = "The newest so many (default ${DEFAULT-VALUE}).")
  private int limit;

  @Option(
      names = {"-f", "--follow"},
      description = "Go on with what is logged from now on.")
  private boolean follow;

  @Override
  public Integer call() {
    Log.Query query =
        new Log.Query(
            String.join(" ", words),
            from.map(this::time),
            to.map(this::time),
            node,
            level.map(this::level),
            limit);
    HttpLog log = new HttpLog(client());
    if (follow) {
      log.follow(
          query,
          entry -> {
            entry.ifPresent(this::print);
            return !System.out.checkError();
          });
      return 0;
    }
    Log.Page page = log.search(query);
    page.entries().forEach(this::print);
    if (page.partial()) {
      System.err.println(
          "flotilla: "
              + page.missing().size()
              + " node(s) did not answer ("
              + String.join(", ", page.missing())
              + "); entries may be missing");
    }
    return 0;
  }

  private void print(Log.Entry entry) {
    if (asJson) {
      System.out.println(Client.snakeCase(entry));
      return;
    }
    String logger = entry.logger().substring(entry.logger().lastIndexOf('.') + 1);
    System.out.printf(
        "%s %-5s %s %s %s%n",
        Instant.ofEpochMilli(entry.timeMs()),
        entry.level(),
        entry.node().substring(0, Math.min(8, entry.node().length())),
        logger,
        entry.message());
    Optional.ofNullable(entry.fields().get("exception")).ifPresent(System.out::println);
  }

  private Log.Level level(String text) {
    try {
      return Log.Level.valueOf(text.toUpperCase(Locale.ROOT));
    } catch (IllegalArgumentException e) {
      throw usage("--level takes one of trace, debug, info, warn and error.");
    }
  }

  private long time(String text) {
    try {
      if (text.matches("[0-9]{1,18}")) {
        return Long.parseLong(text);
      }
      return text.matches("[0-9]{1,6}[smhd]")
          ? Instant.now().minus(ago(text)).toEpochMilli()
          : Instant.parse(text).toEpochMilli();
    } catch (DateTimeParseException e) {
      throw usage(text + " is not a time; write 2026-01-31T12:00:00Z, milliseconds, or 15m.");
    }
  }

  private static Duration ago(String text) {
    long count = Long.parseLong(text.substring(0, text.length() - 1));
    return switch (text.charAt(text.length() - 1)) {
      case 's' -> Duration.ofSeconds(count);
      case 'm' -> Duration.ofMinutes(count);
      case 'h' -> Duration.ofHours(count);
      default -> Duration.ofDays(count);
    };
  }

  private CommandLine.ParameterException usage(String message) {
    return new CommandLine.ParameterException(spec.commandLine(), message);
  }
}
