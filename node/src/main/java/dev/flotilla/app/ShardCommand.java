package dev.flotilla.app;

import dev.flotilla.client.HttpSharding;
import dev.flotilla.data.sql.Sharding;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** How tables are spread over the nodes, and changes of that. */
@Command(
    name = "shard",
    description = "Show how tables are spread over the nodes, split and move shards.",
    subcommands = {
      ShardCommand.Tables.class,
      ShardCommand.Explain.class,
      ShardCommand.Skew.class,
      ShardCommand.Split.class,
      ShardCommand.Move.class
    },
    mixinStandardHelpOptions = true)
final class ShardCommand implements Callable<Integer> {

  @Spec private CommandSpec spec = CommandSpec.create();

  @Override
  public Integer call() {
    throw new CommandLine.ParameterException(
        spec.commandLine(), "Say what to do: list, explain, skew, split or move.");
  }

  private static void print(List<Sharding.TableShards> tables) {
    List<List<String>> rows = new ArrayList<>();
    for (Sharding.TableShards table : tables) {
      for (int i = 0; i < Math.max(1, table.shards().size()); i++) {
        List<String> values = table.shards().isEmpty() ? List.of() : table.shards().get(i).values();
        String what =
            switch (table.strategy()) {
              case HASH -> "";
              case RANGE -> values.isEmpty() ? "lowest" : "from " + values.getFirst();
              case LIST -> values.isEmpty() ? "all others" : String.join(", ", values);
            };
        List<String> nodes = table.shards().isEmpty() ? List.of() : table.shards().get(i).nodes();
        rows.add(
            List.of(
                i == 0 ? table.table() : "",
                i == 0 ? table.strategy().name() + " (" + table.column() + ")" : "",
                table.shards().isEmpty() ? "" : i + "",
                what,
                nodes.isEmpty() ? "any" : String.join(", ", nodes),
                i == 0 && table.moving() ? "rows are being moved" : ""));
      }
    }
    ClientCommand.table(List.of("TABLE", "BY", "SHARD", "VALUES", "NODES", ""), rows);
  }

  /** Prints what a statement touches; also for {@code flotilla sql --explain}. */
  static void print(Sharding.Explanation explanation) {
    List<List<String>> rows = new ArrayList<>();
    for (Sharding.TouchedTable table : explanation.tables()) {
      for (int i = 0; i < table.nodes().size(); i++) {
        Sharding.NodePartitions node = table.nodes().get(i);
        boolean first = i == 0;
        rows.add(
            List.of(
                first ? table.table() : "",
                first ? table.shards().isEmpty() ? "" : table.shards().toString() : "",
                first ? table.partitionsTouched() + " of " + table.partitions() : "",
                node.node(),
                node.partitions().size() + ""));
      }
    }
    ClientCommand.table(List.of("TABLE", "SHARDS", "PARTITIONS TOUCHED", "NODE", "ON IT"), rows);
    System.out.println();
    System.out.println(explanation.plan());
  }

  /** Prints how a table lies; also for {@code flotilla sql --skew}. */
  static void print(Sharding.Skew skew) {
    System.out.printf(
        "%s: %d rows, %d bytes; fullest node %.2f of the mean, fullest partition %.2f%n%n",
        skew.table(), skew.rows(), skew.bytes(), skew.imbalance(), skew.partitionImbalance());
    ClientCommand.table(
        List.of("NODE", "PARTITIONS", "ROWS", "BYTES"),
        skew.nodes().stream()
            .map(
                each ->
                    List.of(
                        each.node(), each.partitions() + "", each.rows() + "", each.bytes() + ""))
            .toList());
    System.out.println();
    ClientCommand.table(
        List.of("HOTTEST VALUE", "ROWS"),
        skew.hottest().stream().map(each -> List.of(each.value(), each.rows() + "")).toList());
  }

  @Command(name = "list", description = "List sharded tables.", mixinStandardHelpOptions = true)
  static final class Tables extends ClientCommand {
    @Override
    public Integer call() {
      return print(new HttpSharding(client()).tables(), ShardCommand::print);
    }
  }

  @Command(
      name = "explain",
      description = "Show the partitions and nodes that a statement touches.",
      mixinStandardHelpOptions = true)
  static final class Explain extends ClientCommand {

    @Parameters(paramLabel = "STATEMENT")
    private String statement = "";

    @Override
    public Integer call() {
      return print(new HttpSharding(client()).explain(statement, List.of()), ShardCommand::print);
    }
  }

  @Command(
      name = "skew",
      description = "Measure how evenly a table lies.",
      mixinStandardHelpOptions = true)
  static final class Skew extends ClientCommand {

    @Parameters(paramLabel = "TABLE")
    private String table = "";

    @Override
    public Integer call() {
      return print(new HttpSharding(client()).skew(table), ShardCommand::print);
    }
  }

  @Command(
      name = "split",
      description = "Split a range in two, while statements go on.",
      mixinStandardHelpOptions = true)
  static final class Split extends ClientCommand {

    @Parameters(index = "0", paramLabel = "TABLE")
    private String table = "";

    @Parameters(index = "1", paramLabel = "AT")
    private String at = "";

    @Override
    public Integer call() {
      new HttpSharding(client()).split(table, at);
      System.out.println("split " + table + " at " + at);
      return 0;
    }
  }

  @Command(
      name = "move",
      description = "Move a shard to these nodes (none: any), while statements go on.",
      mixinStandardHelpOptions = true)
  static final class Move extends ClientCommand {

    @Parameters(index = "0", paramLabel = "TABLE")
    private String table = "";

    @Parameters(index = "1", paramLabel = "SHARD")
    private int shard;

    @Parameters(index = "2..*", paramLabel = "NODE")
    private List<String> nodes = List.of();

    @Override
    public Integer call() {
      new HttpSharding(client()).move(table, shard, nodes);
      System.out.println("moved shard " + shard + " of " + table);
      return 0;
    }
  }
}
