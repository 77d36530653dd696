package dev.flotilla.bench;

import dev.flotilla.Json;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.serve.SumChain;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * One stream over two nodes that share out every layer, each a process pinned to a core, beside one
 * node on one core; and what a sum over the ranks takes by itself, with mutual TLS on loopback.
 */
@Command(
    name = "tensor",
    description = "One stream with every layer shared out over two nodes; the cost of a sum.",
    mixinStandardHelpOptions = true)
final class TensorBench implements Callable<Integer> {

  private static final int FIRST_PORT = 23_500;
  private static final int SUMS = 32;

  @Option(
      names = "--model",
      paramLabel = "FILE",
      description = "A GGUF file; without one, only sums are measured.")
  private Optional<Path> model = Optional.empty();

  @Option(names = "--tokens", defaultValue = "48", description = "Of a stream; ${DEFAULT-VALUE}.")
  private int tokens;

  @Option(names = "--rounds", defaultValue = "3", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(names = "--cores", split = ",", defaultValue = "0,1", description = "One for a node.")
  private int[] cores = {};

  @Option(names = "--width", defaultValue = "2048", description = "Default ${DEFAULT-VALUE}.")
  private int width;

  @Option(names = "--rows", defaultValue = "1", description = "Default ${DEFAULT-VALUE}.")
  private int rows;

  @Option(names = "--steps", defaultValue = "500", description = "Default ${DEFAULT-VALUE}.")
  private int steps;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    Map<String, Object> figures = new LinkedHashMap<>();
    figures.put("sum_bytes", 4L * rows * width);
    for (int ranks = 2; ranks <= 3; ranks++) {
      long[] ns = sums(ranks);
      figures.put("sum_of_" + ranks + "_p50_us", ns[ns.length / 2] / 1e3);
      figures.put("sum_of_" + ranks + "_p99_us", ns[(int) (ns.length * 0.99)] / 1e3);
    }
    if (model.isPresent()) {
      List<String> each = Arrays.stream(cores).mapToObj(Integer::toString).toList();
      try (PinnedNodes nodes = new PinnedNodes(each)) {
        figures.put("one_node_one_core_tokens_per_s", rate(nodes, 1));
        figures.put(each.size() + "_ranks_a_core_each_tokens_per_s", rate(nodes, each.size()));
      }
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(figures));
    } else {
      figures.forEach(
          (name, value) ->
              System.out.printf(
                  "%-34s %10.1f%n", name.replace('_', ' '), ((Number) value).doubleValue()));
    }
    return 0;
  }

  private double rate(PinnedNodes nodes, int ranks) throws Exception {
    nodes.deploy(
        model.orElseThrow(), ranks, ranks > 1 ? Map.of("tensor", ranks) : Map.of("stages", 1));
    List<Double> rates = new ArrayList<>();
    for (int round = 0; round <= rounds; round++) {
      String prompt = "Stream " + ranks + " of round " + round + " says:";
      double first = nodes.seconds(List.of(prompt + " a"), 1);
      double all = nodes.seconds(List.of(prompt + " b"), 1 + tokens);
      if (round > 0) {
        rates.add(tokens / (all - first));
      }
    }
    return InferenceBench.median(rates);
  }

  /** Nanoseconds of sums, rising. */
  private long[] sums(int ranks) throws Exception {
    Path folder = Files.createTempDirectory("flotilla-tensor");
    List<Cluster> nodes = new ArrayList<>();
    List<SumChain.Part> parts = new ArrayList<>();
    try {
      int port = NodeProcess.freePorts(FIRST_PORT);
      for (int i = 0; i < ranks; i++) {
        ClusterNode node = HopBench.node(folder, i, port, nodes);
        nodes.add(node);
        parts.add(new SumChain.Part(node, width, SUMS));
        node.start();
      }
      try (SumChain chain = SumChain.open(nodes, parts, width, SUMS)) {
        List<Long> ns = new ArrayList<>();
        for (int i = -steps; i < steps; i++) {
          List<Long> step = chain.stepNs(rows);
          if (i >= 0) {
            ns.addAll(step);
          }
        }
        return ns.stream().mapToLong(Long::longValue).sorted().toArray();
      }
    } finally {
      for (Cluster node : nodes.reversed()) {
        ((ClusterNode) node).close();
      }
      NodeFiles.deleteTree(folder);
    }
  }
}
