package dev.flotilla.app;

import dev.flotilla.client.Client;
import dev.flotilla.client.HttpLog;
import dev.flotilla.data.log.Log;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Append-only streams from the shell. */
@Command(
    name = "stream",
    description = "Append to streams and read them.",
    subcommands = {
      StreamCommand.Append.class,
      StreamCommand.Read.class,
      StreamCommand.Streams.class,
      StreamCommand.Trim.class
    },
    mixinStandardHelpOptions = true)
final class StreamCommand implements Callable<Integer> {

  @Spec private CommandSpec spec = CommandSpec.create();

  @Override
  public Integer call() {
    throw new CommandLine.ParameterException(
        spec.commandLine(), "Say what to do: append, read, list or trim.");
  }

  @Command(
      name = "append",
      description = "Append a record; without one, each line of standard input is one.",
      mixinStandardHelpOptions = true)
  static final class Append extends ClientCommand {

    private static final int BATCH = 100;

    @Parameters(index = "0", paramLabel = "STREAM")
    private String stream = "";

    @Parameters(index = "1", arity = "0..1", paramLabel = "RECORD")
    private Optional<String> record = Optional.empty();

    @Override
    public Integer call() throws IOException {
      HttpLog log = new HttpLog(client());
      if (record.isPresent()) {
        System.out.println(log.append(stream, record.get().getBytes(StandardCharsets.UTF_8)));
        return 0;
      }
      List<byte[]> lines =
          new String(System.in.readAllBytes(), StandardCharsets.UTF_8)
              .lines()
              .map(line -> line.getBytes(StandardCharsets.UTF_8))
              .toList();
      for (int from = 0; from < lines.size(); from += BATCH) {
        System.out.println(
            log.append(stream, lines.subList(from, Math.min(lines.size(), from + BATCH))));
      }
      return 0;
    }
  }

  @Command(
      name = "read",
      description = "Print the records from an offset on.",
      mixinStandardHelpOptions = true)
  static final class Read extends ClientCommand {

    @Parameters(index = "0", paramLabel = "STREAM")
    private String stream = "";

    @Option(names = "--from", paramLabel = "OFFSET", defaultValue = "0")
    private long from;

    @Option(names = "--max", paramLabel = "N", defaultValue = "100")
    private int max;

    @Option(
        names = {"-f", "--follow"},
        description = "Go on with what is appended from now on.")
    private boolean follow;

    @Override
    public Integer call() {
      HttpLog log = new HttpLog(client());
      long next = from;
      do {
        for (Log.StreamRecord record : log.read(stream, next, max, follow ? 1_000 : 0)) {
          System.out.println(
              asJson
                  ? Client.snakeCase(record).toString()
                  : record.offset() + "\t" + new String(record.body(), StandardCharsets.UTF_8));
          next = record.offset() + 1;
        }
      } while (follow && !System.out.checkError());
      return 0;
    }
  }

  @Command(name = "list", description = "List the streams.", mixinStandardHelpOptions = true)
  static final class Streams extends ClientCommand {

    @Override
    public Integer call() {
      List<Log.StreamInfo> all = new HttpLog(client()).streams();
      if (asJson) {
        return print(Client.snakeCase(all));
      }
      table(
          List.of("STREAM", "FIRST", "NEXT"),
          all.stream()
              .map(each -> List.of(each.name(), each.first() + "", each.next() + ""))
              .toList());
      return 0;
    }
  }

  @Command(
      name = "trim",
      description = "Forget the records before an offset.",
      mixinStandardHelpOptions = true)
  static final class Trim extends ClientCommand {

    @Parameters(index = "0", paramLabel = "STREAM")
    private String stream = "";

    @Parameters(index = "1", paramLabel = "OFFSET")
    private long before;

    @Override
    public Integer call() {
      new HttpLog(client()).trim(stream, before);
      return 0;
    }
  }
}
