package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What a node says that cannot start, and that it can start once the cause is gone. */
class BadStartTest {

  @TempDir Path folder;

  private static void refused(Code code, String says, String remedy, ThrowingCallable call) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            FlotillaException.class,
            thrown -> {
              assertThat(thrown.code()).isEqualTo(code);
              assertThat(thrown.remedy()).contains(remedy);
            })
        .hasMessageContaining(says);
  }

  @Test
  void aPortInUseIsNamedWithItsOption() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("a");
      for (int offset = 1; offset <= 3; offset++) {
        int port = config.httpPort() + offset;
        try (ServerSocket taken = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
          assertThat(taken.isBound()).isTrue();
          refused(
              Code.CONFLICT,
              "127.0.0.1:" + port,
              "Choose another --port",
              () -> nodes.start(config));
        }
      }
      assertThat(nodes.start(config).leader()).isPresent();
    }
  }

  @Test
  void aFolderInUseIsRefused() {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("a");
      ClusterNode first = nodes.create(config);
      refused(Code.CONFLICT, "in use by another node", "Stop that node", () -> nodes.create(config));
      first.close();
      assertThat(nodes.create(config).self()).isEqualTo(first.self());
    }
  }

  @Test
  void aNodeThatMovedIsToldWhereItsClusterKnowsIt() {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("a");
      nodes.create(config).close();
      ClusterConfig moved = nodes.config("a");
      refused(
          Code.CONFLICT,
          "known to its cluster at 127.0.0.1:" + config.httpPort(),
          "--port " + config.httpPort(),
          () -> nodes.create(moved));
    }
  }

  @Test
  void damagedCertificatesAreNamed() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("a");
      nodes.create(config).close();
      for (String name :
          List.of("cluster.json", "node.key", "node.crt", "authority.crt", "authority.key")) {
        Path file = config.dataFolder().resolve("certs").resolve(name);
        byte[] good = Files.readAllBytes(file);
        Files.write(file, new byte[] {1, 2, 3});
        refused(
            Code.BAD_FILE, file.toString(), "from a backup", () -> nodes.create(config));
        Files.write(file, good);
      }
      assertThat(nodes.create(config).self()).isNotEmpty();
    }
  }

  @Test
  void aRegistryWithoutCertificatesIsNotTakenOver() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("a");
      nodes.start(config).kill();
      NodeFiles.deleteTree(config.dataFolder().resolve("certs"));
      refused(
          Code.BAD_FILE,
          "holds a registry but no certificates",
          "Restore",
          () -> nodes.create(config));
    }
  }

  @Test
  void aDamagedLogIsNamed() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("a");
      nodes.start(config).kill();
      for (Path file : raftFiles(config)) {
        if (file.getFileName().toString().startsWith("log")) {
          byte[] bytes = Files.readAllBytes(file);
          for (int i = 100; i < 130; i++) {
            bytes[i] ^= 0x55;
          }
          Files.write(file, bytes);
        }
      }
      refused(Code.BAD_FILE, "cannot open the registry in", "join again", () -> nodes.start(config));
    }
  }

  private static List<Path> raftFiles(ClusterConfig config) throws IOException {
    try (Stream<Path> files = Files.walk(config.dataFolder().resolve("data/raft"))) {
      return files.filter(Files::isRegularFile).toList();
    }
  }

  @Test
  void aFolderThatCannotBeWrittenIsAStorageError() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      Files.writeString(folder.resolve("file"), "not a folder");
      ClusterConfig config = nodes.config("file");
      refused(Code.STORAGE, folder.resolve("file").toString(), "data folder", () -> nodes.create(config));
    }
  }
}
