package dev.flotilla.app;

import dev.flotilla.Json;
import dev.flotilla.simulate.Chaos;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import java.util.concurrent.Callable;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Simulated clusters: the parts of a node that decide, on a made-up clock, network and disk. */
@Command(
    name = "simulate",
    description = "Run the same planner, router and failure logic on simulated clusters.",
    subcommands = {SimulateCommand.ChaosCommand.class},
    synopsisSubcommandLabel = "COMMAND",
    mixinStandardHelpOptions = true)
final class SimulateCommand {

  /** Many lives of small clusters, each another, each to be had again by its seed. */
  @Command(
      name = "chaos",
      description = {
        "Let machines die, stop and come back, disks be slow and lose what was not forced, the"
            + " network cut, delay, lose and double, and check after every step that no promise is"
            + " broken. Prints the first seed that breaks one."
      },
      mixinStandardHelpOptions = true)
  static final class ChaosCommand implements Callable<Integer> {

    @Option(
        names = "--seeds",
        paramLabel = "N",
        defaultValue = "200",
        description = "So many runs (default ${DEFAULT-VALUE}).")
    private long seeds;

    @Option(
        names = "--first",
        paramLabel = "S",
        defaultValue = "1",
        description = "The seed of the first (default ${DEFAULT-VALUE}).")
    private long first;

    @Option(
        names = "--seed",
        paramLabel = "S",
        description = "Run this seed only, and tell what happens in it.")
    private @Nullable Long seed;

    @Option(names = "--json", description = "Print the figures as JSON.")
    private boolean asJson;

    @Override
    public Integer call() {
      Long one = seed;
      return one == null ? all() : one(one);
    }

    private int one(long number) {
      Chaos.Report report = Chaos.run(number);
      if (asJson) {
        System.out.println(new String(Json.write(report), StandardCharsets.UTF_8));
      } else {
        report.story().forEach(System.out::println);
        System.out.println(report.counts());
        System.out.printf(Locale.ROOT, "trace %016x%n", report.trace());
      }
      return outcome(report);
    }

    private static int outcome(Chaos.Report report) {
      report.failure().ifPresent(why -> System.err.println("seed " + report.seed() + ": " + why));
      return report.failure().isPresent() ? 1 : 0;
    }

    private int all() {
      long startNs = System.nanoTime();
      Chaos.Counts sum = Chaos.Counts.NONE;
      long events = 0;
      try (ProgressBar bar = bar()) {
        for (long number = first; number < first + seeds; number++) {
          Chaos.Report report = Chaos.run(number);
          sum = sum.plus(report.counts());
          events += report.events();
          bar.step();
          if (report.failure().isPresent()) {
            System.out.println(
                "seed " + number + " fails; again: flotilla simulate chaos --seed " + number);
            return outcome(report);
          }
        }
      }
      double seconds = (System.nanoTime() - startNs) / 1e9;
      if (asJson) {
        System.out.println(new String(Json.write(sum), StandardCharsets.UTF_8));
      } else {
        System.out.printf(
            Locale.ROOT,
            "%d seeds, %d events in %.1f s: nothing lost, doubled or altered%n%s%n",
            seeds,
            events,
            seconds,
            sum.text());
      }
      return 0;
    }

    private ProgressBar bar() {
      return new ProgressBarBuilder()
          .setTaskName("seeds")
          .setInitialMax(seeds)
          .setStyle(ProgressBarStyle.UNICODE_BLOCK)
          .setUpdateIntervalMillis(Terminal.attached() ? 250 : 60_000)
          .build();
    }
  }
}
