package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks.Request;
import dev.flotilla.data.queue.Queue.Outgoing;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;

/**
 * A program of its own that takes a lock and keeps renewing it, writes what the lock guards, and
 * waits for a line. Whoever paused it past its lease meanwhile sends that line; then it writes with
 * the token that it had, as often as it is told, and says how many writes were let through.
 */
final class StaleHolder {

  static final String LOCK = "guard";
  static final Duration LEASE = Duration.ofSeconds(1);

  /** Messages of one call; they are spread over all of a queue's partitions, all or none sent. */
  static final int BATCH = 1_000;

  private static final int THREADS = 4;

  /** What the lock guards; each write is one call. */
  record Guarded(Flotilla flotilla, Client client, String digest) {

    static final String QUEUE = "guarded";
    static final String BLOB = "guarded/name";
    static final String MODEL = "guarded";

    void send(Fence fence, String who) {
      List<Outgoing> batch =
          IntStream.range(0, BATCH)
              .mapToObj(i -> Outgoing.of("key-" + i, who.getBytes(StandardCharsets.UTF_8)))
              .toList();
      flotilla.queue(QUEUE).send(batch, Optional.of(fence));
    }

    void name(Fence fence) {
      flotilla.blobs().name("default", BLOB, digest, Optional.empty(), Optional.of(fence));
    }

    void deploy(Fence fence) {
      client.post(
          "/api/deployments",
          Map.of("model", MODEL, "fence", Map.of("lock", fence.lock(), "token", fence.token())));
    }
  }

  private StaleHolder() {}

  /** Arguments: URL, key, digest of the blob to name, calls to each of the guarded. */
  public static void main(String[] arguments) throws Exception {
    Flotilla flotilla = Flotilla.connect(arguments[0], arguments[1]);
    Client client = new Client(arguments[0], Optional.of(arguments[1]));
    Guarded guarded = new Guarded(flotilla, client, arguments[2]);
    Lease lease = flotilla.locks().lease(Request.exclusive(LOCK, "slow").ttl(LEASE)).orElseThrow();
    guarded.send(lease.fence(), "slow");
    guarded.name(lease.fence());
    guarded.deploy(lease.fence());
    System.out.println("holds " + lease.fence().token());
    if (System.in.read() < 0) {
      System.exit(1);
    }
    int calls = Integer.parseInt(arguments[3]);
    int let =
        accepted(calls, () -> guarded.send(lease.fence(), "stale"))
            + accepted(10 * calls, () -> guarded.name(lease.fence()))
            + accepted(10 * calls, () -> guarded.deploy(lease.fence()));
    System.out.println("let through " + let + ", believes that it holds: " + lease.held());
    System.exit(0);
  }

  /** How many of so many writes were not refused as stale; any other end is a failure. */
  private static int accepted(int times, Runnable write) throws Exception {
    try (ExecutorService threads = Executors.newFixedThreadPool(THREADS)) {
      List<Callable<Integer>> all = new ArrayList<>();
      for (int thread = 0; thread < THREADS; thread++) {
        int its = times / THREADS + (thread < times % THREADS ? 1 : 0);
        all.add(
            () -> {
              int accepted = 0;
              for (int i = 0; i < its; i++) {
                try {
                  write.run();
                  accepted++;
                } catch (FlotillaException e) {
                  if (e.code() != Code.CONFLICT || !e.getMessage().contains("stale token")) {
                    throw e;
                  }
                }
              }
              return accepted;
            });
      }
      int accepted = 0;
      for (Future<Integer> each : threads.invokeAll(all)) {
        accepted += each.get();
      }
      return accepted;
    }
  }
}
