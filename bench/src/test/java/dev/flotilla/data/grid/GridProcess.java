package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.Map;
import java.util.TreeMap;
import javax.cache.Cache;
import org.apache.ignite.Ignite;
import org.apache.ignite.cache.CachePeekMode;

/**
 * A node's registry and grid in a process of its own, told what to do by lines on standard input;
 * what happened goes out as lines, so that whoever reads them knows what had been acknowledged when
 * the process was killed.
 */
final class GridProcess {

  private static final int OVERWRITTEN = 50;

  private final Grid grid;
  private final ClusterNode cluster;
  private final Path folder;
  private volatile boolean writing;

  private GridProcess(ClusterNode cluster, Grid grid, Path folder) {
    this.cluster = cluster;
    this.grid = grid;
    this.folder = folder;
  }

  /** Arguments: data folder, name, address, port, and to join, HOST:PORT and a token. */
  public static void main(String[] arguments) throws IOException {
    Path folder = Path.of(arguments[0]);
    ClusterConfig config =
        new ClusterConfig(
            folder,
            arguments[1],
            arguments[2],
            arguments[2],
            Integer.parseInt(arguments[3]),
            "0.1.0",
            InstantSource.system(),
            Map.of("cores", 2.0));
    ClusterNode cluster =
        arguments.length > 4
            ? ClusterNode.join(config, arguments[4], arguments[5])
            : ClusterNode.create(config);
    Grid grid =
        Grid.create(
            cluster,
            GridConfig.of(folder, config.bindHost(), config.httpPort()).withMemory(64L << 20));
    cluster.start();
    grid.start();
    GridProcess process = new GridProcess(cluster, grid, folder);
    String run = Long.toString(ProcessHandle.current().pid());
    for (String cache : new String[] {"single", "pairs"}) {
      Thread.ofPlatform().daemon().name("writer-" + cache).start(() -> process.write(cache, run));
    }
    say("ready");
    process.obey();
  }

  private static void say(String line) {
    synchronized (System.out) {
      System.out.println(line);
      System.out.flush();
    }
  }

  private void obey() throws IOException {
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      try {
        switch (line) {
          case "invite" -> say("answer " + cluster.invite());
          case "write" -> {
            writing = true;
            say("answer writing");
          }
          case "rest" -> {
            writing = false;
            say("answer resting");
          }
          case "majority" -> say("answer " + grid.hasMajority());
          case "dump" -> say("answer " + dump());
          default -> throw new IllegalArgumentException(line);
        }
      } catch (FlotillaException e) {
        say("answer failed " + e.code() + " " + e.getMessage());
      }
    }
    Runtime.getRuntime().halt(0);
  }

  /** Everything that this node itself holds, copies included, into a file. */
  private String dump() throws IOException {
    Map<String, String> all =
        grid.read(
            "dumping",
            ignite -> {
              Map<String, String> entries = new TreeMap<>();
              for (String name : new String[] {"single", "pairs"}) {
                for (Cache.Entry<String, Long> entry :
                    cache(ignite, name).localEntries(CachePeekMode.PRIMARY, CachePeekMode.BACKUP)) {
                  entries.put(name + "/" + entry.getKey(), Long.toString(entry.getValue()));
                }
              }
              return entries;
            });
    StringBuilder text = new StringBuilder();
    all.forEach((key, value) -> text.append(key).append(' ').append(value).append('\n'));
    Path file = folder.resolve("dump.txt");
    Files.writeString(file, text);
    return file.toString();
  }

  private org.apache.ignite.IgniteCache<String, Long> cache(Ignite ignite, String name) {
    return ignite.getOrCreateCache(grid.<String, Long>cacheConfig(name));
  }

  /** New keys, keys written over and over, and keys removed: each key is one thread's own. */
  private void write(String cache, String run) {
    for (long n = 0; true; n++) {
      while (!writing) {
        sleep(5);
      }
      String fresh = run + "-" + n;
      put(cache, fresh, n);
      put(cache, run + "-over-" + n % OVERWRITTEN, n);
      if (n % 4 == 3) {
        remove(cache, run + "-" + (n - 2));
      }
      if (cache.equals("pairs")) {
        long value = n;
        String left = run + "-left-" + n;
        String right = run + "-right-" + n;
        tell(
            "pair",
            cache + "/" + left + " " + cache + "/" + right,
            value,
            () ->
                grid.transact(
                    "a pair",
                    Grid.TransactionMode.PESSIMISTIC,
                    ignite -> {
                      cache(ignite, cache).put(left, value);
                      cache(ignite, cache).put(right, value);
                      return true;
                    }));
      }
    }
  }

  private void put(String cache, String key, long value) {
    tell(
        "put",
        cache + "/" + key,
        value,
        () ->
            grid.write(
                "a put",
                ignite -> {
                  cache(ignite, cache).put(key, value);
                  return true;
                }));
  }

  private void remove(String cache, String key) {
    tell(
        "remove",
        cache + "/" + key,
        -1,
        () -> grid.write("a removal", ignite -> cache(ignite, cache).remove(key)));
  }

  private static void tell(String what, String key, long value, Runnable operation) {
    String text = what + " " + value + " " + key;
    say("begin " + text);
    try {
      operation.run();
      say("done " + text);
    } catch (FlotillaException e) {
      boolean nothing =
          e.code() == Code.NO_MAJORITY
              || e.code() == Code.UNAVAILABLE
              || e.code() == Code.CONFLICT
              || e.code() == Code.STORAGE
              || e.code() == Code.BUSY;
      say((nothing ? "refused " : "unknown ") + text + " " + e.code());
      sleep(50);
    } catch (RuntimeException e) {
      say("unknown " + text + " BUG");
      e.printStackTrace();
    }
  }

  private static void sleep(long milliseconds) {
    try {
      Thread.sleep(milliseconds);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
