package dev.flotilla.app;

import dev.flotilla.client.HttpBackups;
import dev.flotilla.data.Backups.Backup;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Makes and lists backups of the data grid. */
@Command(
    name = "backup",
    description = {
      "Back up tables, caches and queues, or list the backups.",
      "One can go back to the full copy or to any point added later, not to moments between."
    },
    mixinStandardHelpOptions = true)
final class BackupCommand extends ClientCommand {

  @Parameters(
      arity = "0..1",
      paramLabel = "DIR|NAME",
      description =
          "A name, or an absolute path on every node whose last part is the name; left out: list.")
  private Optional<String> target = Optional.empty();

  @Option(names = "--point", description = "Add a point to a backup that is there.")
  private boolean point;

  @Override
  public Integer call() {
    HttpBackups backups = new HttpBackups(client());
    if (target.isEmpty()) {
      return show(backups.list());
    }
    BackupTarget where = BackupTarget.of(target.get());
    Backup backup =
        point ? backups.addPoint(where.name()) : backups.create(where.name(), where.folder());
    if (asJson) {
      System.out.println(json(row(backup)));
    } else {
      System.out.printf("%s: %s%n", backup.name(), backup.points().getLast());
    }
    return 0;
  }

  private int show(List<Backup> list) {
    if (asJson) {
      System.out.println(json(list.stream().map(BackupCommand::row).toList()));
      return 0;
    }
    table(
        List.of("NAME", "FOLDER", "POINTS"),
        list.stream()
            .map(
                backup ->
                    List.of(
                        backup.name(),
                        backup.folder().orElse("-"),
                        backup.points().stream()
                            .map(Instant::toString)
                            .collect(Collectors.joining(" "))))
            .toList());
    return 0;
  }

  /** As the HTTP API has it. */
  private static Map<String, Object> row(Backup backup) {
    return Map.of(
        "name",
        backup.name(),
        "folder",
        backup.folder().orElse(""),
        "points_ms",
        backup.points().stream().map(Instant::toEpochMilli).toList());
  }
}
