package dev.flotilla.gateway;

import java.nio.file.Path;

/** How this node's process starts again, with this build of the program or another one. */
public interface Restarts {

  /**
   * A build of the program on this machine.
   *
   * @param home the folder with the launcher, {@code flotilla}
   */
  record Build(Path home, String version) {}

  /** What runs now. */
  Build running();

  /**
   * Looks whether a build can be started, and which version it is; may take minutes, for what must
   * be compiled first is.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if it cannot
   */
  Build look(Path home);

  /**
   * Stops this node as it should be stopped, and starts it again with a build, in the same process
   * and with the same arguments; returns before. If it does not start, it goes back to what runs
   * now.
   */
  void restart(Build next);
}
