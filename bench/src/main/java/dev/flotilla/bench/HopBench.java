package dev.flotilla.bench;

import dev.flotilla.Json;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.serve.StageChain;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * What a step pays for each stage it passes beyond the arithmetic: hidden states onward and tokens
 * back, over gRPC and mutual TLS on loopback, through stages that compute nothing. The difference
 * between a chain of three and one of two is one hop.
 */
@Command(
    name = "hop",
    description = "The cost of a hop between two stages, with mutual TLS on loopback.",
    mixinStandardHelpOptions = true)
final class HopBench implements Callable<Integer> {

  private static final int FIRST_PORT = 23_000;
  private static final int WARM = 3_000;

  @Option(names = "--width", defaultValue = "2048", description = "Default ${DEFAULT-VALUE}.")
  private int width;

  @Option(
      names = "--rows",
      defaultValue = "1",
      description = "Of a step: streams (default ${DEFAULT-VALUE}).")
  private int rows;

  @Option(names = "--steps", defaultValue = "5000", description = "Default ${DEFAULT-VALUE}.")
  private int steps;

  @Option(
      names = "--wire",
      defaultValue = "f32",
      description = "f32 or bf16 (default ${DEFAULT-VALUE}).")
  private String wire = "";

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  /** In microseconds. */
  private record Times(double medianUs, double p99Us) {}

  @Override
  public Integer call() throws Exception {
    Times two = measure(2);
    Times three = measure(3);
    Map<String, Object> figures = new LinkedHashMap<>();
    figures.put("width", width);
    figures.put("rows", rows);
    figures.put("wire", wire);
    figures.put("two_stages_us", two);
    figures.put("three_stages_us", three);
    figures.put("hop_us", three.medianUs() - two.medianUs());
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(figures));
    } else {
      System.out.printf("%d rows of %d in %s, from states to tokens%n", rows, width, wire);
      System.out.printf(
          "two stages    median %.0f us, 99%% %.0f us%n", two.medianUs(), two.p99Us());
      System.out.printf(
          "three stages  median %.0f us, 99%% %.0f us%n", three.medianUs(), three.p99Us());
      System.out.printf("a hop         %.0f us%n", three.medianUs() - two.medianUs());
    }
    return 0;
  }

  private Times measure(int stages) throws Exception {
    Path folder = Files.createTempDirectory("flotilla-hop");
    List<Cluster> nodes = new ArrayList<>();
    List<StageChain.Part> parts = new ArrayList<>();
    try {
      int port = NodeProcess.freePorts(FIRST_PORT);
      for (int i = 0; i < stages; i++) {
        ClusterNode node = node(folder, i, port, nodes);
        nodes.add(node);
        parts.add(new StageChain.Part(node, width));
        node.start();
      }
      try (StageChain chain = StageChain.open(nodes, parts, width, wire)) {
        long[] ns = new long[steps];
        for (int i = -WARM; i < steps; i++) {
          long tripNs = chain.roundTripNs(rows);
          if (i >= 0) {
            ns[i] = tripNs;
          }
        }
        Arrays.sort(ns);
        return new Times(ns[steps / 2] / 1e3, ns[(int) (steps * 0.99)] / 1e3);
      }
    } finally {
      for (Cluster node : nodes.reversed()) {
        ((ClusterNode) node).close();
      }
      NodeFiles.deleteTree(folder);
    }
  }

  /** A node of this process; the first one founds the cluster. */
  static ClusterNode node(Path folder, int number, int port, List<Cluster> before)
      throws IOException, InterruptedException {
    String name = "node-" + (number + 1);
    ClusterConfig config =
        new ClusterConfig(
            folder.resolve(name),
            name,
            "127.0.0.1",
            "127.0.0.1",
            port + 10 * number,
            "0.1.0",
            InstantSource.system(),
            Map.of());
    return number == 0
        ? ClusterNode.create(config)
        : ClusterNode.join(config, "127.0.0.1:" + port, ((ClusterNode) before.getFirst()).invite());
  }
}
