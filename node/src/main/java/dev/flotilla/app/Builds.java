package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.gateway.Restarts.Build;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileVisitOption;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** Builds of the program on this machine, and how this process becomes one of them. */
final class Builds {

  /** The build that an upgraded node goes back to if it does not start. */
  private static final String FALLBACK = "FLOTILLA_FALLBACK";

  private static final Pattern VERSION = Pattern.compile("flotilla ([0-9.]+),.*", Pattern.DOTALL);

  /** Of a build's folder: the launcher, and what it starts and compiles. */
  private static final List<String> PARTS = List.of("flotilla", "pom.xml", ".mvn", "node", "bench");

  private static final long LOOK_MINUTES = 10;
  private static final Duration START_PATIENCE = Duration.ofMinutes(5);

  /** This process has started; what it does later is no reason to go back. */
  private static volatile boolean started;

  private Builds() {}

  /** What runs now, if it was started by a launcher. */
  static Optional<Build> running() {
    return Optional.ofNullable(System.getProperty("flotilla.home"))
        .map(home -> new Build(Path.of(home).toAbsolutePath().normalize(), Version.CURRENT));
  }

  private static Path launcher(Path home) {
    return home.resolve("flotilla");
  }

  /**
   * Runs a build's launcher for its version, which compiles it first if need be.
   *
   * @throws FlotillaException {@code INVALID} if it is none of this machine's owner, or does not
   *     run
   */
  static Build look(Path home) {
    Path launcher = launcher(home);
    if (!Files.isExecutable(launcher)) {
      throw unusable(home, "there is no program " + launcher, "");
    }
    checkOwner(home);
    try {
      ProcessBuilder builder = new ProcessBuilder(launcher.toString(), "--version");
      builder.environment().remove(FALLBACK);
      builder.redirectErrorStream(true);
      Path said = Files.createTempFile("flotilla-version", ".txt");
      try {
        Process process = builder.redirectOutput(said.toFile()).start();
        boolean ended = process.waitFor(LOOK_MINUTES, TimeUnit.MINUTES);
        if (!ended) {
          process.destroyForcibly();
        }
        String text = Files.readString(said, StandardCharsets.UTF_8).strip();
        String last = text.substring(text.lastIndexOf('\n') + 1);
        Matcher version = VERSION.matcher(last);
        if (!ended || process.exitValue() != 0 || !version.matches()) {
          throw unusable(home, "it does not say its version", text);
        }
        return new Build(home, version.group(1));
      } finally {
        Files.delete(said);
      }
    } catch (IOException e) {
      throw unusable(home, IoReason.of(e), "");
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.UNAVAILABLE, "this node is stopping", "");
    }
  }

  private static FlotillaException unusable(Path home, String why, String said) {
    return new FlotillaException(
        Code.INVALID,
        "the build in " + home + " cannot be used: " + why + (said.isEmpty() ? "" : ": " + said),
        "Put a build of Flotilla there, and run its `flotilla --version` by hand.");
  }

  /**
   * Whoever may change the program, or what it is compiled from, could run anything as this node.
   */
  private static void checkOwner(Path home) {
    String self = System.getProperty("user.name");
    List<String> trusted = List.of(self, "root");
    try {
      List<Path> all = new ArrayList<>(List.of(home));
      for (String part : PARTS) {
        if (Files.exists(home.resolve(part), LinkOption.NOFOLLOW_LINKS)) {
          try (Stream<Path> below = Files.walk(home.resolve(part), FileVisitOption.FOLLOW_LINKS)) {
            below.forEach(all::add);
          }
        }
      }
      for (Path path : all) {
        // What a link points to counts: the link itself anyone may follow.
        Path real = path.toRealPath();
        PosixFileAttributes file = Files.readAttributes(real, PosixFileAttributes.class);
        Set<PosixFilePermission> permissions = file.permissions();
        boolean othersWrite =
            permissions.contains(PosixFilePermission.OTHERS_WRITE)
                || (permissions.contains(PosixFilePermission.GROUP_WRITE)
                    && !trusted.contains(file.group().getName()));
        if (othersWrite || !trusted.contains(file.owner().getName())) {
          throw unusable(
              home,
              real
                  + " belongs to "
                  + file.owner().getName()
                  + " with the rights "
                  + PosixFilePermissions.toString(permissions)
                  + ", so that others than "
                  + self
                  + " may change it",
              "");
        }
      }
    } catch (NoSuchFileException e) {
      throw unusable(home, e.getFile() + " is a link to nothing, or was just deleted", "");
    } catch (UncheckedIOException | IOException e) {
      throw unusable(home, "it cannot be looked through: " + e.getMessage(), "");
    }
  }

  /**
   * This process becomes a build's; its node has stopped.
   *
   * @param arguments all of the command line
   */
  static void become(Build next, List<String> arguments) {
    Map<String, String> environment = new HashMap<>(System.getenv());
    environment.remove(FALLBACK);
    running()
        .filter(now -> !now.home().equals(next.home()))
        .ifPresent(now -> environment.put(FALLBACK, now.home().toString()));
    replace(next.home(), arguments, environment);
  }

  /** The node serves: there is no way back any more. */
  static void started() {
    started = true;
  }

  /** If this process is an upgrade of another build's and has not started, becomes that one. */
  static void goBack(List<String> arguments, String why) {
    String home = System.getenv(FALLBACK);
    if (started || home == null || home.isEmpty()) {
      return;
    }
    System.err.println("flotilla: " + why + "; going back to the build in " + home);
    Map<String, String> environment = new HashMap<>(System.getenv());
    environment.remove(FALLBACK);
    replace(Path.of(home), arguments, environment);
  }

  /** Goes back if the node has not started for too long. */
  static void watch(List<String> arguments) {
    Thread.ofPlatform()
        .daemon()
        .name("start-watch")
        .start(
            () -> {
              try {
                Thread.sleep(START_PATIENCE);
                goBack(arguments, "not ready after " + START_PATIENCE.toMinutes() + " minutes");
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              }
            });
  }

  private static void replace(Path home, List<String> arguments, Map<String, String> environment) {
    List<String> command =
        Stream.concat(Stream.of(launcher(home).toString()), arguments.stream()).toList();
    try {
      ProcessImage.replace(command, environment);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.FAILED,
          "this process cannot become the build in " + home + ": " + e.getMessage(),
          "Start the node again by hand.",
          e);
    }
  }
}
