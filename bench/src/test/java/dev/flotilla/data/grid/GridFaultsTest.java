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

  private static void assumeFaults() {
    assumeTrue(System.getenv("FLOTILLA_FAULTS") != null, "set FLOTILLA_FAULTS: it takes minutes");
    assumeTrue(FaultNet.isAllowed(), "network namespaces need root on Linux");
  }

  @Test
  void nothingAcknowledgedIsLostAndAllHoldTheSameAfterEachFault() throws Exception {
    assumeFaults();
    long seed = System.nanoTime() & 0xffff;
    Random random = new Random(seed);
    try (GridFaults grids = new GridFaults(folder, 240, false)) {
      for (Fault fault :
          List.of(Fault.ISOLATE, Fault.KILL_ALL, Fault.PAUSE_10_S, Fault.ALL_APART, Fault.PAIR)) {
        Tally tally = grids.cycle(fault, random);
        assertThat(tally.acknowledged()).isPositive();
        assertThat(tally.lost() + tally.ghosts() + tally.torn() + tally.diverged())
            .as("after %s, seed %d: %s", fault, seed, tally)
            .isZero();
      }
    }
  }

  @Test
  void aGridThatAcknowledgesWithoutAMajorityIsFoundOut() throws Exception {
    assumeFaults();
    long seed = System.nanoTime() & 0xffff;
    Random random = new Random(seed);
    Tally total = Tally.none();
    try (GridFaults grids = new GridFaults(folder, 241, true)) {
      for (int cycle = 0; cycle < 6 && total.lost() + total.ghosts() == 0; cycle++) {
        total = total.plus(grids.cycle(Fault.ISOLATE, random));
      }
    }
    assertThat(total.lost() + total.ghosts()).as("seed %d: %s", seed, total).isPositive();
  }
}
