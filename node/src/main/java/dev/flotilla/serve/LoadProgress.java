package dev.flotilla.serve;

/** Hears how much of what is to be loaded is here and verified. */
@FunctionalInterface
interface LoadProgress {

  LoadProgress NONE = (_, _) -> {};

  /**
   * Called by the thread that loads, for every few MB.
   *
   * @param bytes that are here
   * @param of all
   */
  void at(long bytes, long of);
}
