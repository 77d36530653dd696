package dev.flotilla.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.internal.processors.cache.transactions.TransactionProxyImpl;
import org.apache.ignite.transactions.Transaction;
import org.apache.ignite.transactions.TransactionConcurrency;
import org.apache.ignite.transactions.TransactionIsolation;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What is written behind a backup, on one node. */
class ChangeJournalTest {

  private static final Duration PATIENCE = Duration.ofSeconds(30);

  @TempDir Path folder;
  private TestGrids grids;
  private TestGrids.Member member;
  private Locks locks;

  @BeforeEach
  void start() {
    grids = new TestGrids(folder.resolve("nodes"));
    member = grids.add();
    locks = Locks.embedded(member.cluster(), System::nanoTime, new SimpleMeterRegistry());
  }

  @AfterEach
  void stop() {
    grids.close();
  }

  private ChangeJournal journal(ChangeJournal.Limits limits) {
    ChangeJournal journal =
        new ChangeJournal(
            new Environment(
                member.cluster(),
                folder.resolve("lists"),
                "127.0.0.1",
                0,
                new SimpleMeterRegistry(),
                InstantSource.system(),
                System::nanoTime,
                new Random()),
            member.grid(),
            List.of(),
            limits);
    journal.start();
    return journal;
  }

  private GridBackups backups(ChangeJournal journal) {
    return new GridBackups(
        member.cluster(),
        member.grid(),
        locks,
        InstantSource.system(),
        List.of(),
        Optional.of(journal));
  }

  private void put(int key) {
    Grid grid = member.grid();
    grid.write(
        "a test",
        ignite -> {
          ignite
              .getOrCreateCache(grid.<Integer, byte[]>cacheConfig("things"))
              .put(key, new byte[1 << 16]);
          return true;
        });
  }

  private static String trouble(Backups backups) {
    return backups.list().getLast().anyMoment().orElseThrow().trouble();
  }

  @Test
  void aListThatIsTooLongIsSaidToBeAndWhatItLacksIsNotKeptInMemory() {
    try (ChangeJournal journal = journal(new ChangeJournal.Limits(1 << 19, 1 << 19))) {
      Backups backups = backups(journal);
      backups.create("first", Optional.empty());
      TestNodes.await(
          "the trouble",
          PATIENCE,
          () -> {
            put(1);
            return trouble(backups).contains("too much");
          });
      int waiting = journal.waiting();
      // It tries each second.
      double laterSeconds = journal.lagSeconds() + 4;
      TestNodes.await(
          "some more attempts",
          PATIENCE,
          () -> {
            put(2);
            return journal.lagSeconds() > laterSeconds;
          });
      assertThat(journal.waiting()).isEqualTo(waiting);
      assertThat(trouble(backups)).contains("too much").contains("Make a new backup");

      backups.create("second", Optional.empty());
      assertThat(trouble(backups)).isEmpty();
    }
  }

  private static Backups.Moments moments(Backups backups) {
    return backups.list().getLast().anyMoment().orElseThrow();
  }

  private static void awaitWritten(Backups backups) {
    Instant now = Instant.now();
    TestNodes.await("what was changed", PATIENCE, () -> moments(backups).to().isAfter(now));
  }

  /** A process that is killed in the middle of a file, or between making one and its header. */
  @Test
  void aListWhoseLastFilesWereCutOffIsGoneOnWith() throws Exception {
    Instant from;
    try (ChangeJournal journal = journal(ChangeJournal.Limits.DEFAULTS)) {
      Backups backups = backups(journal);
      put(1);
      backups.create("torn", Optional.empty());
      put(2);
      awaitWritten(backups);
      from = moments(backups).from();
    }
    Path list = ChangeJournal.folder(folder.resolve("lists/data/backups"), "", "torn");
    Path last;
    try (var files = Files.list(list)) {
      last = files.sorted().toList().getLast();
    }
    // The beginning of a frame, whose length and sum promise more.
    byte[] written = Files.readAllBytes(last);
    Files.write(
        last,
        java.util.Arrays.copyOf(written, Math.min(40, written.length)),
        StandardOpenOption.APPEND);
    String name = last.getFileName().toString();
    int number = Integer.parseInt(name.substring(name.length() - 14, name.length() - 8));
    for (int i = 1; i <= 2; i++) {
      Files.write(
          list.resolve(
              name.substring(0, name.length() - 14) + String.format("%06d.changes", number + i)),
          new byte[3 * (i - 1)]);
    }
    try (ChangeJournal journal = journal(ChangeJournal.Limits.DEFAULTS)) {
      Backups backups = backups(journal);
      put(3);
      awaitWritten(backups);
      assertThat(moments(backups).trouble()).isEmpty();
      assertThat(moments(backups).from()).isEqualTo(from);
      put(4);
      awaitWritten(backups);
      Instant whole = moments(backups).to();
      put(5);
      backups.restore("torn", Optional.empty(), Optional.of(whole));
      assertThat(keys()).containsExactly(1, 2, 3, 4);
    }
  }

  private List<Integer> keys() {
    return member
        .grid()
        .read(
            "a test",
            ignite -> {
              List<Integer> keys = new ArrayList<>();
              ignite.<Integer, byte[]>cache("things").forEach(entry -> keys.add(entry.getKey()));
              keys.sort(null);
              return keys;
            });
  }

  /**
   * That a transaction is prepared is logged, but stays in the engine's memory until something else
   * is forced to the disk. A list that did not see it would call a moment good that has a part of
   * it only, on another node.
   */
  @Test
  void aPreparedTransactionHoldsTheGoodMomentBackThoughNothingForcedItsSteps() {
    try (ChangeJournal journal = journal(ChangeJournal.Limits.DEFAULTS)) {
      Backups backups = backups(journal);
      put(1);
      backups.create("prepared", Optional.empty());
      awaitWritten(backups);
      Instant good =
          member
              .grid()
              .read(
                  "a test",
                  ignite -> {
                    try (Transaction transaction =
                        ignite
                            .transactions()
                            .txStart(
                                TransactionConcurrency.PESSIMISTIC,
                                TransactionIsolation.REPEATABLE_READ)) {
                      ignite.<Integer, byte[]>cache("things").put(2, new byte[10]);
                      ((TransactionProxyImpl) transaction).tx().prepare(true);
                      Instant preparedAt = Instant.now();
                      TestNodes.await(
                          "the moment to stand still", PATIENCE, () -> journal.lagSeconds() > 4);
                      assertThat(moments(backups).to()).isBeforeOrEqualTo(preparedAt);
                      Instant stood = moments(backups).to();
                      transaction.commit();
                      return stood;
                    } catch (IgniteCheckedException e) {
                      throw new AssertionError(e);
                    }
                  });
      awaitWritten(backups);
      assertThat(moments(backups).to()).isAfter(good);
    }
  }

  @Test
  void aDeletedBackupIsDeletedOnceWhateverIsPutThereLater() throws Exception {
    try (ChangeJournal journal = journal(ChangeJournal.Limits.DEFAULTS)) {
      Backups backups = backups(journal);
      Path shared = Files.createDirectory(folder.resolve("shared"));
      put(1);
      backups.create("friday", Optional.of(shared.toString()));
      backups.delete("friday");
      TestNodes.await(
          "its deletion",
          PATIENCE,
          () -> {
            try (var left = Files.list(shared)) {
              return left.findAny().isEmpty();
            } catch (java.io.IOException e) {
              return false;
            }
          });
      Path archived = Files.createDirectory(shared.resolve("friday")).resolve("part");
      Files.writeString(archived, "brought back from an archive");

      // What its thread does begins with deletions, each time.
      backups.create("saturday", Optional.of(shared.toString()));
      put(2);
      var before = backups.list().getLast().anyMoment().orElseThrow().to();
      TestNodes.await(
          "changes that are followed",
          PATIENCE,
          () -> backups.list().getLast().anyMoment().orElseThrow().to().isAfter(before));
      assertThat(archived).exists();

      assertThatThrownBy(() -> backups.create("friday", Optional.of(shared.toString())))
          .hasMessageContaining("is there already");
      backups.delete("saturday");
      backups.create("saturday", Optional.empty());
    }
  }

  @Test
  void oneBackupAtATimeIsMadeRestoredOrDeleted() {
    try (ChangeJournal journal = journal(ChangeJournal.Limits.DEFAULTS)) {
      Backups backups = backups(journal);
      put(1);
      backups.create("made", Optional.empty());
      try (Lease other =
          locks.lease(Locks.Request.exclusive("flotilla.backups", "another")).orElseThrow()) {
        assertThat(other.held()).isTrue();
        List<Runnable> all =
            List.of(
                () -> backups.create("second", Optional.empty()),
                () -> backups.addPoint("made"),
                () -> backups.restore("made", Optional.empty(), Optional.empty()),
                () -> backups.delete("made"));
        for (Runnable each : all) {
          assertThatThrownBy(each::run)
              .isInstanceOfSatisfying(
                  FlotillaException.class,
                  e -> assertThat(e.code()).as(e.getMessage()).isEqualTo(Code.CONFLICT))
              .hasMessageContaining("another backup is being");
        }
      }
      backups.delete("made");
      assertThat(backups.list()).isEmpty();
    }
  }
}
