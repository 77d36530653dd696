package dev.flotilla.app;

import dev.flotilla.client.Client;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Removes a model from the cluster. */
@Command(
    name = "rm",
    description = "Remove a model from every node.",
    mixinStandardHelpOptions = true)
final class RemoveCommand extends ClientCommand {

  @Parameters(paramLabel = "MODEL", description = "A model of the cluster; stop it first.")
  private String model = "";

  @Override
  public Integer call() {
    client().delete("/api/models/" + Client.encode(model));
    System.out.println(asJson ? json(Map.of("removed", model)) : "removed " + model);
    return 0;
  }
}
