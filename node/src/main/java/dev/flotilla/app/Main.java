package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import java.util.List;
import picocli.CommandLine;
import picocli.CommandLine.Command;

/**
 * The program: parses the command line, runs one command, and turns its outcome into an exit code.
 */
@Command(
    name = "flotilla",
    description = "Trains and serves large language models on your own machines.",
    synopsisSubcommandLabel = "COMMAND",
    subcommands = {
      DemoCommand.class,
      UpCommand.class,
      InviteCommand.class,
      PullCommand.class,
      ConvertCommand.class,
      PlanCommand.class,
      ServeCommand.class,
      RunCommand.class,
      EmbedCommand.class,
      TrainCommand.class,
      PsCommand.class,
      ListCommand.class,
      ShowCommand.class,
      StopCommand.class,
      RemoveCommand.class,
      DrainCommand.class,
      UpgradeCommand.class,
      RemoveNodeCommand.class,
      LockCommand.class,
      BackupCommand.class,
      RestoreCommand.class,
      JobsCommand.class,
      CacheCommand.class,
      QueueCommand.class,
      LogsCommand.class,
      ShardCommand.class,
      StreamCommand.class,
      SearchCommand.class,
      SqlCommand.class,
      SimulateCommand.class,
      TransactionsCommand.class,
      UsageCommand.class,
      BlobCommand.class,
      CommandLine.HelpCommand.class
    },
    footer = {
      "",
      "Also: flotilla test, which runs every test; flotilla bench NAME, which measures.",
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 missing prerequisite."
    },
    mixinStandardHelpOptions = true,
    versionProvider = Version.class)
public final class Main {

  Main() {}

  /** Runs one command and exits with its code. */
  public static void main(String[] arguments) {
    int code = run(arguments);
    if (code != 0 && arguments.length > 0 && arguments[0].equals("up")) {
      Builds.goBack(List.of(arguments), "the node did not start");
    }
    System.exit(code);
  }

  static int run(String... arguments) {
    CommandLine line = new CommandLine(new Main());
    try {
      line.setDefaultValueProvider(new Defaults(System.getenv()));
    } catch (FlotillaException e) {
      System.err.println("flotilla: " + e.explanation());
      return 2;
    }
    line.setExecutionExceptionHandler(
        (exception, command, parsed) -> {
          if (exception instanceof FlotillaException known) {
            System.err.println("flotilla: " + known.explanation());
          } else {
            System.err.println("flotilla: this is a bug of ours; please report what follows");
            exception.printStackTrace(System.err);
          }
          return 1;
        });
    return arguments.length == 0 ? usage(line) : line.execute(arguments);
  }

  private static int usage(CommandLine line) {
    line.usage(System.err);
    return 2;
  }
}
