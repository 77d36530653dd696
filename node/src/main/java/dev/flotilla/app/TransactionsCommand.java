package dev.flotilla.app;

import com.fasterxml.jackson.databind.node.ArrayNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.data.sql.TransactionJson;
import dev.flotilla.data.sql.Transactions;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Transactions, running and ended, as people see them. */
@Command(
    name = "transactions",
    description = "List the transactions that run and the last that ran; with an ID, show one.",
    mixinStandardHelpOptions = true)
final class TransactionsCommand extends ClientCommand {

  @Parameters(index = "0", arity = "0..1", paramLabel = "ID", description = "One of them.")
  private Optional<String> id = Optional.empty();

  @Override
  public Integer call() {
    Transactions transactions = new HttpTransactions(client());
    return id.isPresent() ? show(transactions, id.get()) : list(transactions);
  }

  private int list(Transactions transactions) {
    List<Transactions.View> views = transactions.list();
    if (asJson) {
      ArrayNode json = Json.MAPPER.createArrayNode();
      views.forEach(view -> json.add(TransactionJson.toJson(view)));
      return print(json);
    }
    List<List<String>> rows = new ArrayList<>();
    for (Transactions.View view : views) {
      rows.add(
          List.of(
              view.id(),
              view.mode().name().toLowerCase(Locale.ROOT),
              view.state().name().toLowerCase(Locale.ROOT),
              view.originator(),
              Instant.ofEpochMilli(view.startedAtMs()).toString()));
    }
    table(List.of("ID", "MODE", "STATE", "ORIGINATOR", "STARTED"), rows);
    return 0;
  }

  private int show(Transactions transactions, String name) {
    Transactions.View view =
        transactions
            .find(name)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.NOT_FOUND,
                        "there is no transaction " + name + " any more",
                        "Nodes remember the last ones for about an hour."));
    if (asJson) {
      return print(TransactionJson.toJson(view));
    }
    System.out.printf(
        "%s: %s, %s, begun on %s%s%n",
        view.id(),
        view.mode().name().toLowerCase(Locale.ROOT),
        view.state().name().toLowerCase(Locale.ROOT),
        view.originator(),
        view.error().isEmpty() ? "" : " (" + view.error() + ")");
    for (Transactions.Participant participant : view.participants()) {
      System.out.println(
          "  node " + participant.node() + ": " + String.join(", ", participant.partitions()));
    }
    for (Transactions.StepDone step : view.steps()) {
      System.out.println("  " + Instant.ofEpochMilli(step.atMs()) + " " + step.what());
    }
    return 0;
  }
}
