package dev.flotilla.app;

import dev.flotilla.client.HttpBackups;
import dev.flotilla.data.Backups.Backup;
import dev.flotilla.data.Backups.Moments;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
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
      "Changes are written behind the last backup: one can go back to any moment since."
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

  @Option(names = "--delete", description = "Delete the backup, on every node.")
  private boolean delete;

  @Option(
      names = "--keep-days",
      paramLabel = "D",
      description = "Delete backups whose last moment is older; never the last backup.")
  private Optional<Long> keepDays = Optional.empty();

  @Option(
      names = "--keep-mb",
      paramLabel = "MB",
      description = "Delete the oldest backups while all take more than this on the node asked.")
  private Optional<Long> keepMegabytes = Optional.empty();

  @Override
  public Integer call() {
    HttpBackups backups = new HttpBackups(client());
    if (keepDays.isPresent() || keepMegabytes.isPresent()) {
      List<String> deleted =
          backups.prune(keepDays.map(Duration::ofDays), keepMegabytes.map(mb -> mb << 20));
      System.out.println(
          asJson ? json(Map.of("deleted", deleted)) : "deleted " + String.join(" ", deleted));
      return 0;
    }
    if (target.isEmpty()) {
      return show(backups.list());
    }
    BackupTarget where = BackupTarget.of(target.get());
    if (delete) {
      backups.delete(where.name());
      System.out.println(
          asJson ? json(Map.of("deleted", List.of(where.name()))) : "deleted " + where.name());
      return 0;
    }
    Backup backup =
        point ? backups.addPoint(where.name()) : backups.create(where.name(), where.folder());
    if (asJson) {
      System.out.println(json(row(backup)));
    } else {
      System.out.printf("%s: %s%n", backup.name(), backup.points().getLast());
      if (!backup.without().isEmpty()) {
        System.err.println("without lost nodes: " + String.join(", ", backup.without()));
      }
    }
    return 0;
  }

  private int show(List<Backup> list) {
    if (asJson) {
      System.out.println(json(list.stream().map(BackupCommand::row).toList()));
      return 0;
    }
    table(
        List.of("NAME", "FOLDER", "RESTORABLE FROM", "RESTORABLE UP TO", "POINTS", "TROUBLE"),
        list.stream()
            .map(
                backup ->
                    List.of(
                        backup.name(),
                        backup.folder().orElse("-"),
                        backup.anyMoment().map(each -> each.from().toString()).orElse("-"),
                        backup.anyMoment().map(each -> each.to().toString()).orElse("-"),
                        backup.points().stream()
                            .map(Instant::toString)
                            .collect(Collectors.joining(" ")),
                        backup.anyMoment().map(Moments::trouble).orElse("")))
            .toList());
    return 0;
  }

  /** As the HTTP API has it. */
  private static Map<String, Object> row(Backup backup) {
    Map<String, Object> row =
        new LinkedHashMap<>(
            Map.of(
                "name",
                backup.name(),
                "folder",
                backup.folder().orElse(""),
                "points_ms",
                backup.points().stream().map(Instant::toEpochMilli).toList()));
    backup
        .anyMoment()
        .ifPresent(
            each ->
                row.put(
                    "restorable",
                    Map.of(
                        "from_ms",
                        each.from().toEpochMilli(),
                        "to_ms",
                        each.to().toEpochMilli(),
                        "trouble",
                        each.trouble())));
    row.put("without", backup.without());
    return row;
  }
}
