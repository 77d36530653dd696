package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Takes a node out of the cluster for good. */
@Command(
    name = "rm-node",
    description = {
      "Take a node out of the cluster for good, dead or alive.",
      "Refused where no majority would be left, or where it holds the last copy of something."
    },
    mixinStandardHelpOptions = true)
final class RemoveNodeCommand extends ClientCommand {

  @Parameters(paramLabel = "NODE", description = "Its id or name, as flotilla ps shows them.")
  private String node = "";

  @Option(names = "--force", description = "Give up what only this node has.")
  private boolean force;

  @Override
  public Integer call() throws Exception {
    JsonNode answer =
        Json.MAPPER.readTree(
            client()
                .exchange(
                    "DELETE",
                    "/api/cluster/nodes/" + Client.encode(node) + (force ? "?force=true" : ""),
                    Map.of(),
                    new byte[0])
                .body());
    System.out.println(
        asJson
            ? json(answer)
            : answer.path("state").asText()
                + " "
                + answer.path("id").asText()
                + " ("
                + answer.path("name").asText()
                + ")");
    return 0;
  }
}
