package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** The main job from end to end, on this machine. */
@Command(
    name = "demo",
    description = {
      "Train and serve a model on three nodes of this machine, and lose one of them.",
      "Starts three nodes, trains a model on them, splits it over them, serves it, loses one of them",
      "and goes on. Prints each step with its figures, then the console's address."
    },
    mixinStandardHelpOptions = true)
final class DemoCommand implements Callable<Integer> {

  @Option(names = "--exit", description = "End after the last step; exit code 0 if all held.")
  private boolean exit;

  @Option(
      names = "--text",
      paramLabel = "FILE",
      description = "Train on this UTF-8 text instead of the generated task.")
  private Optional<Path> text = Optional.empty();

  @Option(names = "--report", paramLabel = "FILE", description = "Write the figures as JSON.")
  private Optional<Path> report = Optional.empty();

  @Option(
      names = "--port",
      paramLabel = "P",
      defaultValue = "8000",
      description = "The first node's port (default ${DEFAULT-VALUE}, or the next that is free).")
  private int port;

  @Option(
      names = "--seed",
      paramLabel = "S",
      defaultValue = "1",
      description = "Of the task, the weights and the batches (default ${DEFAULT-VALUE}).")
  private long seed;

  @Override
  public Integer call() throws Exception {
    try (Demo demo = new Demo(port, seed, text)) {
      boolean held = false;
      try {
        held = demo.run();
      } catch (FlotillaException | IOException e) {
        demo.failed(e);
        System.err.println(
            "flotilla: "
                + (e instanceof FlotillaException known ? known.explanation() : e.toString()));
      }
      if (report.isPresent()) {
        demo.writeReport(report.get());
      }
      if (!exit && held) {
        demo.stayUp();
      }
      return held ? 0 : 1;
    }
  }
}
