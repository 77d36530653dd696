package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Shows all that is known of one thing. */
@Command(
    name = "show",
    description = "Show a model, a node or a training job, by name or id.",
    mixinStandardHelpOptions = true)
final class ShowCommand extends ClientCommand {

  @Parameters(paramLabel = "X", description = "A model's name, a node's name or id, a job's id.")
  private String name = "";

  @Override
  public Integer call() {
    Client client = client();
    int shown =
        show(client.get("/api/models"), "name")
            + show(client.get("/api/deployments"), "model")
            + show(client.get("/api/cluster").path("nodes"), "id", "name")
            + show(client.get("/api/training"), "id");
    if (shown == 0) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND,
          "nothing is called " + name,
          "See flotilla list and flotilla ps.");
    }
    return 0;
  }

  private int show(JsonNode all, String... fields) {
    for (JsonNode one : all) {
      for (String field : fields) {
        if (one.path(field).asText().equals(name)) {
          print(one);
          return 1;
        }
      }
    }
    return 0;
  }
}
