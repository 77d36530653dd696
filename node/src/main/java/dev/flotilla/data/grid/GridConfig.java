package dev.flotilla.data.grid;

import java.nio.file.Path;
import java.time.Duration;
import java.util.function.Supplier;
import org.apache.ignite.spi.communication.tcp.TcpCommunicationSpi;

/**
 * How this node takes part in the data grid.
 *
 * @param folder where its pages and write-ahead log lie; absolute
 * @param bindHost the address its ports listen on and are reached at
 * @param discoveryPort who is there; the node's port P+5
 * @param messagePort everything else; the node's port P+6
 * @param memoryBytes the most that pages take outside the heap
 * @param failureDetection after how long a silent node counts as gone
 * @param heldUp how long what runs on this node may hold up a change of the engine's topology, for
 *     which all that begins anywhere waits; then the engine starts again, which ends it
 * @param messages makes what carries the engine's messages, at each of its starts
 */
public record GridConfig(
    Path folder,
    String bindHost,
    int discoveryPort,
    int messagePort,
    long memoryBytes,
    Duration failureDetection,
    Duration heldUp,
    Supplier<TcpCommunicationSpi> messages) {

  static final int DISCOVERY_OFFSET = 5;
  private static final int MESSAGE_OFFSET = 6;

  /** The usual one of a node with HTTP port P. */
  public static GridConfig of(Path dataFolder, String bindHost, int httpPort) {
    return new GridConfig(
        dataFolder.toAbsolutePath().normalize().resolve("data").resolve("grid"),
        bindHost,
        httpPort + DISCOVERY_OFFSET,
        httpPort + MESSAGE_OFFSET,
        256L << 20,
        Duration.ofSeconds(3),
        Duration.ofSeconds(30),
        TcpCommunicationSpi::new);
  }

  /** The same with another bound on its memory. */
  public GridConfig withMemory(long bytes) {
    return new GridConfig(
        folder, bindHost, discoveryPort, messagePort, bytes, failureDetection, heldUp, messages);
  }

  /** The same with another bound on how long it may hold up others. */
  GridConfig withHeldUp(Duration bound) {
    return new GridConfig(
        folder,
        bindHost,
        discoveryPort,
        messagePort,
        memoryBytes,
        failureDetection,
        bound,
        messages);
  }

  /** The same with others to carry its messages. */
  public GridConfig withMessages(Supplier<TcpCommunicationSpi> others) {
    return new GridConfig(
        folder,
        bindHost,
        discoveryPort,
        messagePort,
        memoryBytes,
        failureDetection,
        heldUp,
        others);
  }

  Path pages() {
    return folder.resolve("db");
  }

  Path writeAheadLog() {
    return folder.resolve("wal");
  }

  /** There if this node was active without a majority, until it is of a view again. */
  Path alone() {
    return folder.resolve("alone");
  }
}
