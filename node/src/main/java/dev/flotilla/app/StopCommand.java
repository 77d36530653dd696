package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Ends a deployment or a training job. */
@Command(
    name = "stop",
    description = "End a deployment (by its model) or a training job (by its id).",
    mixinStandardHelpOptions = true)
final class StopCommand extends ClientCommand {

  @Parameters(paramLabel = "X", description = "A deployed model's name, or a job's id.")
  private String name = "";

  @Override
  public Integer call() {
    Client client = client();
    if (!Waiting.find(client, name).isMissingNode()) {
      client.delete("/api/deployments/" + Client.encode(name));
    } else {
      try {
        client.delete("/api/training/" + Client.encode(name));
      } catch (FlotillaException e) {
        if (e.code() != FlotillaException.Code.NOT_FOUND) {
          throw e;
        }
        throw new FlotillaException(
            e.code(), "no deployment and no job is called " + name, "See flotilla ps.", e);
      }
    }
    System.out.println(asJson ? json(Map.of("stopped", name)) : "stopped " + name);
    return 0;
  }
}
