package dev.flotilla.data.grid;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.flotilla.bench.FaultNet;
import dev.flotilla.data.grid.GridFaults.Fault;
import dev.flotilla.data.grid.GridFaults.Tally;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GridFaultsTest {

  @TempDir Path folder;

  @Test
  void nothingAcknowledgedIsLostAndAllHoldTheSameAfterEachFault() throws Exception {
    assumeTrue(
        System.getenv("FLOTILLA_FAULTS") != null,
        "set FLOTILLA_FAULTS: it takes minutes, and finds copies that differ (see docs/LOG.md)");
    assumeTrue(FaultNet.isAllowed(), "network namespaces need root on Linux");
    long seed = System.nanoTime() & 0xffff;
    Random random = new Random(seed);
    try (GridFaults grids = new GridFaults(folder, 240)) {
      for (Fault fault : List.of(Fault.ISOLATE, Fault.PAUSE_10_S, Fault.ALL_APART)) {
        Tally tally = grids.cycle(fault, random);
        assertThat(tally.acknowledged()).isPositive();
        assertThat(tally.lost() + tally.ghosts() + tally.torn() + tally.diverged())
            .as("after %s, seed %d: %s", fault, seed, tally)
            .isZero();
      }
    }
  }
}
