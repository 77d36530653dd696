package dev.flotilla.bench;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.io.IOException;
import java.net.http.HttpClient;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Correctness under faults: clients work on a real cluster while its nodes are killed, paused and
 * cut off, and what they were told is judged by checkers that know nothing of the product.
 */
@Command(
    name = "jepsen",
    description = "Correctness under kill -9, pauses and network cuts; exit code 0 if no anomaly.",
    mixinStandardHelpOptions = true)
final class JepsenBench implements Callable<Integer> {

  @Option(names = "--minutes", defaultValue = "2", description = "How long (${DEFAULT-VALUE}).")
  private double minutes;

  @Option(names = "--nodes", defaultValue = "3", description = "How many (${DEFAULT-VALUE}).")
  private int count;

  @Option(
      names = "--clients",
      defaultValue = "2",
      description = "Of each workload (${DEFAULT-VALUE}).")
  private int clientsEach;

  @Option(names = "--seed", description = "Of the clients and the faults; printed.")
  private long seed = System.nanoTime() & 0xffff;

  @Option(names = "--workload", description = "Only these: register, lock, bank, list-append, …")
  private List<String> only = List.of();

  @Option(
      names = "--fault",
      split = ",",
      description = "Only these: kill, pause, isolate, pair, one-way, or none.")
  private List<String> faults = List.of();

  @Option(
      names = "--plant",
      description = "A bug to plant, to see it caught: skip-fencing, acknowledge-before-majority.")
  private List<String> planted = List.of();

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  private long slowestReturnNs;
  private List<String> helped = List.of();

  @Override
  public Integer call() throws Exception {
    Faults.check(faults.stream().filter(fault -> !fault.equals("none")).toList());
    List<String> jvm = new ArrayList<>();
    planted.forEach(bug -> jvm.add("-Dflotilla.fault." + bug + "=true"));
    List<Workload> workloads =
        Workloads.all().stream().filter(w -> only.isEmpty() || only.contains(w.name())).toList();
    Map<String, Integer> happened = new TreeMap<>();
    try (Nodes nodes = new Nodes(count, 21_000, String.join(" ", jvm), false);
        HttpClient http = Api.client()) {
      say(
          "seed %d, %d nodes, %s, %.1f min: %s",
          seed,
          count,
          nodes.net().isPresent() ? "network namespaces" : "loopback (no cuts: needs root)",
          minutes,
          Workloads.names(workloads));
      for (Workload workload : workloads) {
        workload.prepare(api(http, nodes, 0));
      }
      try {
        run(nodes, http, workloads, happened);
        heal(nodes);
        awaitHealthy(nodes, http);
      } catch (RuntimeException e) {
        nodes.keepFolder();
        say("the run ends here; the nodes' logs are kept in %s", nodes.folder());
        e.printStackTrace();
        return 1;
      }
      return report(nodes, http, workloads, happened);
    }
  }

  private void run(
      Nodes nodes, HttpClient http, List<Workload> workloads, Map<String, Integer> happened)
      throws Exception {
    AtomicBoolean stop = new AtomicBoolean();
    AtomicReference<Throwable> broken = new AtomicReference<>();
    List<Thread> clients = new ArrayList<>();
    for (int w = 0; w < workloads.size(); w++) {
      for (int c = 0; c < clientsEach; c++) {
        Workload workload = workloads.get(w);
        int client = clients.size();
        Random random = new Random(seed + client);
        clients.add(
            Thread.ofPlatform()
                .name(workload.name() + "-" + c)
                .start(
                    () -> {
                      try {
                        while (!stop.get()) {
                          workload.step(client, api(http, nodes, random.nextInt(count)), random);
                          Thread.sleep(random.nextInt(30));
                        }
                      } catch (InterruptedException e) {
                        Thread.currentThread().interrupt();
                      } catch (RuntimeException | Error e) {
                        broken.compareAndSet(null, e);
                      }
                    }));
      }
    }
    long endNs = System.nanoTime() + (long) (minutes * 60e9);
    Random random = new Random(seed);
    Faults coming = new Faults(nodes, count, random, faults, fault -> say("%s", fault));
    Thread.sleep(2_000);
    while (System.nanoTime() < endNs && broken.get() == null) {
      if (!coming.possible().isEmpty()) {
        happened.merge(coming.next().kind(), 1, Integer::sum);
      }
      Thread.sleep(1_000 + random.nextInt(4_000));
    }
    slowestReturnNs = coming.slowestReturnNs();
    helped = coming.helped();
    stop.set(true);
    for (Thread client : clients) {
      client.join();
    }
    if (broken.get() != null) {
      throw new IllegalStateException("a client of the test broke", broken.get());
    }
  }

  private static void heal(Nodes nodes) throws IOException, InterruptedException {
    if (nodes.net().isPresent()) {
      nodes.net().get().heal();
    }
    nodes.awaitReady();
  }

  private void awaitHealthy(Nodes nodes, HttpClient http) throws InterruptedException {
    for (int i = 0; i < count; i++) {
      Workloads.must(
          api(http, nodes, i), "/api/sql", Map.of("statement", "SELECT 1", "arguments", List.of()));
    }
  }

  private int report(
      Nodes nodes, HttpClient http, List<Workload> workloads, Map<String, Integer> happened)
      throws IOException, InterruptedException {
    ObjectNode report = Json.MAPPER.createObjectNode().put("seed", seed);
    int anomalies = 0;
    int operations = 0;
    for (Workload workload : workloads) {
      List<String> found = workload.check(api(http, nodes, 0));
      anomalies += found.size();
      operations += workload.operations();
      report
          .putObject(workload.name())
          .put("operations", workload.operations())
          .put("anomalies", found.size());
      say(
          "%-12s %6d operations, %d anomalies",
          workload.name(), workload.operations(), found.size());
      found.stream().limit(5).forEach(a -> say("    %.2000s", a));
    }
    Api.ends().forEach((end, times) -> say("    %6d  %s", times, end));
    report.put("operations", operations).put("anomalies", anomalies);
    if (anomalies > 0) {
      nodes.keepFolder();
      for (Workload workload : workloads) {
        Files.write(nodes.folder().resolve(workload.name() + ".txt"), workload.history());
      }
      say("histories and the nodes' logs are kept in %s", nodes.folder());
    }
    ObjectNode faultCounts = report.putObject("faults");
    happened.forEach(faultCounts::put);
    if (slowestReturnNs > 0) {
      double slowestS = slowestReturnNs / 1e9;
      report.put("slowest_return_s", slowestS);
      say("the slowest killed node served again %.1f s after its new start", slowestS);
    }
    helped.forEach(node -> say("helped: %s", node));
    say("operations %d, faults %s, anomalies %d", operations, happened, anomalies);
    if (asJson) {
      System.out.println(report.toPrettyString());
    }
    return anomalies == 0 && helped.isEmpty() ? 0 : 1;
  }

  private void say(String format, Object... arguments) {
    (asJson ? System.err : System.out).printf(format + "%n", arguments);
  }

  private static Api api(HttpClient http, Nodes nodes, int index) {
    return new Api(http, nodes.url(index), nodes.key());
  }
}
