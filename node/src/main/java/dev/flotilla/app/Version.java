package dev.flotilla.app;

import picocli.CommandLine.IVersionProvider;

/** The program's version: what joining compares, and what {@code --version} prints. */
final class Version implements IVersionProvider {

  /** Major, minor, patch; nodes of one cluster agree in the first two. */
  static final String CURRENT = "0.1.0";

  @Override
  public String[] getVersion() {
    return new String[] {"flotilla " + CURRENT + ", Java " + Runtime.version()};
  }
}
