package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.data.jobs.Jobs;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Jobs through a node's HTTP API. */
public final class HttpJobs implements Jobs {

  private final Client client;

  /** Through this client's node. */
  public HttpJobs(Client client) {
    this.client = client;
  }

  private static String path(String id) {
    return "/api/jobs/" + Client.encode(id);
  }

  @Override
  public Map<String, String> definitions() {
    Map<String, String> all = new TreeMap<>();
    client
        .get("/api/job-definitions")
        .forEach(one -> all.put(one.path("job").asText(), one.path("description").asText()));
    return all;
  }

  @Override
  public String submit(String job, JsonNode input) {
    return client.post("/api/jobs", Map.of("job", job, "input", input)).path("id").asText();
  }

  @Override
  public View show(String id) {
    return view(client.get(path(id)));
  }

  @Override
  public List<View> list() {
    List<View> all = new ArrayList<>();
    client.get("/api/jobs").forEach(job -> all.add(view(job)));
    return all;
  }

  private static View view(JsonNode job) {
    return new View(
        job.path("id").asText(),
        job.path("job").asText(),
        job.path("state").asText(),
        job.path("reason").asText(),
        job.path("coordinator").asText(),
        job.path("tasks").asInt(),
        job.path("done").asInt(),
        job.path("attempts").asInt(),
        job.path("copies").asInt(),
        job.path("rows").asLong(),
        job.path("created_at_ms").asLong(),
        job.path("updated_at_ms").asLong());
  }

  @Override
  public String cancel(String id) {
    byte[] answer = client.exchange("DELETE", path(id), Map.of(), new byte[0]).body();
    return Json.read(answer, JsonNode.class).path("state").asText();
  }

  @Override
  public List<Row> rows(String id, String after, int limit) {
    List<Row> rows = new ArrayList<>();
    client
        .get(path(id) + "/rows?limit=" + limit + "&after=" + Client.encode(after))
        .forEach(row -> rows.add(new Row(row.path("key").asText(), row.path("value"))));
    return rows;
  }
}
