package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Deploys a model and waits until it answers. */
@Command(
    name = "serve",
    description = "Deploy a model, and wait until it answers.",
    mixinStandardHelpOptions = true)
final class ServeCommand extends ClientCommand {

  @Parameters(paramLabel = "MODEL", description = "A model of the cluster.")
  private String model = "";

  @Option(
      names = "--replicas",
      paramLabel = "R",
      defaultValue = "1",
      description = "Independent copies that share the load (default ${DEFAULT-VALUE}).")
  private int replicas;

  @Option(
      names = "--stages",
      paramLabel = "N",
      defaultValue = "0",
      description = "Split each copy over so many nodes (default: the planner chooses).")
  private int stages;

  @Option(
      names = "--tensor",
      paramLabel = "T",
      defaultValue = "1",
      description =
          "Share out every layer of each copy over so many nodes: faster for one stream where the"
              + " network is; bits may differ from one node's (default ${DEFAULT-VALUE}).")
  private int tensor;

  @Option(
      names = "--routing",
      paramLabel = "POLICY",
      defaultValue = "least_load",
      description = "least_load or round_robin (default ${DEFAULT-VALUE}).")
  private String routing = "";

  private enum Kv {
    f32,
    f16,
    q8_0
  }

  @Option(
      names = "--kv",
      paramLabel = "TYPE",
      defaultValue = "f16",
      description =
          "How keys and values are kept: ${COMPLETION-CANDIDATES} (default ${DEFAULT-VALUE}).")
  private Kv kv = Kv.f16;

  private enum Wire {
    f32,
    bf16
  }

  @Option(
      names = "--wire",
      paramLabel = "TYPE",
      defaultValue = "f32",
      description =
          "How hidden states travel between stages: f32, the same text however it is split, or bf16,"
              + " half the bytes (default ${DEFAULT-VALUE}).")
  private Wire wire = Wire.f32;

  @Option(
      names = "--speculate",
      description = "Guess tokens from what the text has already; changes no token.")
  private boolean speculate;

  @Option(
      names = "--draft",
      paramLabel = "MODEL",
      defaultValue = "",
      description = "A smaller model of the same words that guesses tokens; changes no token.")
  private String draft = "";

  @Option(
      names = "--kv-replicas",
      paramLabel = "C",
      defaultValue = "0",
      description =
          "1 to copy what running requests have in the KV cache to another replica, so that they go"
              + " on there without computing it again; needs 2 replicas (default"
              + " ${DEFAULT-VALUE}).")
  private int kvReplicas;

  @Option(
      names = "--force",
      description = "Deploy also a split that is predicted to be slower than one node.")
  private boolean force;

  @Override
  public Integer call() throws InterruptedException {
    Client client = client();
    JsonNode ready =
        Waiting.deployed(
            client,
            Map.ofEntries(
                Map.entry("model", model),
                Map.entry("replicas", replicas),
                Map.entry("stages", stages),
                Map.entry("tensor", tensor),
                Map.entry("routing", routing),
                Map.entry("kv", kv.name()),
                Map.entry("wire", wire.name()),
                Map.entry("speculate", speculate),
                Map.entry("draft", draft),
                Map.entry("kv_replicas", kvReplicas),
                Map.entry("force", force)),
            System.err::println);
    if (asJson) {
      return print(ready);
    }
    PsCommand.printDeployment(ready);
    System.out.println("chat with it: flotilla run " + model);
    return 0;
  }
}
