package dev.flotilla.model;

/**
 * Adds up what the machines that share out a layer's heads and feed-forward part have each
 * computed.
 */
@FunctionalInterface
public interface AllReduce {

  /** Of a machine that has the whole layer. */
  AllReduce ALONE = values -> {};

  /**
   * Returns once every rank's values have come, and are added in the order of the ranks: so all
   * have the same bits, whichever came first.
   *
   * @param values this rank's, overwritten with the sum over all; {@code [rows, width]}
   * @throws dev.flotilla.FlotillaException {@code UNAVAILABLE} if a rank is gone
   */
  void sum(float[] values);
}
