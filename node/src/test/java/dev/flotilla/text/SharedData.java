package dev.flotilla.text;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Files;
import java.nio.file.Path;

/** Data beside the repository, for tests that skip without it. */
final class SharedData {

  private SharedData() {}

  static boolean has(String name) {
    return Files.exists(path(name));
  }

  static Path require(String name) {
    assumeTrue(has(name), () -> "skipped: " + path(name) + " is absent");
    return path(name);
  }

  private static Path path(String name) {
    String shared = System.getenv("FLOTILLA_SHARED");
    Path root =
        shared != null
            ? Path.of(shared)
            : Path.of(System.getProperty("flotilla.home", ".."), "..", "shared");
    return root.resolve("data").resolve(name).normalize();
  }
}
