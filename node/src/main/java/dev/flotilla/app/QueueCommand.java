package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpQueues;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.Queues;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Queues from the shell. */
@Command(
    name = "queue",
    description = "Use the queues of the cluster.",
    mixinStandardHelpOptions = true,
    synopsisSubcommandLabel = "COMMAND",
    subcommands = {
      QueueCommand.Send.class,
      QueueCommand.Receive.class,
      QueueCommand.Acknowledge.class,
      QueueCommand.GiveBack.class,
      QueueCommand.Show.class,
      QueueCommand.Everything.class,
      QueueCommand.DeadLetters.class,
      QueueCommand.Redrive.class,
      QueueCommand.Replay.class,
      QueueCommand.Remove.class
    })
final class QueueCommand {

  private static final Duration VISIBILITY = Duration.ofSeconds(30);

  /** What each of them starts with. */
  abstract static class OfOne extends ClientCommand {
    @Parameters(index = "0", paramLabel = "QUEUE", description = "The queue's name.")
    String name = "";

    Queues queues() {
      return new HttpQueues(client());
    }

    Queue queue() {
      return queues().queue(name);
    }

    /** One that is there: who only looks into it makes none. */
    Queue existing() {
      return queues()
          .find(name)
          .orElseThrow(
              () ->
                  new FlotillaException(
                      Code.NOT_FOUND, "there is no queue " + name, "To make it, send to it."));
    }

    int say(Object json, String text) {
      System.out.println(asJson ? json(json) : text);
      return 0;
    }
  }

  @Command(name = "send", description = "Send a message.", mixinStandardHelpOptions = true)
  static final class Send extends OfOne {
    @Parameters(index = "1", paramLabel = "BODY", description = "The message.")
    private String body = "";

    @Option(names = "--message-key", description = "Messages of one key are handed out in order.")
    private String messageKey = "";

    @Option(names = "--dedup-id", description = "Sent once, however often this is repeated.")
    private Optional<String> dedupId = Optional.empty();

    @Option(names = "--delay-ms", defaultValue = "0", description = "Not handed out before.")
    private long delayMs;

    @Option(names = "--priority", defaultValue = "0", description = "0 to 9; higher comes first.")
    private int priority;

    @Override
    public Integer call() {
      String id =
          queue()
              .send(
                  new Queue.Outgoing(
                      messageKey,
                      body.getBytes(StandardCharsets.UTF_8),
                      dedupId,
                      Duration.ofMillis(delayMs),
                      priority));
      return say(Map.of("id", id), id);
    }
  }

  @Command(
      name = "receive",
      description = "Receive messages; acknowledge them with their receipts, or with --ack.",
      mixinStandardHelpOptions = true)
  static final class Receive extends OfOne {
    @Option(names = "--max", defaultValue = "1", description = "How many (${DEFAULT-VALUE}).")
    private int max;

    @Option(names = "--group", defaultValue = "default", description = "The consumers' group.")
    private String group = "";

    @Option(names = "--wait-ms", defaultValue = "0", description = "How long to wait for one.")
    private long waitMs;

    @Option(names = "--ack", description = "Acknowledge them once they are printed.")
    private boolean acknowledge;

    @Override
    public Integer call() throws InterruptedException {
      List<Queue.Message> messages =
          existing().receive(group, "shell", max, VISIBILITY, Duration.ofMillis(waitMs));
      if (asJson) {
        System.out.println(json(messages.stream().map(Receive::shown).toList()));
      } else {
        List<List<String>> rows = new ArrayList<>();
        for (Queue.Message message : messages) {
          rows.add(
              List.of(
                  message.id(),
                  message.receipt(),
                  message.key(),
                  Integer.toString(message.attempt()),
                  new String(message.body(), StandardCharsets.UTF_8)));
        }
        table(List.of("ID", "RECEIPT", "KEY", "ATTEMPT", "BODY"), rows);
      }
      System.out.flush();
      if (acknowledge && !messages.isEmpty()) {
        queue()
            .acknowledge(messages.stream().map(Queue.Message::receipt).toList(), Optional.empty());
      }
      return 0;
    }

    private static Map<String, Object> shown(Queue.Message message) {
      return Map.of(
          "id", message.id(),
          "receipt", message.receipt(),
          "key", message.key(),
          "attempt", message.attempt(),
          "body", new String(message.body(), StandardCharsets.UTF_8));
    }
  }

  @Command(name = "ack", description = "Acknowledge messages.", mixinStandardHelpOptions = true)
  static final class Acknowledge extends OfOne {
    @Parameters(index = "1..*", arity = "1..*", paramLabel = "RECEIPT")
    private List<String> receipts = List.of();

    @Override
    public Integer call() {
      queue().acknowledge(receipts, Optional.empty());
      return say(Map.of("acknowledged", receipts.size()), receipts.size() + " acknowledged");
    }
  }

  @Command(name = "nack", description = "Give messages back.", mixinStandardHelpOptions = true)
  static final class GiveBack extends OfOne {
    @Parameters(index = "1..*", arity = "1..*", paramLabel = "RECEIPT")
    private List<String> receipts = List.of();

    @Option(names = "--delay-ms", defaultValue = "0", description = "Not handed out before.")
    private long delayMs;

    @Override
    public Integer call() {
      queue().giveBack(receipts, Duration.ofMillis(delayMs));
      return say(Map.of("given_back", receipts.size()), receipts.size() + " given back");
    }
  }

  @Command(name = "stats", description = "Show a queue.", mixinStandardHelpOptions = true)
  static final class Show extends OfOne {
    @Override
    public Integer call() {
      Queue.Stats stats = queue().stats();
      if (asJson) {
        return print(Client.snakeCase(stats));
      }
      List<List<String>> rows = new ArrayList<>();
      for (Queue.GroupStats group : stats.groups()) {
        rows.add(
            List.of(
                group.group(),
                Long.toString(group.depth()),
                Long.toString(group.inFlight()),
                Long.toString(group.dead())));
      }
      System.out.println(stats.sent() + " sent, " + stats.config().partitions() + " partitions");
      table(List.of("GROUP", "DEPTH", "IN FLIGHT", "DEAD"), rows);
      return 0;
    }
  }

  @Command(name = "list", description = "List the queues.", mixinStandardHelpOptions = true)
  static final class Everything extends ClientCommand {
    @Override
    public Integer call() {
      List<String> names = new HttpQueues(client()).names();
      System.out.println(asJson ? json(names) : String.join("\n", names));
      return 0;
    }
  }

  @Command(
      name = "dead",
      description = "Show messages that were handed out too often.",
      mixinStandardHelpOptions = true)
  static final class DeadLetters extends OfOne {
    @Override
    public Integer call() {
      List<Queue.Dead> dead = queue().dead(1_000);
      if (asJson) {
        return print(Client.snakeCase(dead));
      }
      List<List<String>> rows = new ArrayList<>();
      for (Queue.Dead each : dead) {
        rows.add(
            List.of(
                each.id(),
                each.group(),
                each.key(),
                new String(each.body(), StandardCharsets.UTF_8)));
      }
      table(List.of("ID", "GROUP", "KEY", "BODY"), rows);
      return 0;
    }
  }

  @Command(
      name = "redrive",
      description = "Send dead messages again.",
      mixinStandardHelpOptions = true)
  static final class Redrive extends OfOne {
    @Override
    public Integer call() {
      int again = queue().redrive(1_000);
      return say(Map.of("redriven", again), again + " sent again");
    }
  }

  @Command(
      name = "replay",
      description = "Let a group read again from a moment on.",
      mixinStandardHelpOptions = true)
  static final class Replay extends OfOne {
    @Option(names = "--group", defaultValue = "default", description = "The consumers' group.")
    private String group = "";

    @Option(
        names = "--from-ms",
        defaultValue = "0",
        description = "Messages sent since then, in ms since 1970.")
    private long fromMs;

    @Override
    public Integer call() {
      queue().replay(group, fromMs);
      return say(Map.of("queue", name, "group", group), "group " + group + " reads again");
    }
  }

  @Command(name = "rm", description = "Delete a queue.", mixinStandardHelpOptions = true)
  static final class Remove extends OfOne {
    @Override
    public Integer call() {
      boolean there = queues().delete(name);
      var _ = say(Map.of("deleted", there), there ? "deleted" : "there was none");
      return there ? 0 : 1;
    }
  }
}
