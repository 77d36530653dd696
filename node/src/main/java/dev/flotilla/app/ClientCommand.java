package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.function.Consumer;
import picocli.CommandLine.Option;

/** A command that asks a running node. */
abstract class ClientCommand implements Callable<Integer> {

  @Option(
      names = "--url",
      paramLabel = "URL",
      defaultValue = "http://127.0.0.1:8000",
      description = "A node's HTTP API (FLOTILLA_URL; default ${DEFAULT-VALUE}).")
  private String url = "";

  @Option(
      names = "--key",
      paramLabel = "KEY",
      description = "The API key (FLOTILLA_KEY; default: admin.key in the data folder).")
  private Optional<String> key = Optional.empty();

  @Option(
      names = "--data",
      paramLabel = "DIR",
      description = "The data folder that holds admin.key (FLOTILLA_DATA; default ~/.flotilla).")
  private Optional<Path> data = Optional.empty();

  @Option(names = "--json", description = "Print JSON.")
  boolean asJson;

  @Option(
      names = "--allow-stale",
      description = "Let a node that sees no majority answer reads, marked on standard error.")
  private boolean allowStale;

  private boolean marked;

  Client client() {
    return client(url);
  }

  /** A client of another node, with the same key. */
  Client client(String url) {
    Client client =
        new Client(url, key.or(() -> Client.keyIn(data.orElseGet(Client::defaultFolder))));
    return allowStale ? client.allowingStale(this::mark) : client;
  }

  private synchronized void mark() {
    if (!marked) {
      System.err.println("stale: the node that answered sees no majority of the cluster");
      marked = true;
    }
  }

  int print(JsonNode value) {
    System.out.println(value.toPrettyString());
    return 0;
  }

  /** Prints what was found, as JSON if that was asked for. */
  <T> int print(T found, Consumer<T> forPeople) {
    if (asJson) {
      return print(Client.snakeCase(found));
    }
    forPeople.accept(found);
    return 0;
  }

  static String json(Object value) {
    return Json.MAPPER.valueToTree(value).toPrettyString();
  }

  /** Prints rows under a header, each column as wide as its widest cell. */
  static void table(List<String> header, List<List<String>> rows) {
    List<List<String>> all = new ArrayList<>();
    all.add(header);
    all.addAll(rows);
    int[] widths = new int[header.size()];
    for (List<String> row : all) {
      for (int i = 0; i < widths.length; i++) {
        widths[i] = Math.max(widths[i], row.get(i).length());
      }
    }
    for (List<String> row : all) {
      StringBuilder line = new StringBuilder();
      for (int i = 0; i < widths.length; i++) {
        line.append(row.get(i)).repeat(" ", widths[i] - row.get(i).length() + 2);
      }
      System.out.println(line.toString().stripTrailing());
    }
  }
}
