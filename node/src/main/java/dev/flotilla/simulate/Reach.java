package dev.flotilla.simulate;

import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Pings;
import io.grpc.ManagedChannel;
import java.util.function.Consumer;

/** How a simulated node reaches others. */
interface Reach {

  /** Asks whether a node is there, as {@link Pings} says. */
  void ping(SimulatedNode from, NodeInfo node, Consumer<Pings.Outcome> outcome);

  /** A channel to a node. */
  ManagedChannel channel(SimulatedNode from, String node);

  /** A process has ended; the kernel, if the machine is still on, says so to the others. */
  void ended(SimulatedNode process);
}
