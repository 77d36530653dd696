package dev.flotilla.data.log;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.data.grid.TestGrids;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LogStreamsTest {

  private static final int APPENDS = 40;
  private static final int RECORDS = 7;

  /** So large that each takes a while to be applied. */
  private static final byte[] RECORD = new byte[1 << 20];

  @TempDir Path folder;

  @Test
  void whoFollowsAStreamMissesNothingWhileACommitShowsItsEntriesOneAfterTheOther()
      throws Exception {
    try (TestGrids grids = new TestGrids(folder);
        var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      LogStreams streams = new LogStreams(grids.add().grid(), InstantSource.system());
      assertThat(streams.append("events", List.of(RECORD))).isZero();
      Future<?> writer =
          threads.submit(
              () -> {
                for (int i = 0; i < APPENDS; i++) {
                  streams.append("events", Collections.nCopies(RECORDS, RECORD));
                }
              });
      long next = 0;
      while (next < 1 + APPENDS * RECORDS
          && !(writer.isDone() && writer.state() == Future.State.FAILED)) {
        for (Log.StreamRecord record : streams.read("events", next, 1000, 0)) {
          assertThat(record.offset()).isEqualTo(next);
          next++;
        }
      }
      writer.get();
    }
  }
}
