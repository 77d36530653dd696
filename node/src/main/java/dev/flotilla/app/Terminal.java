package dev.flotilla.app;

import java.io.Console;

/** Whether a person is looking. */
final class Terminal {

  private Terminal() {}

  static boolean attached() {
    Console console = System.console();
    return console != null && console.isTerminal();
  }
}
