package dev.flotilla.bench;

import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.postgresql.ds.PGSimpleDataSource;
import redis.clients.jedis.Jedis;

/**
 * What a user would pick otherwise, as Debian packages it, started fresh in a temporary folder:
 * {@code apt-get install redis-server postgresql}. What is not installed is left out of the
 * figures.
 */
final class Peers implements AutoCloseable {

  private final Path folder;
  private final List<Process> processes = new ArrayList<>();
  private final Optional<Integer> redisPort;
  private final Optional<Integer> postgresPort;

  Peers() throws IOException, InterruptedException {
    this.folder = Files.createTempDirectory("flotilla-peers");
    this.redisPort = startRedis();
    this.postgresPort = startPostgres();
  }

  /** Whether it is installed. */
  boolean hasRedis() {
    return redisPort.isPresent();
  }

  /** Whether it is installed. */
  boolean hasPostgres() {
    return postgresPort.isPresent();
  }

  /** With its append-only file synced at each write, or with no durability at all. */
  Optional<Jedis> redis(boolean durable) {
    return redisPort.map(
        port -> {
          Jedis jedis = new Jedis("127.0.0.1", port);
          jedis.configSet("appendonly", durable ? "yes" : "no");
          jedis.configSet("appendfsync", durable ? "always" : "no");
          return jedis;
        });
  }

  /** At its defaults: each commit is synced to disk. */
  Optional<Connection> postgres() throws SQLException {
    return postgresPort.isEmpty() ? Optional.empty() : Optional.of(postgres(postgresPort.get()));
  }

  private static Connection postgres(int port) throws SQLException {
    PGSimpleDataSource source = new PGSimpleDataSource();
    source.setServerNames(new String[] {"127.0.0.1"});
    source.setPortNumbers(new int[] {port});
    source.setDatabaseName("postgres");
    source.setUser("bench");
    return source.getConnection();
  }

  private Optional<Integer> startRedis() throws IOException, InterruptedException {
    Optional<Path> server = find(List.of("/usr/bin", "/usr/local/bin"), "redis-server");
    if (server.isEmpty()) {
      return Optional.empty();
    }
    int port = freePort();
    Path data = Files.createDirectories(folder.resolve("redis"));
    start(
        server.get().toString(),
        "--port",
        "" + port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        data.toString());
    for (int i = 0; i < 100; i++) {
      try (Jedis jedis = new Jedis("127.0.0.1", port)) {
        jedis.ping();
        return Optional.of(port);
      } catch (RuntimeException notYet) {
        Thread.sleep(50);
      }
    }
    throw new IOException("redis-server does not answer");
  }

  private Optional<Integer> startPostgres() throws IOException, InterruptedException {
    List<String> folders = new ArrayList<>();
    Path versions = Path.of("/usr/lib/postgresql");
    if (Files.isDirectory(versions)) {
      try (Stream<Path> each = Files.list(versions)) {
        each.sorted((a, b) -> b.compareTo(a))
            .forEach(v -> folders.add(v.resolve("bin").toString()));
      }
    }
    Optional<Path> initdb = find(folders, "initdb");
    if (initdb.isEmpty()) {
      return Optional.empty();
    }
    int port = freePort();
    Path data = folder.resolve("postgres");
    Path log = folder.resolve("postgres.log");
    // It refuses to run as root; the package made a user for it.
    boolean root = System.getProperty("user.name").equals("root");
    if (root) {
      run("chmod", "755", folder.toString());
      run("install", "-d", "-o", "postgres", data.toString());
    }
    List<String> as =
        root
            ? List.of("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
            : List.of();
    run(with(as, initdb.get().toString(), "-D", data.toString(), "-U", "bench", "-A", "trust"));
    start(
        with(
            as,
            initdb.get().resolveSibling("postgres").toString(),
            "-D",
            data.toString(),
            "-p",
            "" + port,
            "-k",
            data.toString(),
            "-h",
            "127.0.0.1"));
    for (int i = 0; i < 200; i++) {
      try (Connection connection = postgres(port)) {
        if (connection.isValid(1)) {
          return Optional.of(port);
        }
      } catch (SQLException notYet) {
        Thread.sleep(50);
      }
    }
    throw new IOException("postgres does not answer; see " + log);
  }

  private static String[] with(List<String> first, String... rest) {
    List<String> all = new ArrayList<>(first);
    all.addAll(List.of(rest));
    return all.toArray(String[]::new);
  }

  private static Optional<Path> find(List<String> folders, String name) {
    return folders.stream().map(f -> Path.of(f, name)).filter(Files::isExecutable).findFirst();
  }

  private static int freePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0)) {
      return socket.getLocalPort();
    }
  }

  private void start(String... command) throws IOException {
    processes.add(quiet(command).start());
  }

  private static void run(String... command) throws IOException, InterruptedException {
    Process process = quiet(command).start();
    if (!process.waitFor(60, TimeUnit.SECONDS) || process.exitValue() != 0) {
      throw new IOException("failed: " + String.join(" ", command));
    }
  }

  private static ProcessBuilder quiet(String... command) {
    return new ProcessBuilder(command)
        .redirectError(ProcessBuilder.Redirect.DISCARD)
        .redirectOutput(ProcessBuilder.Redirect.DISCARD);
  }

  @Override
  public void close() throws IOException {
    for (Process process : processes) {
      // Not asked: PostgreSQL would wait for its clients to go.
      process.destroyForcibly();
      process.onExit().join();
    }
    NodeFiles.deleteTree(folder);
  }
}
