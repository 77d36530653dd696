package dev.flotilla.train;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.javacpp.chrono.Milliseconds;
import org.bytedeco.pytorch.ByteVector;
import org.bytedeco.pytorch.FileStore;
import org.bytedeco.pytorch.GlooDeviceVector;
import org.bytedeco.pytorch.ProcessGroupGloo;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch_gloo;

/**
 * All-reduce by Gloo, through libtorch's c10d.
 *
 * <p>Gloo finds its peers in a key-value store that all share. Here each worker has a store of its
 * own, a file: when Gloo has put this rank's address into it, that is handed to {@code meet}, and
 * what comes back for the other ranks is put in as if they had done so themselves. So no store is
 * reachable over the network, and {@link GradientTunnel} decides what the addresses lead to.
 */
final class GlooExchange implements GradientExchange {

  private static final int TIMEOUT_MS = 60_000;

  /** The prefix of the first context's keys; c10d makes one context per thread of the group. */
  private static final String KEY_PREFIX = "0/";

  private final FileStore store;
  private final ProcessGroupGloo group;

  /**
   * Blocks until all ranks have met.
   *
   * @param storeFile a file that does not exist yet
   * @param meet from this rank's address to those of all ranks; by rank
   * @throws FlotillaException {@code UNAVAILABLE} if they do not meet
   */
  GlooExchange(Path storeFile, int rank, int worldSize, Meeting meet) {
    Loader.load(org.bytedeco.pytorch.presets.torch_gloo.class);
    Loader.load(torch_gloo.class);
    store = new FileStore(storeFile.toString(), -1);
    store.setTimeout(new Milliseconds(TIMEOUT_MS));
    var introduction = new CompletableFuture<Boolean>();
    Thread.ofPlatform()
        .daemon()
        .name("gloo-introduction")
        .start(() -> introduce(storeFile, rank, worldSize, meet, introduction));
    try {
      var device = ProcessGroupGloo.createDeviceForHostname(GradientTunnel.loopbackAddress(rank));
      var options = ProcessGroupGloo.Options.create(new Milliseconds(TIMEOUT_MS));
      options.devices(new GlooDeviceVector(device));
      options.threads(1);
      group = new ProcessGroupGloo(store, rank, worldSize, options);
      introduction.join();
    } catch (RuntimeException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "the workers did not meet: " + firstLine(e),
          "See the logs of the nodes they run on.",
          e);
    }
  }

  /** From this rank's address to those of all ranks. */
  @FunctionalInterface
  interface Meeting {
    /** Blocks until the others are known. */
    List<byte[]> meet(byte[] own);
  }

  private static void introduce(
      Path storeFile, int rank, int worldSize, Meeting meet, CompletableFuture<Boolean> done) {
    try (var scope = new PointerScope()) {
      FileStore store = new FileStore(storeFile.toString(), -1);
      store.setTimeout(new Milliseconds(TIMEOUT_MS));
      List<byte[]> blobs = meet.meet(store.get(KEY_PREFIX + rank).get());
      for (int peer = 0; peer < worldSize; peer++) {
        if (peer != rank) {
          store.set(KEY_PREFIX + peer, new ByteVector(blobs.get(peer)));
        }
      }
      done.complete(true);
    } catch (RuntimeException e) {
      done.completeExceptionally(e);
    }
  }

  /**
   * @throws FlotillaException {@code UNAVAILABLE} if another worker is gone
   */
  @Override
  public void sum(Tensor vector) {
    try (var scope = new PointerScope()) {
      group.allreduce(new TensorVector(vector))._wait();
    } catch (RuntimeException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "lost a worker while adding up gradients: " + firstLine(e),
          "See the logs of the nodes they run on.",
          e);
    }
  }

  private static String firstLine(RuntimeException e) {
    return String.valueOf(e.getMessage()).lines().findFirst().orElse("");
  }

  @Override
  public void close() {
    group.close();
    store.close();
  }
}
