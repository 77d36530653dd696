package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import picocli.CommandLine;
import picocli.CommandLine.Command;

/** {@code flotilla bench NAME}: runs one measurement and prints its figures. */
@Command(
    name = "bench",
    description = "Repeatable measurements.",
    synopsisSubcommandLabel = "NAME",
    subcommands = {
      JepsenBench.class,
      ChaosBench.class,
      FailoverBench.class,
      ShardingBench.class,
      BlobBench.class,
      SearchBench.class,
      DataBench.class,
      HopBench.class,
      PipelineBench.class,
      PlanBench.class,
      TensorBench.class,
      MakeModel.class,
      DecodeBench.class,
      PrefillBench.class,
      BatchBench.class,
      LoadBench.class,
      KernelsBench.class,
      AgreeBench.class,
      GrammarBench.class,
      CommandLine.HelpCommand.class
    },
    mixinStandardHelpOptions = true)
public final class Bench {

  private Bench() {}

  /** Runs one measurement and exits with its code. */
  public static void main(String[] arguments) {
    CommandLine line = new CommandLine(new Bench());
    line.setExecutionExceptionHandler(
        (exception, command, parsed) -> {
          if (exception instanceof FlotillaException known) {
            System.err.println("flotilla: " + known.explanation());
          } else {
            exception.printStackTrace(System.err);
          }
          return 1;
        });
    if (arguments.length == 0) {
      line.usage(System.err);
      System.exit(2);
    }
    System.exit(line.execute(arguments));
  }
}
