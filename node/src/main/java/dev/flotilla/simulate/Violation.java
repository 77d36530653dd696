package dev.flotilla.simulate;

/** A promise was broken: a bug of ours, in what is simulated or in the simulator. */
final class Violation extends RuntimeException {

  private static final long serialVersionUID = 1;

  Violation(String what) {
    super(what);
  }

  Violation(String what, Throwable cause) {
    super(what + ": " + cause, cause);
  }
}
