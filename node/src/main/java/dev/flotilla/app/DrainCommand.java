package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Has what runs on a node moved to others. */
@Command(
    name = "drain",
    description = {
      "Move the replicas of a node to others, and place no new ones there.",
      "Running streams go on elsewhere. It is over when the node starts again, or with --undo."
    },
    mixinStandardHelpOptions = true)
final class DrainCommand extends ClientCommand {

  @Parameters(paramLabel = "NODE", description = "Its id or name, as flotilla ps shows them.")
  private String node = "";

  @Option(names = "--undo", description = "The node may be used again.")
  private boolean undo;

  @Override
  public Integer call() throws Exception {
    JsonNode answer =
        Json.MAPPER.readTree(
            client()
                .exchange(
                    undo ? "DELETE" : "POST",
                    "/api/cluster/nodes/" + Client.encode(node) + "/drain",
                    Map.of(),
                    new byte[0])
                .body());
    if (asJson) {
      System.out.println(json(answer));
      return 0;
    }
    List<String> left = new ArrayList<>();
    answer.path("replicas").forEach(replica -> left.add(replica.asText()));
    System.out.println(
        answer.path("state").asText()
            + " "
            + answer.path("id").asText()
            + " ("
            + answer.path("name").asText()
            + ")"
            + (undo
                ? ""
                : left.isEmpty()
                    ? ": no replica runs there"
                    : ": still there, such as for want of room elsewhere: "
                        + String.join(", ", left)));
    return 0;
  }
}
