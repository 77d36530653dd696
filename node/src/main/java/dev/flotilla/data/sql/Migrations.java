package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs migrations one at a time in the whole cluster. Who may is decided in the registry: an entry
 * names the one that migrates and is renewed before each statement; where it was not for a minute,
 * another takes over. What has run stands in the table {@code FLOTILLA_MIGRATIONS}, with the number
 * of statements done of one that failed, since the engine cannot undo DDL: it goes on from there.
 */
final class Migrations {

  private static final Logger log = LoggerFactory.getLogger(Migrations.class);
  private static final Registry.Key TURN = new Registry.Key("sql", "migrating");
  private static final long TURN_MS = 60_000;
  private static final long WAIT_MS = 120_000;

  /** Who migrates, until when by its own clock unless renewed. */
  record Turn(String holder, long untilMs) {}

  /** A row of the table; the number of statements is reached when all are done. */
  private record Row(Migration.Applied applied, int statementsDone, boolean complete) {}

  private final Sql sql;
  private final Cluster cluster;
  private final InstantSource clock;

  Migrations(Sql sql, Cluster cluster, InstantSource clock) {
    this.sql = sql;
    this.cluster = cluster;
    this.clock = clock;
  }

  List<Migration.Applied> applied() {
    return rows().stream().filter(Row::complete).map(Row::applied).toList();
  }

  private List<Row> rows() {
    try {
      return sql
          .execute(
              "SELECT version, name, checksum, applied_at_ms, statements_done, complete"
                  + " FROM flotilla_migrations ORDER BY version")
          .rows()
          .stream()
          .map(
              row ->
                  new Row(
                      new Migration.Applied(
                          ((Number) of(row.get(0))).longValue(),
                          String.valueOf(row.get(1)),
                          String.valueOf(row.get(2)),
                          ((Number) of(row.get(3))).longValue()),
                      ((Number) of(row.get(4))).intValue(),
                      Boolean.TRUE.equals(row.get(5))))
          .toList();
    } catch (FlotillaException e) {
      if (e.code() == Code.NOT_FOUND) {
        return List.of();
      }
      throw e;
    }
  }

  private static Object of(@org.jspecify.annotations.Nullable Object value) {
    return java.util.Objects.requireNonNull(value, "a row of FLOTILLA_MIGRATIONS is damaged");
  }

  List<Migration.Applied> migrate(List<Migration> all) {
    checkOrder(all);
    String holder = cluster.self() + "/" + UUID.randomUUID();
    takeTurn(holder);
    try {
      sql.execute(
          "CREATE TABLE IF NOT EXISTS flotilla_migrations (version BIGINT PRIMARY KEY,"
              + " name VARCHAR, checksum VARCHAR, applied_at_ms BIGINT, statements_done INT,"
              + " complete BOOLEAN)");
      List<Row> rows = rows();
      checkHistory(all, rows);
      List<Migration.Applied> done = new ArrayList<>();
      for (Migration migration : all) {
        Optional<Row> row =
            rows.stream().filter(r -> r.applied().version() == migration.version()).findFirst();
        if (row.isEmpty() || !row.get().complete()) {
          done.add(run(migration, row.map(Row::statementsDone).orElse(0), holder));
        }
      }
      return done;
    } finally {
      endTurn(holder);
    }
  }

  private static void checkOrder(List<Migration> all) {
    Set<Long> seen = new HashSet<>();
    long before = Long.MIN_VALUE;
    for (Migration migration : all) {
      if (!seen.add(migration.version()) || migration.version() < before) {
        throw new FlotillaException(
            Code.CONFLICT,
            "version " + migration.version() + " of the migrations stands twice or out of order",
            "Give each a version of its own that grows.");
      }
      before = migration.version();
    }
  }

  private static void checkHistory(List<Migration> all, List<Row> rows) {
    long newest = rows.stream().mapToLong(row -> row.applied().version()).max().orElse(-1);
    for (Row row : rows) {
      Migration same =
          all.stream()
              .filter(migration -> migration.version() == row.applied().version())
              .findFirst()
              .orElseThrow(
                  () ->
                      new FlotillaException(
                          Code.CONFLICT,
                          "migration "
                              + row.applied().version()
                              + " ("
                              + row.applied().name()
                              + ") has run, but is not among those given",
                          "Give all of the history; undo a step by a new one."));
      if (!row.complete() && !begun(same, row.statementsDone()).equals(row.applied().checksum())) {
        throw new FlotillaException(
            Code.CONFLICT,
            "of migration "
                + same.version()
                + " ("
                + same.name()
                + ") "
                + row.statementsDone()
                + " statements have run, and they have changed since",
            "Put them back as they were, and mend only what comes behind them.");
      }
      if (row.complete() && !same.checksum().equals(row.applied().checksum())) {
        throw new FlotillaException(
            Code.CONFLICT,
            "migration " + same.version() + " (" + same.name() + ") has changed since it ran",
            "Put it back as it was, and write a new one for the change.");
      }
    }
    for (Migration migration : all) {
      boolean ran = rows.stream().anyMatch(row -> row.applied().version() == migration.version());
      if (!ran && migration.version() < newest) {
        throw new FlotillaException(
            Code.CONFLICT,
            "migration " + migration.version() + " comes before version " + newest + ", which ran",
            "Give it a higher version.");
      }
    }
  }

  private Migration.Applied run(Migration migration, int from, String holder) {
    List<String> statements = Sql.split(migration.script());
    for (int i = from; i < statements.size(); i++) {
      renewTurn(holder);
      try {
        sql.execute(statements.get(i));
      } catch (FlotillaException e) {
        record(migration, i, false);
        throw new FlotillaException(
            e.code(),
            "migration "
                + migration.version()
                + " ("
                + migration.name()
                + ") failed at statement "
                + (i + 1)
                + " of "
                + statements.size()
                + ", \""
                + statements.get(i)
                + "\": "
                + e.getMessage(),
            "Mend it and migrate again: it goes on from that statement.",
            e);
      }
      record(migration, i + 1, false);
    }
    Migration.Applied applied = record(migration, statements.size(), true);
    log.info("migration {} ({}) has run", migration.version(), migration.name());
    return applied;
  }

  /** The checksum of the statements that have run: those behind may still be mended. */
  private static String begun(Migration migration, int statements) {
    List<String> all = Sql.split(migration.script());
    String begun = String.join(";\n", all.subList(0, Math.min(statements, all.size())));
    return new Migration(migration.version(), migration.name(), begun).checksum();
  }

  private Migration.Applied record(Migration migration, int done, boolean complete) {
    Migration.Applied applied =
        new Migration.Applied(
            migration.version(),
            migration.name(),
            complete ? migration.checksum() : begun(migration, done),
            clock.millis());
    SqlResult updated =
        sql.execute(
            "UPDATE flotilla_migrations SET name = ?, checksum = ?, applied_at_ms = ?,"
                + " statements_done = ?, complete = ? WHERE version = ?",
            applied.name(),
            applied.checksum(),
            applied.appliedAtMs(),
            done,
            complete,
            applied.version());
    if (updated.updated() == 0) {
      sql.execute(
          "INSERT INTO flotilla_migrations (version, name, checksum, applied_at_ms,"
              + " statements_done, complete) VALUES (?, ?, ?, ?, ?, ?)",
          applied.version(),
          applied.name(),
          applied.checksum(),
          applied.appliedAtMs(),
          done,
          complete);
    }
    return applied;
  }

  private void takeTurn(String holder) {
    Registry registry = cluster.registry();
    long deadlineMs = clock.millis() + WAIT_MS;
    while (true) {
      registry.sync();
      Optional<Registry.Entry> entry = registry.get(TURN);
      Optional<Turn> turn = entry.map(e -> Json.read(e.value(), Turn.class));
      boolean free = turn.map(t -> t.untilMs() < clock.millis()).orElse(true);
      if (free && put(entry, holder)) {
        return;
      }
      if (clock.millis() > deadlineMs) {
        throw new FlotillaException(
            Code.BUSY,
            turn.map(Turn::holder).orElse("another node") + " is migrating",
            "Wait until it has ended, then try again.");
      }
      try {
        Thread.sleep(100);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.FAILED, "interrupted", "", e);
      }
    }
  }

  private boolean put(Optional<Registry.Entry> now, String holder) {
    Turn turn = new Turn(holder, clock.millis() + TURN_MS);
    return cluster
        .registry()
        .commit(
            List.of(new Registry.Condition(TURN, now.map(Registry.Entry::epoch).orElse(0L))),
            List.of(new Registry.Write(TURN, Optional.of(Json.write(turn)))))
        .isPresent();
  }

  private void renewTurn(String holder) {
    Optional<Registry.Entry> entry = mine(holder);
    if (entry.isEmpty() || !put(entry, holder)) {
      throw new FlotillaException(
          Code.CONFLICT, "another node has taken over migrating", "See what it has done.");
    }
  }

  private Optional<Registry.Entry> mine(String holder) {
    return cluster
        .registry()
        .get(TURN)
        .filter(entry -> Json.read(entry.value(), Turn.class).holder().equals(holder));
  }

  private void endTurn(String holder) {
    try {
      mine(holder)
          .ifPresent(
              entry -> {
                var _ =
                    cluster
                        .registry()
                        .commit(
                            List.of(new Registry.Condition(TURN, entry.epoch())),
                            List.of(new Registry.Write(TURN, Optional.empty())));
              });
    } catch (FlotillaException e) {
      log.warn("the right to migrate is kept for a minute: {}", e.getMessage());
    }
  }
}
