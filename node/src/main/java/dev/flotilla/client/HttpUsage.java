package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.data.usage.Usage;
import dev.flotilla.data.usage.UsageEvent;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The usage ledger, by its HTTP API. */
public final class HttpUsage implements Usage {

  private final Client client;

  /** Through this client's node. */
  public HttpUsage(Client client) {
    this.client = client;
  }

  /** {@inheritDoc} Over HTTP it waits for the node's answer, and fails if there is none. */
  @Override
  public void append(UsageEvent event) {
    var _ = client.post("/api/usage", Client.snakeCase(event));
  }

  @Override
  public Report report(long fromMs, long toMs, By by) {
    String group = by.name().toLowerCase(Locale.ROOT);
    JsonNode answer = client.get("/api/usage?from=" + fromMs + "&to=" + toMs + "&by=" + group);
    List<Row> rows = new ArrayList<>();
    for (JsonNode row : answer.path("rows")) {
      rows.add(
          new Row(
              row.path(group).asText(),
              row.path("requests").asLong(),
              row.path("prompt_tokens").asLong(),
              row.path("completion_tokens").asLong(),
              row.path("cached_requests").asLong()));
    }
    return new Report(
        Instant.parse(answer.path("from").asText()).toEpochMilli(),
        Instant.parse(answer.path("to").asText()).toEpochMilli(),
        rows,
        answer.path("watermark").asLong(),
        answer.path("head").asLong());
  }

  @Override
  public Rebuilt rebuild() {
    JsonNode answer = client.post("/api/usage/rebuild", Map.of());
    return new Rebuilt(answer.path("segments").asLong(), answer.path("events").asLong());
  }
}
