package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.client.HttpBackups;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.data.Backups;
import dev.flotilla.data.cache.Cache;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A backup that fails in the middle changes nothing of those before it. */
class FailedBackupTest {

  private static final long PATIENCE_NS = 30_000_000_000L;

  @TempDir static Path folder;

  private static Backups.Moments moments(Backups backups) {
    return backups.list().getFirst().anyMoment().orElseThrow();
  }

  /** Until the changes up to now are written behind the backup. */
  private static void awaitWritten(Backups backups) throws InterruptedException {
    Instant now = Instant.now();
    long deadlineNs = System.nanoTime() + PATIENCE_NS;
    while (!moments(backups).to().isAfter(now)) {
      assertThat(System.nanoTime())
          .as("%s are the moments of the earlier backup, not up to %s", moments(backups), now)
          .isLessThan(deadlineNs);
      Thread.sleep(100);
    }
  }

  private static void put(Cache cache, String value) {
    var _ = cache.put("k", value.getBytes(StandardCharsets.UTF_8), Optional.empty());
  }

  private static String value(Cache cache) {
    return new String(cache.get("k").orElseThrow(), StandardCharsets.UTF_8);
  }

  @Test
  void theEarlierOnesJournalGoesOnAsIfThereHadBeenNone() throws Exception {
    try (TestNode node = TestNode.start(folder.resolve("node"))) {
      Backups backups = new HttpBackups(node.client());
      Cache cache = new HttpCaches(node.client()).cache("things");
      put(cache, "copied");
      Backups.Backup kept = backups.create("kept", Optional.empty());
      assertThat(kept.anyMoment()).isPresent();
      put(cache, "before");
      awaitWritten(backups);
      Instant before = Instant.now();
      Thread.sleep(10);

      // What is in the way of the copy, which begins after the lists of changes have changed over.
      Files.createDirectories(folder.resolve("node/data/grid/snapshots/spoiled"));
      assertThatThrownBy(() -> backups.create("spoiled", Optional.empty()))
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("spoiled");
      assertThat(backups.list()).hasSize(1);

      put(cache, "after");
      awaitWritten(backups);
      Instant after = Instant.now();
      assertThat(moments(backups).from()).isEqualTo(kept.anyMoment().orElseThrow().from());
      assertThat(moments(backups).trouble()).isEmpty();
      Thread.sleep(10);
      put(cache, "later");
      awaitWritten(backups);

      var _ = backups.restore("kept", Optional.empty(), Optional.of(after));
      assertThat(value(cache)).isEqualTo("after");
      var _ = backups.restore("kept", Optional.empty(), Optional.of(before));
      assertThat(value(cache)).isEqualTo("before");
    }
  }
}
