package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.data.log.Log;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;

/** {@link Log} of a cluster, over HTTP. */
public final class HttpLog implements Log {

  private final Client client;

  /** Of the node that the client speaks to. */
  public HttpLog(Client client) {
    this.client = client;
  }

  private static String path(Query query) {
    StringBuilder path = new StringBuilder("/api/logs?limit=" + query.limit());
    if (!query.text().isEmpty()) {
      path.append("&query=").append(Client.encode(query.text()));
    }
    query.fromMs().ifPresent(ms -> path.append("&from=").append(ms));
    query.toMs().ifPresent(ms -> path.append("&to=").append(ms));
    query.node().ifPresent(node -> path.append("&node=").append(Client.encode(node)));
    query.level().ifPresent(level -> path.append("&level=").append(level.name()));
    return path.toString();
  }

  private static Entry entry(JsonNode json) {
    Map<String, String> fields = new HashMap<>();
    json.path("fields").properties().forEach(f -> fields.put(f.getKey(), f.getValue().asText()));
    return new Entry(
        json.path("time_ms").asLong(),
        json.path("node").asText(),
        json.path("seq").asLong(),
        Level.valueOf(json.path("level").asText()),
        json.path("logger").asText(),
        json.path("message").asText(),
        fields);
  }

  @Override
  public Page search(Query query) {
    JsonNode page = client.get(path(query));
    List<Entry> entries = new ArrayList<>();
    page.path("entries").forEach(each -> entries.add(entry(each)));
    List<String> missing = new ArrayList<>();
    page.path("missing").forEach(each -> missing.add(each.asText()));
    return new Page(entries, page.path("partial").asBoolean(), missing);
  }

  @Override
  public void follow(Query query, Predicate<Optional<Entry>> onEntry) {
    client.lines(
        path(query) + "&follow=true",
        line -> onEntry.test(line.isEmpty() ? Optional.empty() : Optional.of(entry(json(line)))));
  }

  private static JsonNode json(String line) {
    try {
      return Json.MAPPER.readTree(line);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static String streamPath(String name) {
    return "/api/streams/" + Client.encode(name);
  }

  @Override
  public long append(String stream, List<byte[]> records) {
    List<String> encoded =
        records.stream().map(each -> Base64.getEncoder().encodeToString(each)).toList();
    return client
        .post(streamPath(stream) + "/batch", Map.of("records", encoded))
        .path("offset")
        .asLong();
  }

  @Override
  public List<StreamRecord> read(String stream, long from, int max, long waitMs) {
    List<StreamRecord> records = new ArrayList<>();
    client
        .get(streamPath(stream) + "?from=" + from + "&max=" + max + "&wait_ms=" + waitMs)
        .path("records")
        .forEach(
            each ->
                records.add(
                    new StreamRecord(
                        each.path("offset").asLong(),
                        each.path("time_ms").asLong(),
                        Base64.getDecoder().decode(each.path("body").asText()))));
    return records;
  }

  private static StreamInfo info(JsonNode json) {
    return new StreamInfo(
        json.path("name").asText(), json.path("first").asLong(), json.path("next").asLong());
  }

  @Override
  public StreamInfo stream(String name) {
    return info(client.get(streamPath(name) + "?max=1"));
  }

  @Override
  public List<StreamInfo> streams() {
    List<StreamInfo> all = new ArrayList<>();
    client.get("/api/streams").forEach(each -> all.add(info(each)));
    return all;
  }

  @Override
  public void trim(String stream, long before) {
    client.post(streamPath(stream) + "/trim", Map.of("before", before));
  }
}
