package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class BackupCommandTest {

  @TempDir Path folder;

  @Test
  void aBackupIsMadeListedAndGoneBackToFromTheShell() {
    try (TestNode node = TestNode.start(folder.resolve("one"))) {
      String target = folder.resolve("backups/daily").toString();
      assertThat(node.run("backup", target)).isEqualTo(0);
      assertThat(node.run("backup", target)).isEqualTo(1);
      assertThat(node.run("backup", "daily", "--point")).isEqualTo(0);
      assertThat(node.run("backup")).isEqualTo(0);
      JsonNode listed = node.client().get("/api/backups");
      assertThat(listed.path(0).path("name").asText()).isEqualTo("daily");
      assertThat(listed.path(0).path("points_ms")).hasSize(2);

      assertThat(node.run("restore", "daily", "--at", "soon")).isEqualTo(1);
      assertThat(node.run("restore", "daily", "--at", "1999-01-01T00:00:00Z")).isEqualTo(1);
      assertThat(node.run("restore", "daily", "--json")).isEqualTo(0);
      assertThat(node.client().get("/health").path("status").asText()).isEqualTo("ok");
      assertThat(
              node.client()
                  .post(
                      "/api/backups/daily/restore",
                      Map.of("at_ms", listed.path(0).path("points_ms").path(0).asLong()))
                  .path("point_ms")
                  .asLong())
          .isEqualTo(listed.path(0).path("points_ms").path(0).asLong());
    }
  }
}
