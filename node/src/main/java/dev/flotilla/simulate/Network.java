package dev.flotilla.simulate;

import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Pings;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * The machines and the ways between them, each direction by itself. A packet may be late, lost,
 * doubled, and overtake another; a stream ({@link Call}) has what TCP makes of that: everything in
 * order, late, or the end of it.
 */
final class Network implements Reach {

  /** A machine: it is on or off, and may run a process. */
  static final class Machine {
    final String name;
    final Disk disk = new Disk();
    boolean on = true;
    @Nullable SimulatedNode process;

    Machine(String name) {
      this.name = name;
    }

    /** Its process, if that runs. */
    @Nullable SimulatedNode running() {
      SimulatedNode now = process;
      return now == null || now.down ? null : now;
    }
  }

  /** What survives a process. */
  static final class Disk {
    /** Until then it is slow: what is forced or read takes so long more. */
    long slowUntilNs;

    long slowNs;

    final Group.Stored log = new Group.Stored();
  }

  /** The way from one machine to another. */
  static final class Way {
    boolean cut;
    long slowNs;
    double lost;
    double doubled;
  }

  private static final long PING_NS = 1_500 * World.MS;
  private static final long NEAR_NS = 20_000;
  private static final long LEAST_NS = 100_000;
  private static final long USUAL_NS = World.MS;

  private final World world;
  private final Map<String, Machine> machines = new LinkedHashMap<>();
  private final Map<String, Way> ways = new LinkedHashMap<>();
  private final List<Call<?, ?>> calls = new ArrayList<>();

  Network(World world, List<String> names) {
    this.world = world;
    for (String name : names) {
      machines.put(name, new Machine(name));
      for (String other : names) {
        ways.put(name + ">" + other, new Way());
      }
    }
  }

  List<Machine> machines() {
    return List.copyOf(machines.values());
  }

  Machine machine(String name) {
    Machine machine = machines.get(name);
    if (machine == null) {
      throw new Violation("no machine " + name);
    }
    return machine;
  }

  Way way(String from, String to) {
    Way way = ways.get(from + ">" + to);
    if (way == null) {
      throw new Violation("no way from " + from + " to " + to);
    }
    return way;
  }

  boolean open(String from, String to) {
    return from.equals(to) || !way(from, to).cut;
  }

  /** How long a packet takes now; mostly little, at times much. */
  long delayNs(String from, String to) {
    if (from.equals(to)) {
      return world.between(1_000, NEAR_NS);
    }
    long usual = LEAST_NS + (long) (-Math.log(1 - world.random.nextDouble()) * USUAL_NS / 4);
    return usual + world.between(0, way(from, to).slowNs + 1);
  }

  /**
   * Sends something once.
   *
   * @param arrives at whatever process runs there then
   * @param refused the machine is on and no process runs: its answer arrives at the sender
   */
  void packet(SimulatedNode from, String to, Consumer<SimulatedNode> arrives, Runnable refused) {
    String sender = from.name();
    if (sender.equals(to)) {
      world.after(delayNs(sender, to), from, () -> arrives.accept(from));
      return;
    }
    Way way = way(sender, to);
    int copies = way.cut || world.chance(way.lost) ? 0 : world.chance(way.doubled) ? 2 : 1;
    for (int i = 0; i < copies; i++) {
      world.after(
          delayNs(sender, to),
          null,
          () -> {
            Machine machine = machine(to);
            SimulatedNode there = machine.running();
            if (!machine.on || !open(sender, to)) {
              return;
            }
            if (there != null) {
              world.after(0, there, () -> arrives.accept(there));
            } else if (open(to, sender)) {
              world.after(delayNs(to, sender), from, refused);
            }
          });
    }
  }

  void add(Call<?, ?> call) {
    calls.add(call);
  }

  @Override
  public void ping(SimulatedNode from, NodeInfo node, Consumer<Pings.Outcome> outcome) {
    boolean[] done = {false};
    Consumer<Pings.Outcome> once =
        what -> {
          if (!done[0]) {
            done[0] = true;
            outcome.accept(what);
          }
        };
    packet(
        from,
        node.id(),
        there -> {
          long incarnation = there.incarnation();
          packet(
              there,
              from.name(),
              here -> {
                if (here == from) {
                  once.accept(new Pings.Answered(incarnation));
                }
              },
              () -> {});
        },
        () -> once.accept(new Pings.Refused()));
    world.after(PING_NS, from, () -> once.accept(new Pings.Silent()));
  }

  @Override
  public ManagedChannel channel(SimulatedNode from, String node) {
    return new SimulatedChannel(world, this, from, node);
  }

  @Override
  public void ended(SimulatedNode process) {
    for (Call<?, ?> call : List.copyOf(calls)) {
      call.ended(process);
    }
  }

  /** Looks after the streams; call every half second. */
  void watch() {
    calls.removeIf(Call::over);
    List.copyOf(calls).forEach(Call::watch);
  }

  /** A stream that nothing came through for so long is given up by who keeps asking. */
  static Status silent(String to) {
    return Status.UNAVAILABLE.withDescription("keepalive failed, node " + to + " is silent");
  }
}
