package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.HttpBackups;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Puts a backup in the place of what the data grid holds. */
@Command(
    name = "restore",
    description = {
      "Go back to a backup: what the data grid holds now is deleted.",
      "Where changes were written behind it, to the very moment --to; else the last point that is",
      "not after it, or the last of all. Make a new backup afterwards."
    },
    mixinStandardHelpOptions = true)
final class RestoreCommand extends ClientCommand {

  @Parameters(
      paramLabel = "DIR|NAME",
      description = "A backup's name, or the path at which it was made, also by another cluster.")
  private String target = "";

  @Option(
      names = {"--to", "--at"},
      paramLabel = "TIME",
      description =
          "A moment, such as 2026-11-24T10:00:00Z or 2026-11-24T10:00:00.250Z; flotilla backup lists"
              + " which can be gone back to.")
  private Optional<String> at = Optional.empty();

  @Override
  public Integer call() {
    BackupTarget where = BackupTarget.of(target);
    Instant point =
        new HttpBackups(client())
            .restore(where.name(), where.folder(), at.map(RestoreCommand::moment));
    System.out.println(
        asJson
            ? json(Map.of("name", where.name(), "point_ms", point.toEpochMilli()))
            : "restored " + where.name() + " as of " + point);
    return 0;
  }

  private static Instant moment(String text) {
    try {
      return Instant.parse(text);
    } catch (DateTimeParseException e) {
      throw new FlotillaException(
          Code.INVALID, "--to is not a moment: " + text, "Write it as 2026-11-24T10:00:00Z.", e);
    }
  }
}
