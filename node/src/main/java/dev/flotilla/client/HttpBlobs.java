package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.blobs.Blobs;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Blobs of a cluster, reached over HTTP. */
public final class HttpBlobs implements Blobs {

  private final Client client;

  /** Through the node that the client speaks to. */
  public HttpBlobs(Client client) {
    this.client = client;
  }

  private static String bucketed(String path, String bucket) {
    return path + "?bucket=" + Client.encode(bucket);
  }

  private static String name(String name) {
    return "/api/blobs/names/" + Client.encode(name);
  }

  private static Blob blob(JsonNode json) {
    return new Blob(json.path("digest").asText(), json.path("size").asLong());
  }

  private static Reference reference(JsonNode json) {
    return new Reference(
        json.path("bucket").asText(),
        json.path("name").asText(),
        json.path("digest").asText(),
        json.path("size").asLong(),
        json.path("version").asLong(),
        json.path("updated_at_ms").asLong());
  }

  private static Upload upload(JsonNode json) {
    return new Upload(
        json.path("id").asText(),
        json.path("bucket").asText(),
        json.path("offset").asLong(),
        json.path("created_at_ms").asLong());
  }

  private static Quota quota(JsonNode json) {
    return new Quota(
        json.path("bucket").asText(),
        json.path("bytes").asLong(),
        json.path("count").asLong(),
        json.path("bytes_max").asLong(),
        json.path("count_max").asLong());
  }

  private static List<NodeState> states(JsonNode json) {
    List<NodeState> states = new ArrayList<>();
    for (JsonNode node : json) {
      states.add(
          new NodeState(
              node.path("node").asText(),
              node.path("answers").asBoolean(),
              node.path("chunks").asLong(),
              node.path("bytes").asLong(),
              node.path("free_bytes").asLong(),
              node.path("damaged").asLong(),
              node.path("repaired").asLong(),
              node.path("scrubbed").asLong(),
              node.path("scrubbing").asBoolean(),
              node.path("scrub_finished_at_ms").asLong()));
    }
    return states;
  }

  private static JsonNode json(Client.Answer answer) {
    return Json.read(answer.body(), JsonNode.class);
  }

  /** Empty for a 404. */
  private <T> Optional<T> found(java.util.function.Supplier<T> ask) {
    try {
      return Optional.of(ask.get());
    } catch (FlotillaException e) {
      if (e.code() == Code.NOT_FOUND) {
        return Optional.empty();
      }
      throw e;
    }
  }

  @Override
  public Blob put(String bucket, InputStream content) {
    return blob(client.send("POST", bucketed("/api/blobs", bucket), content));
  }

  @Override
  public Optional<Blob> find(String digest) {
    Client.Answer answer =
        client.exchange("HEAD", "/api/blobs/" + digest, Map.of(), new byte[0], 404);
    return answer.status() == 404
        ? Optional.empty()
        : answer.header("content-length").map(length -> new Blob(digest, Long.parseLong(length)));
  }

  @Override
  public InputStream read(String digest, long offset, long length) {
    if (offset < 0 || length < 0) {
      throw new FlotillaException(Code.INVALID, "no such bytes: " + offset + ", " + length, "");
    }
    if (length == 0) {
      return InputStream.nullInputStream();
    }
    boolean whole = offset == 0 && length == Long.MAX_VALUE;
    long end = length > Long.MAX_VALUE / 2 ? Long.MAX_VALUE / 10 : offset + length - 1;
    return client.receive(
        "/api/blobs/" + digest, whole ? Map.of() : Map.of("Range", "bytes=" + offset + "-" + end));
  }

  @Override
  public Reference name(
      String bucket, String name, String digest, Optional<Long> version, Optional<Fence> fence) {
    ObjectNode body = Json.MAPPER.createObjectNode().put("bucket", bucket).put("digest", digest);
    version.ifPresent(number -> body.put("version", number));
    fence.ifPresent(
        token -> body.putObject("fence").put("lock", token.lock()).put("token", token.token()));
    return reference(
        json(
            client.exchange(
                "PUT", name(name), Map.of("Content-Type", "application/json"), Json.write(body))));
  }

  @Override
  public Optional<Reference> reference(String bucket, String name) {
    return found(() -> reference(client.get(bucketed(name(name), bucket))));
  }

  @Override
  public List<Reference> list(String bucket, String prefix, String after, int limit) {
    List<Reference> found = new ArrayList<>();
    for (JsonNode one :
        client.get(
            bucketed("/api/blobs", bucket)
                + "&prefix="
                + Client.encode(prefix)
                + "&after="
                + Client.encode(after)
                + "&limit="
                + limit)) {
      found.add(reference(one));
    }
    return found;
  }

  @Override
  public boolean remove(String bucket, String name, Optional<Fence> fence) {
    String guard =
        fence
            .map(token -> "&lock=" + Client.encode(token.lock()) + "&token=" + token.token())
            .orElse("");
    return client
            .exchange("DELETE", bucketed(name(name), bucket) + guard, Map.of(), new byte[0], 404)
            .status()
        != 404;
  }

  @Override
  public Upload startUpload(String bucket) {
    return upload(client.post("/api/blobs/uploads", Map.of("bucket", bucket)));
  }

  @Override
  public Upload upload(String id) {
    return upload(client.get("/api/blobs/uploads/" + Client.encode(id)));
  }

  @Override
  public Upload append(String id, long offset, InputStream content) {
    return upload(
        client.send(
            "PUT", "/api/blobs/uploads/" + Client.encode(id) + "?offset=" + offset, content));
  }

  @Override
  public Blob complete(String id, Optional<String> digest) {
    return blob(
        client.post(
            "/api/blobs/uploads/" + Client.encode(id) + "/complete",
            digest.map(expected -> Map.of("digest", expected)).orElse(Map.of())));
  }

  @Override
  public void abandon(String id) {
    client.delete("/api/blobs/uploads/" + Client.encode(id));
  }

  @Override
  public Quota quota(String bucket) {
    return quota(client.get("/api/blobs/quotas/" + Client.encode(bucket)));
  }

  @Override
  public Quota limit(String bucket, long bytesMax, long countMax) {
    return quota(
        json(
            client.exchange(
                "PUT",
                "/api/blobs/quotas/" + Client.encode(bucket),
                Map.of("Content-Type", "application/json"),
                Json.write(Map.of("bytes_max", bytesMax, "count_max", countMax)))));
  }

  @Override
  public List<NodeState> scrub() {
    return states(client.post("/api/blobs/scrub", Map.of()));
  }

  @Override
  public List<NodeState> nodes() {
    return states(client.get("/api/blobs/stats"));
  }
}
