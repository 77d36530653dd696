package dev.flotilla.simulate;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandWrite;
import java.nio.charset.StandardCharsets;
import java.util.SortedMap;
import org.jspecify.annotations.Nullable;

/** What must be so of every decision, whatever the conditions in it say. */
final class Checks implements Group.Observer {

  /** The kind of entries that only the holder of the lock of that name may write. */
  static final String GUARDED = "guarded";

  private final World world;

  /** The process that wrote the controller entry last. */
  private String controller = "";

  /** A process that may report for any head; empty for none. */
  private String trusted = "";

  private long controllers;
  private long placements;

  Checks(World world) {
    this.world = world;
  }

  /** Lets a process report for all heads: the others are not there. */
  void trust(String process) {
    trusted = process;
  }

  long controllers() {
    return controllers;
  }

  long placements() {
    return placements;
  }

  @Override
  public void decided(
      Group.Entry entry,
      Command command,
      SortedMap<Registry.Key, Registry.Entry> before,
      boolean written) {
    world.note(command.getWritesCount());
    if (!written) {
      return;
    }
    for (CommandWrite write : command.getWritesList()) {
      Registry.Key key = new Registry.Key(write.getKind(), write.getName());
      byte[] value = write.getValue().toByteArray();
      String machine = entry.origin().substring(0, entry.origin().indexOf('#'));
      switch (key.kind()) {
        case "controller" -> {
          controllers++;
          controller = entry.origin();
        }
        case "placement" -> {
          placements++;
          onlyTheController(entry, key);
        }
        case "node" -> {
          if (!key.name().equals(machine)) {
            onlyTheController(entry, key);
          }
        }
        case "replica-status" -> {
          if (write.hasValue() && !entry.origin().equals(trusted)) {
            onlyTheHead(machine, key, value, before);
          }
        }
        case GUARDED -> onlyTheHolder(key.name(), value, before);
        default -> {}
      }
    }
  }

  private void onlyTheController(Group.Entry entry, Registry.Key key) {
    if (!entry.origin().equals(controller)) {
      throw new Violation(
          entry.origin() + " wrote " + key + " though " + controller + " is the controller");
    }
  }

  private static void onlyTheHead(
      String machine,
      Registry.Key key,
      byte[] value,
      SortedMap<Registry.Key, Registry.Entry> before) {
    Registry.@Nullable Entry placement = before.get(new Registry.Key("placement", key.name()));
    JsonNode status = Json.read(value, JsonNode.class);
    if (placement == null || placement.epoch() != status.path("epoch").asLong()) {
      throw new Violation(
          machine + " reports of a placement of " + key.name() + " that is no more: " + status);
    }
    String head =
        Json.read(placement.value(), JsonNode.class).path("stages").path(0).path("node").asText();
    if (!head.equals(machine)) {
      throw new Violation(machine + " reports of " + key.name() + ", whose head is " + head);
    }
  }

  /** The token must be that of a claim that has the lock at this moment. */
  private static void onlyTheHolder(
      String lock, byte[] value, SortedMap<Registry.Key, Registry.Entry> before) {
    long token = Long.parseLong(new String(value, StandardCharsets.US_ASCII));
    Registry.@Nullable Entry entry = before.get(new Registry.Key("lock", lock));
    if (entry != null) {
      for (JsonNode claim : Json.read(entry.value(), JsonNode.class).path("granted")) {
        long its = claim.path("token").asLong();
        if (token == (its == 0 ? entry.epoch() : its)) {
          return;
        }
      }
    }
    throw new Violation("what " + lock + " guards was written with the stale token " + token);
  }
}
