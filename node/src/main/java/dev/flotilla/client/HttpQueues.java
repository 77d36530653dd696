package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.QueueConfig;
import dev.flotilla.data.queue.Queues;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The queues of a cluster, reached over HTTP. */
public final class HttpQueues implements Queues {

  private final Client client;

  /** The queues of the cluster that the client speaks to. */
  public HttpQueues(Client client) {
    this.client = client;
  }

  private static String path(String name, String action) {
    return "/api/queues/" + Client.encode(name) + action;
  }

  /** Made by the first call that sends or receives, if nobody makes it before. */
  @Override
  public Queue queue(String name) {
    return new Remote(name);
  }

  @Override
  public Optional<Queue> find(String name) {
    return names().contains(name) ? Optional.of(queue(name)) : Optional.empty();
  }

  @Override
  public Queue create(String name, QueueConfig config) {
    var _ = client.post(path(name, ""), Client.snakeCase(config));
    return queue(name);
  }

  @Override
  public List<String> names() {
    List<String> names = new ArrayList<>();
    client.get("/api/queues").forEach(name -> names.add(name.asText()));
    return names;
  }

  @Override
  public boolean delete(String name) {
    try {
      client.delete(path(name, ""));
      return true;
    } catch (FlotillaException e) {
      if (e.code() == Code.NOT_FOUND) {
        return false;
      }
      throw e;
    }
  }

  private static byte[] body(JsonNode node) {
    try {
      return node.has("body_base64")
          ? node.path("body_base64").binaryValue()
          : node.path("body").asText().getBytes(StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new FlotillaException(Code.FAILED, "the node sent a body that is not base64", "", e);
    }
  }

  private static void putFence(Map<String, Object> body, Optional<Fence> fence) {
    fence.ifPresent(f -> body.put("fence", Map.of("lock", f.lock(), "token", f.token())));
  }

  private final class Remote implements Queue {

    private final String name;

    Remote(String name) {
      this.name = name;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public List<String> send(List<Outgoing> messages, Optional<Fence> fence) {
      List<Map<String, Object>> all = new ArrayList<>();
      for (Outgoing message : messages) {
        Map<String, Object> one = new LinkedHashMap<>();
        one.put("key", message.key());
        one.put("body_base64", Base64.getEncoder().encodeToString(message.body()));
        message.dedupId().ifPresent(id -> one.put("dedup_id", id));
        one.put("delay_ms", message.delay().toMillis());
        one.put("priority", message.priority());
        all.add(one);
      }
      Map<String, Object> body = new LinkedHashMap<>();
      body.put("messages", all);
      putFence(body, fence);
      List<String> ids = new ArrayList<>();
      client.post(path(name, "/messages"), body).path("ids").forEach(id -> ids.add(id.asText()));
      return ids;
    }

    @Override
    public List<Message> receive(
        String group, String consumer, int max, Duration visibility, Duration wait) {
      Map<String, Object> body =
          Map.of(
              "group", group,
              "consumer", consumer,
              "max", max,
              "visibility_ms", visibility.toMillis(),
              "wait_ms", wait.toMillis());
      JsonNode answer;
      try {
        answer = client.post(path(name, "/receive"), body);
      } catch (FlotillaException e) {
        if (e.code() != Code.NOT_FOUND) {
          throw e;
        }
        // Whoever asks for a queue by queue(name) wants it made.
        var _ = client.post(path(name, ""), Map.of());
        answer = client.post(path(name, "/receive"), body);
      }
      List<Message> messages = new ArrayList<>();
      for (JsonNode node : answer) {
        messages.add(
            new Message(
                node.path("id").asText(),
                node.path("receipt").asText(),
                node.path("key").asText(),
                body(node),
                node.path("attempt").asInt()));
      }
      return messages;
    }

    @Override
    public void acknowledge(List<String> receipts, Optional<Fence> fence) {
      Map<String, Object> body = new LinkedHashMap<>();
      body.put("receipts", receipts);
      putFence(body, fence);
      var _ = client.post(path(name, "/ack"), body);
    }

    @Override
    public void giveBack(List<String> receipts, Duration delay) {
      var _ =
          client.post(
              path(name, "/nack"), Map.of("receipts", receipts, "delay_ms", delay.toMillis()));
    }

    @Override
    public Stats stats() {
      JsonNode node = client.get(path(name, ""));
      JsonNode config = node.path("config");
      List<GroupStats> groups = new ArrayList<>();
      for (JsonNode group : node.path("groups")) {
        groups.add(
            new GroupStats(
                group.path("group").asText(),
                group.path("depth").asLong(),
                group.path("in_flight").asLong(),
                group.path("dead").asLong()));
      }
      return new Stats(
          name,
          new QueueConfig(
              config.path("partitions").asInt(),
              config.path("depth_max").asLong(),
              config.path("attempts_max").asInt(),
              config.path("retention_ms").asLong(),
              config.path("dedup_ms").asLong()),
          node.path("sent").asLong(),
          groups);
    }

    @Override
    public List<Dead> dead(int max) {
      List<Dead> dead = new ArrayList<>();
      for (JsonNode node : client.get(path(name, "/dead"))) {
        if (dead.size() < max) {
          dead.add(
              new Dead(
                  node.path("id").asText(),
                  node.path("group").asText(),
                  node.path("key").asText(),
                  body(node),
                  node.path("died_at_ms").asLong()));
        }
      }
      return dead;
    }

    @Override
    public int redrive(int max) {
      return client.post(path(name, "/redrive"), Map.of("max", max)).path("redriven").asInt();
    }

    @Override
    public void replay(String group, long fromMs) {
      var _ = client.post(path(name, "/replay"), Map.of("group", group, "from_ms", fromMs));
    }
  }
}
