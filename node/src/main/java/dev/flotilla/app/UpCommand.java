package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.client.Client;
import dev.flotilla.gateway.Restarts;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.slf4j.bridge.SLF4JBridgeHandler;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Runs one node in the foreground. */
@Command(
    name = "up",
    description = "Run one node; the first makes the cluster, others join it.",
    mixinStandardHelpOptions = true)
final class UpCommand implements Callable<Integer> {

  private static final int PORTS = 7;
  private static final Duration PATIENCE = Duration.ofSeconds(15);

  @Spec private CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--data",
      paramLabel = "DIR",
      description = "The node's data folder (FLOTILLA_DATA; default ~/.flotilla).")
  private Optional<Path> data = Optional.empty();

  @Option(
      names = "--port",
      paramLabel = "P",
      defaultValue = "8000",
      description = "The HTTP API's port; the next six are used too (default ${DEFAULT-VALUE}).")
  private int port;

  @Option(
      names = "--bind",
      paramLabel = "ADDRESS",
      defaultValue = "127.0.0.1",
      description =
          "The address to listen on, at which other nodes reach this one"
              + " (default ${DEFAULT-VALUE}).")
  private String bind = "";

  @Option(
      names = "--insecure-http",
      description = "Allow --bind beyond this machine although the HTTP API has no TLS.")
  private boolean insecureHttp;

  @Option(
      names = "--name",
      paramLabel = "NAME",
      description = "What to call the node (default: the machine's name).")
  private Optional<String> name = Optional.empty();

  @Option(
      names = "--join",
      paramLabel = "HOST:PORT",
      description = "Join the cluster of which this is a node's HTTP API.")
  private Optional<String> join = Optional.empty();

  @Option(
      names = "--token",
      paramLabel = "TOKEN",
      description = "The one-time token that flotilla invite printed.")
  private Optional<String> token = Optional.empty();

  @Option(
      names = "--otlp-endpoint",
      paramLabel = "URL",
      description =
          "An OpenTelemetry collector to send the log to, such as http://HOST:4318"
              + " (FLOTILLA_OTLP_ENDPOINT).")
  private Optional<String> otlpEndpoint = Optional.empty();

  @Option(
      names = "--allow-private-sources",
      description =
          "Let models be pulled from addresses of private networks, too. Whoever has a key can"
              + " then make this node ask them.")
  private boolean privateSources;

  private volatile boolean failed;

  @Override
  public Integer call() throws Exception {
    if (join.isPresent() != token.isPresent()) {
      throw usage(
          "--join and --token go together; get a token with flotilla invite on a node of the"
              + " cluster.");
    }
    Path folder = data.orElseGet(Client::defaultFolder).toAbsolutePath().normalize();
    checkAddress();
    checkPorts();
    prepare(folder);
    Path pid = folder.resolve("node.pid");
    Node node =
        new Node(
            new Node.Options(
                folder,
                name.orElseGet(UpCommand::machineName),
                bind,
                port,
                insecureHttp,
                join.map(address -> new Node.Join(address, token.orElseThrow())),
                ModelSources.of(System.getenv(), privateSources)));
    List<String> arguments = spec.root().commandLine().getParseResult().originalArgs();
    node.restartable();
    Builds.watch(arguments);
    otlpEndpoint.ifPresent(node::exportLog);
    Files.writeString(pid, ProcessHandle.current().pid() + "\n");
    pid.toFile().deleteOnExit();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  node.stop();
                  pid.toFile().delete();
                  // A signal that asks to stop is no failure, so the exit code is not the signal's.
                  if (!failed) {
                    Runtime.getRuntime().halt(0);
                  }
                },
                "stop"));
    Thread impatient = Thread.ofPlatform().daemon().start(() -> sayWhy(node, folder));
    try {
      node.start();
    } catch (RuntimeException e) {
      failed = true;
      throw e;
    }
    impatient.interrupt();
    Builds.started();
    System.out.println("ready http://" + bind + ":" + port);
    Optional<Restarts.Build> next = node.awaitEnd();
    failed = true;
    if (next.isPresent()) {
      node.stop();
      Builds.become(next.get(), arguments);
    }
    throw new FlotillaException(
        Code.CONFLICT,
        "this node was removed from its cluster for good",
        "To let this machine join anew, move " + folder + " away, and start with a new token.");
  }

  private CommandLine.ParameterException usage(String message) {
    return new CommandLine.ParameterException(spec.commandLine(), message);
  }

  /** Before anything is joined or written: the address stands in the registry for good. */
  private void checkAddress() {
    try {
      InetAddress address = InetAddress.getByName(bind);
      if (address.isAnyLocalAddress()) {
        throw usage(
            "--bind takes the one address at which other nodes reach this one, not "
                + bind
                + ", which is every address.");
      }
      if (!address.isLoopbackAddress() && !insecureHttp) {
        throw usage(
            "--bind "
                + bind
                + " would send keys and text over the network unencrypted, for the HTTP API has no"
                + " TLS; leave --bind out, or accept that with --insecure-http.");
      }
    } catch (UnknownHostException e) {
      throw usage("--bind: there is no address " + bind + "; give one of this machine.");
    }
  }

  private void checkPorts() {
    if (port < 1 || port > 65_535 - PORTS + 1) {
      throw usage(
          "--port must be from 1 to "
              + (65_535 - PORTS + 1)
              + ", for a node uses "
              + PORTS
              + " ports from there.");
    }
    for (int each = port; each < port + PORTS; each++) {
      try (ServerSocket socket = new ServerSocket()) {
        socket.setReuseAddress(true);
        socket.bind(new InetSocketAddress(bind, each));
      } catch (IOException e) {
        throw new FlotillaException(
            Code.CONFLICT,
            "port " + each + " on " + bind + " cannot be used: " + e.getMessage(),
            "Stop the program that has it, or choose another --port; a node uses that one and the"
                + " next six.",
            e);
      }
    }
  }

  private static void sayWhy(Node node, Path folder) {
    try {
      Thread.sleep(PATIENCE);
      System.err.println(
          "flotilla: " + node.health().reason() + "; see " + folder.resolve("logs/node.log"));
    } catch (InterruptedException started) {
      Thread.currentThread().interrupt();
    }
  }

  private static void prepare(Path folder) {
    try {
      Files.createDirectories(folder.resolve("logs"));
      Files.createDirectories(folder.resolve("data"));
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot write to the data folder " + folder + ": " + IoReason.of(e),
          "Make room or rights there, or choose another with --data.",
          e);
    }
    System.setProperty(Logs.FOLDER, folder.resolve("logs").toString());
    SLF4JBridgeHandler.removeHandlersForRootLogger();
    SLF4JBridgeHandler.install();
  }

  private static String machineName() {
    try {
      return InetAddress.getLocalHost().getHostName();
    } catch (IOException unknown) {
      return "node";
    }
  }
}
