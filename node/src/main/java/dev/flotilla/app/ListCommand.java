package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;

/** Lists the cluster's models. */
@Command(name = "list", description = "List the cluster's models.", mixinStandardHelpOptions = true)
final class ListCommand extends ClientCommand {

  @Override
  public Integer call() {
    JsonNode models = client().get("/api/models");
    if (asJson) {
      return print(models);
    }
    List<List<String>> rows = new ArrayList<>();
    for (JsonNode model : models) {
      rows.add(
          List.of(
              model.path("name").asText(),
              String.format("%.1f MB", model.path("bytes").asLong() / 1e6),
              Instant.ofEpochMilli(model.path("created_at_ms").asLong()).toString(),
              model.path("digest").asText()));
    }
    table(List.of("MODEL", "SIZE", "ADDED", "DIGEST"), rows);
    return 0;
  }
}
