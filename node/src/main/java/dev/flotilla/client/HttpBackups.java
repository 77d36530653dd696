package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.data.Backups;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Backups of the data grid, by its HTTP API. */
public final class HttpBackups implements Backups {

  private final Client client;

  /** Through this client. */
  public HttpBackups(Client client) {
    this.client = client;
  }

  @Override
  public Backup create(String name, Optional<String> folder) {
    Map<String, Object> body = new HashMap<>(Map.of("name", name));
    folder.ifPresent(f -> body.put("folder", f));
    return backup(client.post("/api/backups", body));
  }

  @Override
  public Backup addPoint(String name) {
    return backup(client.post("/api/backups/" + Client.encode(name) + "/points", Map.of()));
  }

  @Override
  public List<Backup> list() {
    List<Backup> backups = new ArrayList<>();
    client.get("/api/backups").forEach(node -> backups.add(backup(node)));
    return backups;
  }

  @Override
  public Instant restore(String name, Optional<String> folder, Optional<Instant> at) {
    Map<String, Object> body = new HashMap<>();
    folder.ifPresent(f -> body.put("folder", f));
    at.ifPresent(moment -> body.put("at_ms", moment.toEpochMilli()));
    JsonNode answer = client.post("/api/backups/" + Client.encode(name) + "/restore", body);
    return Instant.ofEpochMilli(answer.path("point_ms").asLong());
  }

  @Override
  public void delete(String name) {
    client.delete("/api/backups/" + Client.encode(name));
  }

  @Override
  public List<String> prune(Optional<Duration> age, Optional<Long> bytes) {
    Map<String, Object> body = new HashMap<>();
    age.ifPresent(limit -> body.put("older_than_ms", limit.toMillis()));
    bytes.ifPresent(limit -> body.put("bytes_max", limit));
    List<String> names = new ArrayList<>();
    client.post("/api/backup-prunes", body).path("deleted").forEach(n -> names.add(n.asText()));
    return names;
  }

  private static Backup backup(JsonNode node) {
    List<Instant> points = new ArrayList<>();
    node.path("points_ms").forEach(point -> points.add(Instant.ofEpochMilli(point.asLong())));
    List<String> without = new ArrayList<>();
    node.path("without").forEach(name -> without.add(name.asText()));
    return new Backup(
        node.path("name").asText(),
        Optional.ofNullable(node.get("folder")).map(JsonNode::asText),
        points,
        Optional.ofNullable(node.get("restorable"))
            .map(
                moments ->
                    new Moments(
                        Instant.ofEpochMilli(moments.path("from_ms").asLong()),
                        Instant.ofEpochMilli(moments.path("to_ms").asLong()),
                        moments.path("trouble").asText())),
        without);
  }
}
