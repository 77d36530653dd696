package dev.flotilla.cluster;

import java.util.function.Consumer;

/** How a node asks another whether it is there. */
public interface Pings {

  /** What came of it. */
  sealed interface Outcome {}

  /** It is there, in that start of its process. */
  record Answered(long incarnation) implements Outcome {}

  /** The machine is there, and the process is not: refused, or the connection was reset. */
  record Refused() implements Outcome {}

  /** Nothing came back in time. */
  record Silent() implements Outcome {}

  /** Asks; the outcome comes once, on any thread, after 1.5 s at the latest. */
  void ping(NodeInfo node, Consumer<Outcome> outcome);
}
