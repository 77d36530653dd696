package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Brings all nodes to another build, one after the other, and back if one of them does not do well.
 */
@Command(
    name = "upgrade",
    description = {
      "Restart all nodes with another build, one after the other.",
      "Each one's replicas are loaded elsewhere first, so that running streams go on. Goes on only"
          + " when the node is back, answers, and all is served as before; else all nodes go back to"
          + " the build that they had. Where the build is in the folder that runs, this restarts"
          + " the nodes with what is there now, and there is no way back."
    },
    mixinStandardHelpOptions = true)
final class UpgradeCommand extends ClientCommand {

  @Option(
      names = "--to",
      paramLabel = "DIR",
      description =
          "The folder of the new build, with its program flotilla: the same on each machine"
              + " (default: where each node's own is).")
  private Optional<Path> to = Optional.empty();

  @Option(
      names = "--timeout",
      paramLabel = "SECONDS",
      defaultValue = "400",
      description =
          "How long a node may take to be back, and all to be served as before"
              + " (default ${DEFAULT-VALUE}).")
  private int timeoutS;

  private static final long POLL_MS = 500;

  /** Who was too slow is given at least so long to go back. */
  private static final int BACK_TIMEOUT_S = 300;

  /** A node, as it was before. */
  private record Member(
      String id, String name, String url, String home, String version, boolean leads) {

    @Override
    public String toString() {
      return name + " (" + id + ")";
    }
  }

  /** Which life of each node was to end. */
  private final Map<String, Long> lives = new HashMap<>();

  private final ObjectNode report = Json.MAPPER.createObjectNode();
  private final ArrayNode upgraded = report.putArray("nodes");

  @Override
  public Integer call() throws InterruptedException {
    Client any = client();
    String wanted = "";
    List<Member> members = new ArrayList<>();
    JsonNode cluster = any.get("/api/cluster");
    for (JsonNode node : cluster.path("nodes")) {
      requireUp(node);
      String url = any.base().getScheme() + "://" + node.path("address").asText();
      String id = node.path("id").asText();
      JsonNode look = client(url).post(path(id, "restart"), request(to.map(Path::toString), true));
      String next = look.path("next").path("version").asText();
      if (!wanted.isEmpty() && !wanted.equals(next)) {
        throw new FlotillaException(
            Code.CONFLICT,
            "the builds differ: version " + wanted + " on one machine, " + next + " on " + url,
            "Put the same build on all machines; nothing was changed.");
      }
      wanted = next;
      members.add(
          new Member(
              id,
              node.path("name").asText(),
              url,
              look.path("home").asText(),
              look.path("version").asText(),
              id.equals(cluster.path("leader").asText())));
    }
    // Whoever leads is last, so that leadership moves once.
    members.sort(Comparator.comparing(Member::leads));
    say("all " + members.size() + " nodes have a build of version " + wanted);
    return rollOut(members, wanted);
  }

  private static void requireUp(JsonNode node) {
    if (!node.path("state").asText().equals("up")) {
      throw new FlotillaException(
          Code.CONFLICT,
          "node "
              + node.path("id").asText()
              + " ("
              + node.path("name").asText()
              + ") is "
              + node.path("state").asText(),
          "Start it, take its drain back, or remove it first; nothing was changed.");
    }
  }

  private static String path(String id, String what) {
    return "/api/cluster/nodes/" + Client.encode(id) + "/" + what;
  }

  private static Map<String, Object> request(Optional<String> home, boolean check) {
    Map<String, Object> request = new HashMap<>();
    request.put("check", check);
    home.ifPresent(folder -> request.put("home", folder));
    return request;
  }

  private int rollOut(List<Member> members, String wanted) throws InterruptedException {
    List<Member> done = new ArrayList<>();
    for (Member member : members) {
      try {
        bring(member, to.map(Path::toString), wanted, members);
      } catch (FlotillaException e) {
        say(member + ": " + e.explanation());
        report.put("failed", member.id()).put("reason", e.explanation());
        done.add(member);
        boolean back = goBack(done.reversed(), members);
        report.put("rolled_back", back);
        if (asJson) {
          print(report);
        }
        System.err.println(
            "flotilla: the upgrade was stopped at node "
                + member
                + (back
                    ? "; all nodes run the build that they had"
                    : "; some nodes may still run the new build, see flotilla ps"));
        return 1;
      }
      upgraded.addObject().put("id", member.id()).put("from", member.version()).put("to", wanted);
      done.add(member);
    }
    report.put("rolled_back", false);
    return asJson ? print(report) : 0;
  }

  /** Those that were upgraded, back to what they had; whether that was done. */
  private boolean goBack(List<Member> done, List<Member> members) throws InterruptedException {
    timeoutS = Math.max(timeoutS, BACK_TIMEOUT_S);
    boolean all = true;
    for (Member member : done) {
      try {
        Client client = client(member.url());
        // It may be on its way still, to either build.
        long life = lives.getOrDefault(member.id(), -1L);
        await("it to be back", () -> life(client, member.id()) > life);
        await("it to be well", () -> healthy(client));
        JsonNode now = client.post(path(member.id(), "restart"), request(Optional.empty(), true));
        if (now.path("home").asText().equals(member.home())) {
          boolean another = !now.path("version").asText().equals(member.version());
          say(member + (another ? ": has no other build to go back to" : ": has its build"));
          all &= !another;
          continue;
        }
        bring(member, Optional.of(member.home()), member.version(), members);
      } catch (FlotillaException e) {
        say(member + ": cannot go back: " + e.explanation());
        all = false;
      }
    }
    return all;
  }

  /**
   * One node, to a build.
   *
   * @throws FlotillaException if it is not back in time with that version, or not all is as before
   */
  private void bring(Member member, Optional<String> home, String version, List<Member> members)
      throws InterruptedException {
    long beganNs = System.nanoTime();
    Client client = client(member.url());
    Map<String, Integer> before = ready(client);
    long life = life(client, member.id());
    try {
      if (members.size() > 1) {
        say(member + ": its replicas go elsewhere");
        // What finds no room elsewhere stays, and is not waited for.
        await(
            "its replicas to be elsewhere",
            () ->
                client.post(path(member.id(), "drain"), Map.of()).path("replicas").isEmpty()
                    || !isLoading(client));
      }
      await(
          "the others to have what it has",
          () -> {
            if (life(client, member.id()) > life) {
              return true; // it was told, and the answer was lost
            }
            try {
              client.post(path(member.id(), "restart"), request(home, false));
              return true;
            } catch (FlotillaException e) {
              if (e.code() == Code.CONFLICT) {
                // It is asked again, and said if nothing changes.
                throw new FlotillaException(Code.UNAVAILABLE, e.explanation(), "", e);
              }
              throw e;
            }
          });
    } catch (FlotillaException e) {
      client.delete(path(member.id(), "drain"));
      throw e;
    }
    lives.put(member.id(), life);
    say(member + ": restarts");
    await("it to be back", () -> life(client, member.id()) > life);
    await("it to be well", () -> healthy(client));
    String now = node(client, member.id()).path("version").asText();
    if (!now.equals(version)) {
      throw new FlotillaException(
          Code.FAILED,
          "it is back with version " + now + ", not " + version,
          "The new build did not start there; what it said is where the node's standard error goes,"
              + " and in its log.");
    }
    await(
        "all to be served as before",
        () ->
            members.stream()
                    .allMatch(
                        each ->
                            healthy(client(each.url()))
                                && node(client, each.id()).path("state").asText().equals("up"))
                && as(before, ready(client)));
    say(
        member
            + ": is well with version "
            + now
            + ", after "
            + Duration.ofNanos(System.nanoTime() - beganNs).toSeconds()
            + " s");
  }

  private static boolean isLoading(Client client) {
    for (JsonNode deployment : client.get("/api/deployments")) {
      for (JsonNode replica : deployment.path("replicas")) {
        if (replica.path("state").asText().equals("loading")) {
          return true;
        }
      }
    }
    return false;
  }

  /** How many replicas of each model are ready. */
  private static Map<String, Integer> ready(Client client) {
    Map<String, Integer> ready = new HashMap<>();
    for (JsonNode deployment : client.get("/api/deployments")) {
      int count = 0;
      for (JsonNode replica : deployment.path("replicas")) {
        count += replica.path("state").asText().equals("ready") ? 1 : 0;
      }
      ready.put(deployment.path("model").asText(), count);
    }
    return ready;
  }

  private static boolean as(Map<String, Integer> before, Map<String, Integer> now) {
    return before.entrySet().stream()
        .allMatch(one -> now.getOrDefault(one.getKey(), one.getValue()) >= one.getValue());
  }

  private static boolean healthy(Client client) {
    return client.get("/health").path("status").asText().equals("ok");
  }

  private static long life(Client client, String id) {
    return node(client, id).path("incarnation").asLong();
  }

  private static JsonNode node(Client client, String id) {
    for (JsonNode node : client.get("/api/cluster").path("nodes")) {
      if (node.path("id").asText().equals(id)) {
        return node;
      }
    }
    throw new FlotillaException(Code.NOT_FOUND, "node " + id + " is not in the cluster", "");
  }

  private void await(String what, BooleanSupplier condition) throws InterruptedException {
    long endNs = System.nanoTime() + Duration.ofSeconds(timeoutS).toNanos();
    String last = "";
    while (System.nanoTime() < endNs) {
      try {
        if (condition.getAsBoolean()) {
          return;
        }
      } catch (FlotillaException e) {
        if (e.code() != Code.UNAVAILABLE && e.code() != Code.NO_MAJORITY) {
          throw e;
        }
        last = ": " + e.getMessage();
      }
      Thread.sleep(POLL_MS);
    }
    throw new FlotillaException(
        Code.UNAVAILABLE, "waited " + timeoutS + " s for " + what + last, "");
  }

  private void say(String line) {
    if (!asJson) {
      System.out.println(line);
    }
  }
}
