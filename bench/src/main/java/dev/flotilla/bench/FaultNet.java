package dev.flotilla.bench;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * A small network inside this machine: each host is a network namespace on one bridge, so that it
 * can be cut from others while this process still reaches all. Needs root on Linux.
 *
 * <p>A direction is cut by giving the sender a wrong hardware address for the receiver: frames
 * leave and arrive nowhere, as behind a dead switch. Connections do not break, they hang.
 *
 * <p>A host's cable may be a {@link Wire}, which loses and delays frames.
 */
public final class FaultNet implements AutoCloseable {

  private static final String NOWHERE = "02:00:00:00:00:99";

  private final String bridge;
  private final int subnet;
  private final List<String> hosts = new ArrayList<>();
  private final List<Optional<Wire>> wires = new ArrayList<>();

  /**
   * Makes the bridge.
   *
   * @param subnet the third number of its addresses, 10.77.SUBNET.x
   */
  public FaultNet(int subnet) throws IOException {
    this.subnet = subnet;
    this.bridge = "flb" + subnet;
    for (int host = 1; host < 10; host++) {
      // What a killed run left behind.
      remove(host);
    }
    quietly("ip", "link", "del", bridge);
    ip("link", "add", bridge, "type", "bridge");
    ip("link", "set", bridge, "up");
    ip("addr", "add", "10.77." + subnet + ".254/24", "dev", bridge);
  }

  /** Whether this process may make one. */
  public static boolean isAllowed() {
    try {
      if (quietly("ip", "netns", "add", "fltest") != 0) {
        return false;
      }
      quietly("ip", "netns", "del", "fltest");
      return true;
    } catch (IOException e) {
      return false;
    }
  }

  /** Its cable too: the kernel takes that away only some time after the namespace. */
  private void remove(int host) throws IOException {
    quietly("ip", "link", "del", outside(host));
    quietly("ip", "netns", "del", name(host));
  }

  private String outside(int host) {
    return "flv" + subnet + "h" + host;
  }

  private String name(int host) {
    return "fl" + subnet + "h" + host;
  }

  /** Adds a host; they are numbered from 1. */
  public int add() throws IOException {
    return add(false);
  }

  /** Adds one whose cable is a {@link Wire}. */
  public int addOnWire() throws IOException {
    return add(true);
  }

  private int add(boolean onWire) throws IOException {
    int host = hosts.size() + 1;
    String name = name(host);
    hosts.add(name);
    ip("netns", "add", name);
    String outside = outside(host);
    if (onWire) {
      String inside = "fli" + subnet + "h" + host;
      wires.add(Optional.of(Wire.open(outside, inside)));
      ip("link", "set", inside, "netns", name, "name", "eth0");
    } else {
      wires.add(Optional.empty());
      ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name);
    }
    ip("link", "set", outside, "master", bridge, "up");
    ip("-n", name, "link", "set", "lo", "up");
    ip("-n", name, "addr", "add", address(host) + "/24", "dev", "eth0");
    ip("-n", name, "link", "set", "eth0", "up");
    return host;
  }

  /** The cable of a host that was added on one. */
  public Wire wire(int host) {
    return wires.get(host - 1).orElseThrow();
  }

  /** Where a host is reached, also from this process. */
  public String address(int host) {
    return "10.77." + subnet + "." + host;
  }

  /** What to put before a command so that it runs on the host. */
  public List<String> on(int host) {
    return List.of("ip", "netns", "exec", name(host));
  }

  /** What one sends to the other is lost from now on. */
  public void cutOneWay(int from, int to) throws IOException {
    ip(
        "-n",
        name(from),
        "neigh",
        "replace",
        address(to),
        "lladdr",
        NOWHERE,
        "nud",
        "permanent",
        "dev",
        "eth0");
  }

  /** What two send to each other is lost from now on. */
  public void cut(int one, int other) throws IOException {
    cutOneWay(one, other);
    cutOneWay(other, one);
  }

  /** Cuts a host from all others. */
  public void isolate(int host) throws IOException {
    for (int other = 1; other <= hosts.size(); other++) {
      if (other != host) {
        cut(host, other);
      }
    }
  }

  /** Mends all cuts. */
  public void heal() throws IOException {
    for (int from = 1; from <= hosts.size(); from++) {
      for (int to = 1; to <= hosts.size(); to++) {
        if (from != to) {
          quietly("ip", "-n", name(from), "neigh", "del", address(to), "dev", "eth0");
        }
      }
    }
  }

  @Override
  public void close() throws IOException {
    wires.forEach(wire -> wire.ifPresent(Wire::close));
    for (int host = 1; host <= hosts.size(); host++) {
      remove(host);
    }
    quietly("ip", "link", "del", bridge);
  }

  private static void ip(String... arguments) throws IOException {
    List<String> command = new ArrayList<>(List.of("ip"));
    command.addAll(List.of(arguments));
    if (quietly(command.toArray(String[]::new)) != 0) {
      throw new IOException("failed: " + String.join(" ", command));
    }
  }

  private static int quietly(String... command) throws IOException {
    Process process =
        new ProcessBuilder(command)
            .redirectError(ProcessBuilder.Redirect.DISCARD)
            .redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .start();
    try {
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        process.destroyForcibly();
        return -1;
      }
      return process.exitValue();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException(e);
    }
  }
}
