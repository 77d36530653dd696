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
      "The last point that is not after --at is taken, or the last of all."
    },
    mixinStandardHelpOptions = true)
final class RestoreCommand extends ClientCommand {

  @Parameters(
      paramLabel = "DIR|NAME",
      description = "A backup's name, or the path at which it was made, also by another cluster.")
  private String target = "";

  @Option(
      names = "--at",
      paramLabel = "TIME",
      description = "A moment, such as 2026-11-24T10:00:00Z.")
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
          Code.INVALID, "--at is not a moment: " + text, "Write it as 2026-11-24T10:00:00Z.", e);
    }
  }
}
