package dev.flotilla.app;

import dev.flotilla.Json;
import dev.flotilla.simulate.Chaos;
import dev.flotilla.simulate.LargeCluster;
import dev.flotilla.simulate.Losses;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
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
    subcommands = {
      SimulateCommand.ChaosCommand.class,
      SimulateCommand.LossesCommand.class,
      SimulateCommand.ClusterCommand.class
    },
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
        System.out.println(report.counts().text());
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

  /** How soon a loss is acted upon. */
  @Command(
      name = "losses",
      description = {
        "Lose one node of five, each time in another way, and print how long it takes until nothing is"
            + " placed on it any more; and check that a pause of a second and slow ways are not taken"
            + " for a loss."
      },
      mixinStandardHelpOptions = true)
  static final class LossesCommand implements Callable<Integer> {

    @Option(
        names = "--each",
        paramLabel = "N",
        defaultValue = "50",
        description = "So many of each kind (default ${DEFAULT-VALUE}).")
    private int each;

    @Option(names = "--json", description = "Print the times in seconds, as JSON.")
    private boolean asJson;

    @Override
    public Integer call() {
      Losses.Times times = Losses.run(each);
      if (asJson) {
        System.out.println(new String(Json.write(times), StandardCharsets.UTF_8));
      } else {
        print("a follower", times.followers());
        print("the leader", times.leaders());
      }
      return 0;
    }

    private static void print(String who, Map<Losses.Kind, double[]> times) {
      times.forEach(
          (kind, seconds) ->
              System.out.printf(
                  Locale.ROOT,
                  "%s %-11s  acted upon %d times; p50 %.2f s, p99 %.2f s, at most %.2f s%n",
                  who,
                  kind.name().toLowerCase(Locale.ROOT).replace('_', ' '),
                  seconds.length,
                  Losses.quantile(seconds, 0.5),
                  Losses.quantile(seconds, 0.99),
                  Losses.quantile(seconds, 1)));
    }
  }

  /** What many nodes and deployments cost the one that leads them. */
  @Command(
      name = "cluster",
      description = {
        "Have the real controller, planner, failure detector, registry and router lead a cluster of"
            + " many nodes, lose a hundredth of them, and print what that costs, and how it grows:"
            + " a hundredth of the size and a tenth are run before."
      },
      mixinStandardHelpOptions = true)
  static final class ClusterCommand implements Callable<Integer> {

    @Option(
        names = "--nodes",
        paramLabel = "N",
        defaultValue = "10000",
        description = "So many nodes, 3 to 100000 (default ${DEFAULT-VALUE}).")
    private int nodes;

    @Option(
        names = "--deployments",
        paramLabel = "D",
        defaultValue = "1000",
        description = "So many deployments, one replica each (default ${DEFAULT-VALUE}).")
    private int deployments;

    @Option(names = "--json", description = "Print the figures as JSON.")
    private boolean asJson;

    @Override
    public Integer call() {
      if (nodes < 3 || nodes > 100_000 || deployments < 1 || deployments > nodes) {
        System.err.println(
            "flotilla: "
                + nodes
                + " nodes and "
                + deployments
                + " deployments are out of range. Ask for 3 to 100000 nodes, and for 1 deployment"
                + " to as many as there are nodes.");
        return 2;
      }
      List<LargeCluster.Figures> all = new ArrayList<>();
      for (int part : new int[] {100, 10, 1}) {
        if (nodes / part >= 3) {
          LargeCluster.Figures figures =
              LargeCluster.run(nodes / part, Math.max(1, deployments / part));
          all.add(figures);
          if (!asJson) {
            System.out.println(text(figures));
          }
        }
      }
      if (asJson) {
        System.out.println(new String(Json.write(all), StandardCharsets.UTF_8));
      }
      return 0;
    }

    private static String text(LargeCluster.Figures f) {
      return String.format(
          Locale.ROOT,
          "%d nodes, %d deployments%n"
              + "  placed in %.2f s of computing: %.0f decisions/s; %.0f ms in a second in which nothing happens%n"
              + "  %d nodes lost: noticed and first placed anew after %.2f s, all %d replicas after"
              + " %.2f s of computing%n"
              + "  routes/s: %.0f%n"
              + "  registry: %.1f KB to each node for placing, %.2f KB for the loss; all of it %.1f MB",
          f.nodes(),
          f.deployments(),
          f.placeSeconds(),
          f.placements() / f.placeSeconds(),
          f.idlePassSeconds() * 1e3,
          f.lost(),
          f.detectSeconds(),
          f.replanned(),
          f.replanSeconds(),
          f.routesPerSecond(),
          f.placeBytes() / 1e3,
          f.replanBytes() / 1e3,
          f.stateBytes() / 1e6);
    }
  }
}
