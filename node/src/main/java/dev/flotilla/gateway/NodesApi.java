package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Versions;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * Nodes that leave, for a while or for good.
 *
 * <pre>
 * POST   /api/cluster/nodes/{id or name}/drain → {"id","name","state":"draining","replicas":[those
 *        that still run there, for want of room elsewhere]}
 * DELETE /api/cluster/nodes/{id or name}/drain → {"id","name","state":"up"}
 * DELETE /api/cluster/nodes/{id or name}[?force=true] → {"id","name","state":"removed"}
 *        409 if it has the last copy of something; with force that is given up
 * </pre>
 */
final class NodesApi {

  /** How long the others may take to do without it, before the answer says so. */
  private static final Duration PATIENCE = Duration.ofSeconds(30);

  private final GatewayServices services;

  NodesApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.named("POST", "/api/cluster/nodes/*/drain", Access.KEY, this::drain),
        Route.named("DELETE", "/api/cluster/nodes/*/drain", Access.KEY, this::undrain),
        Route.named("POST", "/api/cluster/nodes/*/restart", Access.WORK, this::restart)
            .fields("home", "check"),
        Route.named("DELETE", "/api/cluster/nodes/*", Access.WORK, this::remove).query("force"));
  }

  private void drain(Exchange exchange, String idOrName) throws InterruptedException {
    NodeInfo node = find(idOrName);
    ObjectNode answer = answer(node).put("state", "draining");
    services.deployments().drain(node.id(), PATIENCE).forEach(answer.putArray("replicas")::add);
    exchange.send(200, answer);
  }

  private void undrain(Exchange exchange, String idOrName) {
    NodeInfo node = find(idOrName);
    services.cluster().drain(node.id(), false);
    exchange.send(200, answer(node).put("state", "up"));
  }

  private void restart(Exchange exchange, String idOrName) {
    if (!exchange.keyName().equals(ApiKeys.ADMIN)) {
      // It runs a program of the machine.
      throw ApiError.of(403, "forbidden", "Only the admin key restarts nodes.");
    }
    NodeInfo node = find(idOrName);
    if (!node.id().equals(services.cluster().self())) {
      throw new FlotillaException(
          Code.CONFLICT,
          "this is not node " + node.id(),
          "Ask that node itself, at " + node.host() + ":" + node.httpPort() + ".");
    }
    Fields fields = exchange.json();
    Restarts restarts = services.restarts();
    Restarts.Build now = restarts.running();
    boolean check = fields.flag("check", false);
    if (!check) {
      // First, for who is told to wait asks again, and to look at a build may take long.
      checkOthersAreFilled(node);
    }
    Restarts.Build next =
        restarts.look(fields.text("home").map(NodesApi::folder).orElse(now.home()));
    for (NodeInfo other : services.cluster().nodes()) {
      if (!Versions.adjacent(next.version(), other.version())) {
        throw new FlotillaException(
            Code.CONFLICT,
            "version "
                + next.version()
                + " in "
                + next.home()
                + " cannot be in one cluster with version "
                + other.version()
                + " of node "
                + other.id()
                + " ("
                + other.name()
                + ")",
            "Go through the minor versions between, one after the other.");
      }
    }
    ObjectNode answer = answer(node);
    answer.put("home", now.home().toString()).put("version", now.version());
    answer.putObject("next").put("home", next.home().toString()).put("version", next.version());
    if (!check) {
      checkOthersAreFilled(node); // another node may have been lost meanwhile
      restarts.restart(next);
    }
    exchange.send(200, answer);
  }

  private static Path folder(String text) {
    try {
      Path folder = Path.of(text);
      if (folder.isAbsolute()) {
        return folder.normalize();
      }
    } catch (InvalidPathException e) {
      // Said below.
    }
    throw ApiError.invalid("home", "home must be the absolute path of a folder on that machine.");
  }

  /** What only this node has a whole copy of would be away while it restarts. */
  private void checkOthersAreFilled(NodeInfo node) {
    List<String> only =
        services.cluster().nodes().size() == 1 ? List.of() : services.data().onlyOn(node.id());
    if (!only.isEmpty()) {
      throw new FlotillaException(
          Code.CONFLICT,
          "no other node has a whole copy yet of " + String.join("; ", only),
          "Wait until the other nodes have been filled.");
    }
  }

  private static ObjectNode answer(NodeInfo node) {
    return Json.MAPPER.createObjectNode().put("id", node.id()).put("name", node.name());
  }

  private void remove(Exchange exchange, String idOrName) throws InterruptedException {
    NodeInfo node = find(idOrName);
    if (!exchange.query("force").orElse("false").equals("true")) {
      checkNothingLost(node);
    }
    services.cluster().remove(node.id());
    exchange.send(200, answer(node).put("state", awaitGone(node.id()) ? "removed" : "leaving"));
  }

  private NodeInfo find(String idOrName) {
    List<NodeInfo> nodes = services.cluster().nodes();
    List<NodeInfo> found =
        nodes.stream()
            .filter(node -> node.id().equals(idOrName) || node.name().equals(idOrName))
            .toList();
    if (found.size() == 1) {
      return found.getFirst();
    }
    throw found.isEmpty()
        ? new FlotillaException(
            Code.NOT_FOUND, "no node " + idOrName + " in this cluster", "`flotilla ps` lists them.")
        : new FlotillaException(
            Code.CONFLICT,
            "there are " + found.size() + " nodes of the name " + idOrName,
            "Name it by its id; `flotilla ps` lists them.");
  }

  private void checkNothingLost(NodeInfo node) {
    List<String> lost = new ArrayList<>(services.data().onlyOn(node.id()));
    List<String> models = services.deployments().modelsOnlyOn(node.id());
    if (!models.isEmpty()) {
      lost.add("the files of models " + String.join(", ", models));
    }
    if (!lost.isEmpty()) {
      throw new FlotillaException(
          Code.CONFLICT,
          "without node "
              + node.id()
              + " ("
              + node.name()
              + ") this would be lost, for no other node that answers has a whole copy: "
              + String.join("; ", lost),
          "Wait until the other nodes have been filled, start those that are down, or give it up"
              + " with --force.");
    }
  }

  private boolean awaitGone(String id) throws InterruptedException {
    Cluster cluster = services.cluster();
    long deadlineNs = services.nanoTime().getAsLong() + PATIENCE.toNanos();
    while (cluster.isMember(id) || services.data().grid().isMember(id)) {
      if (services.nanoTime().getAsLong() > deadlineNs) {
        return false;
      }
      Thread.sleep(100);
    }
    return true;
  }
}
