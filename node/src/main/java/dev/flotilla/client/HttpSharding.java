package dev.flotilla.client;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.sql.Sharding;
import java.io.IOException;
import java.util.List;
import java.util.Map;

/** {@link Sharding} of a cluster, over HTTP. */
public final class HttpSharding implements Sharding {

  private static final ObjectMapper SNAKE_CASE =
      Json.MAPPER
          .copy()
          .setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
          .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);

  private final Client client;

  /** Of the node that the client speaks to. */
  public HttpSharding(Client client) {
    this.client = client;
  }

  private static <T> T as(JsonNode json, Class<T> type) {
    try {
      return SNAKE_CASE.treeToValue(json, type);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.FAILED,
          "the node's answer cannot be understood: " + e.getMessage(),
          "Is it of another version?",
          e);
    }
  }

  private static String path(String table, String what) {
    return "/api/tables/" + Client.encode(table) + "/" + what;
  }

  @Override
  public List<TableShards> tables() {
    return List.of(as(client.get("/api/sharding"), TableShards[].class));
  }

  @Override
  public TableShards table(String name) {
    return as(client.get(path(name, "sharding")), TableShards.class);
  }

  @Override
  public void execute(String statement) {
    client.post("/api/sharding", Map.of("statement", statement));
  }

  @Override
  public Explanation explain(String statement, List<Object> arguments) {
    return as(
        client.post("/api/sql/explain", Map.of("statement", statement, "arguments", arguments)),
        Explanation.class);
  }

  @Override
  public Skew skew(String table) {
    return as(client.get(path(table, "skew")), Skew.class);
  }

  @Override
  public void split(String table, String at) {
    client.post(path(table, "split"), Map.of("at", at));
  }

  @Override
  public void move(String table, int shard, List<String> nodes) {
    client.post(path(table, "move"), Map.of("shard", shard, "nodes", nodes));
  }
}
