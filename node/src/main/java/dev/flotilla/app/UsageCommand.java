package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Shows who used what. */
@Command(
    name = "usage",
    description = "Show requests and tokens by model, key or day.",
    mixinStandardHelpOptions = true)
final class UsageCommand extends ClientCommand {

  @Option(names = "--by", description = "model (the default), key or day.")
  private String by = "model";

  @Option(names = "--from", description = "Such as 2026-11-24; default a day ago.")
  private Optional<String> from = Optional.empty();

  @Option(names = "--to", description = "Such as 2026-11-25; default now.")
  private Optional<String> to = Optional.empty();

  @Option(names = "--rebuild", description = "Make the sums again from the log first.")
  private boolean rebuild;

  @Override
  public Integer call() {
    Client client = client();
    if (rebuild) {
      var _ = client.post("/api/usage/rebuild", Map.of());
    }
    StringBuilder path = new StringBuilder("/api/usage?by=" + Client.encode(by));
    from.ifPresent(time -> path.append("&from=").append(Client.encode(time)));
    to.ifPresent(time -> path.append("&to=").append(Client.encode(time)));
    JsonNode usage = client.get(path.toString());
    if (asJson) {
      return print(usage);
    }
    List<List<String>> rows = new ArrayList<>();
    for (JsonNode row : usage.path("rows")) {
      rows.add(
          List.of(
              row.path(by).asText(),
              row.path("requests").asText(),
              row.path("prompt_tokens").asText(),
              row.path("completion_tokens").asText(),
              row.path("cached_requests").asText()));
    }
    table(
        List.of(by.toUpperCase(Locale.ROOT), "REQUESTS", "PROMPT", "COMPLETION", "FROM CACHE"),
        rows);
    return 0;
  }
}
