package dev.flotilla.app;

import picocli.CommandLine.IVersionProvider;

/** The program's version: what joining compares, and what {@code --version} prints. */
final class Version implements IVersionProvider {

  /** Major, minor, patch; the property is for tests, which have no other build. */
  static final String CURRENT = System.getProperty("flotilla.version", "0.1.0");

  @Override
  public String[] getVersion() {
    return new String[] {"flotilla " + CURRENT + ", Java " + Runtime.version()};
  }
}
