package dev.flotilla.data.jobs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.Json;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.configuration.TopologyValidator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Jobs whose results the grid does not take. */
class JobSetbacksTest {

  @TempDir Path folder;

  /** Takes no write. */
  private static final class Refusal implements TopologyValidator {
    private static final long serialVersionUID = 1L;

    @Override
    public boolean validate(Collection<ClusterNode> nodes) {
      return false;
    }
  }

  @Test
  void aJobWhoseRowsCannotBeWrittenIsGivenUpAndSaysWhy() {
    List<GridJobs> made = new ArrayList<>();
    try (TestGrids grids =
        new TestGrids(
            folder,
            (cluster, grid, data) -> {
              grid.onStart(
                  ignite ->
                      ignite.getOrCreateCache(
                          JobStore.rowsConfig(grid).setTopologyValidator(new Refusal())));
              made.add(JobsTest.jobs(cluster, grid, data, new Fences(grid)));
            })) {
      Grid grid = grids.add().grid();
      GridJobs jobs = made.getFirst();
      jobs.start();
      String id = jobs.submit("squares", Json.MAPPER.createObjectNode());
      TestNodes.await(
          "its end",
          Duration.ofSeconds(60),
          () -> !List.of("submitted", "running").contains(jobs.show(id).state()));
      Jobs.View view = jobs.show(id);
      assertThat(view.state()).isEqualTo("failed");
      assertThat(view.reason())
          .startsWith("given up after 4 tries in a row: keeping rows of job " + id)
          .contains("on too few nodes");
      assertThat(view.done()).isGreaterThanOrEqualTo(40);
      assertThat(new JobStore(grid, new Fences(grid)).openHere()).isEmpty();
      assertThat(jobs.cancel(id)).isEqualTo("deleted");
      assertThatThrownBy(() -> jobs.show(id)).hasMessageContaining("no job");
      jobs.close();
    }
  }
}
