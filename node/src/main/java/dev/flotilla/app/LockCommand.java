package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpLocks;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.Locks.Claimant;
import dev.flotilla.cluster.Locks.Request;
import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Runs a command while holding a lock of the cluster, or shows locks. */
@Command(
    name = "lock",
    description = {
      "Run a command while holding a lock of the cluster: flotilla lock NAME -- COMMAND...",
      "The command finds the fencing token in FLOTILLA_FENCE. If the lock is lost, it is stopped.",
      "Exit code: the command's; 1 if the lock was not to be had or was lost."
    },
    mixinStandardHelpOptions = true)
final class LockCommand extends ClientCommand {

  @Parameters(
      index = "0",
      arity = "0..1",
      paramLabel = "NAME",
      description = "The lock. Without a command, shows who holds it and who waits.")
  private Optional<String> name = Optional.empty();

  @Parameters(index = "1..*", paramLabel = "COMMAND", description = "What to run.")
  private List<String> command = new ArrayList<>();

  @Option(names = "--list", description = "List the locks that somebody holds or waits for.")
  private boolean list;

  @Option(
      names = "--wait",
      paramLabel = "SECONDS",
      defaultValue = "86400",
      description = "How long to wait for the lock; 0 only tries. Default: a day.")
  private double waitSeconds;

  @Option(
      names = "--ttl",
      paramLabel = "SECONDS",
      defaultValue = "10",
      description = "How long it stays held if this process dies (default ${DEFAULT-VALUE}).")
  private double ttlSeconds;

  @Option(names = "--shared", description = "As a reader, together with other readers.")
  private boolean shared;

  @Option(
      names = "--permits",
      paramLabel = "N",
      description = "As one of N holders at a time: a semaphore.")
  private int permits;

  @Option(
      names = "--holder",
      paramLabel = "HOLDER",
      description = "Who holds it (default: host and process).")
  private Optional<String> holder = Optional.empty();

  @Override
  public Integer call() throws InterruptedException {
    Client client = client();
    if (list) {
      return list(client);
    }
    if (name.isEmpty()) {
      throw new FlotillaException(
          Code.INVALID, "no lock is named", "Use: flotilla lock NAME -- COMMAND..., or --list.");
    }
    return command.isEmpty() ? show(client, name.get()) : hold(new HttpLocks(client), name.get());
  }

  private int list(Client client) {
    if (asJson) {
      return print(client.get("/api/locks"));
    }
    table(
        List.of("LOCK", "MODE", "HELD BY", "TOKEN", "WAITING"),
        new HttpLocks(client).list().stream().map(LockCommand::row).toList());
    return 0;
  }

  private int show(Client client, String lock) {
    if (asJson) {
      return print(client.get("/api/locks/" + Client.encode(lock)));
    }
    Locks.View view = new HttpLocks(client).show(lock);
    table(List.of("LOCK", "MODE", "HELD BY", "TOKEN", "WAITING"), List.of(row(view)));
    return 0;
  }

  private static List<String> row(Locks.View lock) {
    return List.of(
        lock.name(),
        lock.permits() > 0
            ? "semaphore of " + lock.permits()
            : lock.holders().stream()
                .findFirst()
                .map(h -> h.mode().name().toLowerCase(Locale.ROOT))
                .orElse("free"),
        lock.holders().stream().map(Claimant::holder).distinct().collect(Collectors.joining(", ")),
        lock.holders().stream()
            .map(h -> Long.toString(h.token()))
            .distinct()
            .collect(Collectors.joining(", ")),
        Integer.toString(lock.waiting().size()));
  }

  private int hold(Locks locks, String lock) throws InterruptedException {
    String who = holder.orElseGet(LockCommand::self);
    Request request =
        (permits > 0
                ? Request.permit(lock, who, permits)
                : shared ? Request.shared(lock, who) : Request.exclusive(lock, who))
            .ttl(Duration.ofMillis(Math.round(ttlSeconds * 1000)))
            .await(Duration.ofMillis(Math.round(waitSeconds * 1000)));
    long askedNs = System.nanoTime();
    Optional<Lease> lease = locks.lease(request);
    if (lease.isEmpty()) {
      // Sooner than it was ready to wait, if it was lost as soon as it was had.
      long waitedMs = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - askedNs);
      throw new FlotillaException(
          Code.CONFLICT,
          "lock " + lock + " was not to be had in " + waitedMs + " ms",
          "See who holds it: flotilla lock " + lock);
    }
    try (Lease held = lease.get()) {
      return run(held);
    }
  }

  private int run(Lease lease) throws InterruptedException {
    ProcessBuilder builder = new ProcessBuilder(command).inheritIO();
    builder.environment().put("FLOTILLA_FENCE", Long.toString(lease.fence().token()));
    builder.environment().put("FLOTILLA_LOCK", lease.fence().lock());
    Process process;
    try {
      process = builder.start();
    } catch (IOException e) {
      throw new FlotillaException(
          Code.INVALID, "cannot run " + command.getFirst() + ": " + e.getMessage(), "", e);
    }
    AtomicBoolean lost = new AtomicBoolean();
    lease
        .lost()
        .thenAccept(
            reason -> {
              lost.set(true);
              System.err.println(
                  "flotilla: lock "
                      + lease.fence().lock()
                      + " is lost, stopping the command: "
                      + reason);
              end(process);
            });
    Thread withUs = new Thread(() -> end(process));
    Runtime.getRuntime().addShutdownHook(withUs);
    int exit = process.waitFor();
    try {
      Runtime.getRuntime().removeShutdownHook(withUs);
    } catch (IllegalStateException stopping) {
      // The hook runs already.
    }
    return lost.get() ? 1 : exit;
  }

  /** First politely. */
  private static void end(Process process) {
    process.destroy();
    try {
      if (!process.waitFor(5, TimeUnit.SECONDS)) {
        process.destroyForcibly();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }

  private static String self() {
    String host;
    try {
      host = InetAddress.getLocalHost().getHostName();
    } catch (UnknownHostException e) {
      host = "localhost";
    }
    return host + "/" + ProcessHandle.current().pid();
  }
}
