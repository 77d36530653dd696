package org.apache.ratis.server.storage;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.cluster.TinyDisk;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.ratis.protocol.RaftPeerId;
import org.apache.ratis.server.RaftServerConfigKeys.Log.CorruptionPolicy;
import org.apache.ratis.server.storage.RaftStorage.StartupOption;
import org.apache.ratis.util.SizeInBytes;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The registry's term and vote on disks that are full, and after a crash. */
class WholeMetadataFileTest {

  private static final RaftStorageMetadata KEPT =
      RaftStorageMetadata.valueOf(5, RaftPeerId.valueOf("n1"));
  private static final RaftStorageMetadata NEXT =
      RaftStorageMetadata.valueOf(6, RaftPeerId.valueOf("n2"));

  @TempDir Path folder;

  private static RaftStorageImpl open(Path place, StartupOption option) throws IOException {
    Files.createDirectories(place);
    RaftStorageImpl storage =
        new RaftStorageImpl(place.toFile(), SizeInBytes.ZERO, option, CorruptionPolicy.EXCEPTION);
    storage.initialize();
    return storage;
  }

  private static RaftStorageImpl ours(Path place, StartupOption option) throws IOException {
    RaftStorageImpl storage = open(place, option);
    WholeMetadataFile.install(storage);
    return storage;
  }

  private static RaftStorageMetadata onDisk(RaftStorageImpl storage) throws IOException {
    return RaftStorageMetadataFileImpl.load(storage.getStorageDir().getMetaFile());
  }

  @Test
  void onAFullDiskTheLastVoteStaysAndNoOtherIsGiven() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("disk"), 4)) {
      Path place = disk.folder().resolve("raft");
      try (RaftStorageImpl storage = ours(place, StartupOption.FORMAT)) {
        storage.getMetadataFile().persist(KEPT);
        disk.leave(0);
        for (int i = 0; i < 3; i++) {
          assertThatThrownBy(() -> storage.getMetadataFile().persist(NEXT))
              .isInstanceOf(IOException.class);
          assertThat(storage.getMetadataFile().getMetadata()).isEqualTo(KEPT);
          assertThat(onDisk(storage)).isEqualTo(KEPT);
        }
      }
      // Started again, while there is still no room.
      try (RaftStorageImpl storage = ours(place, StartupOption.RECOVER)) {
        assertThat(storage.getMetadataFile().getMetadata()).isEqualTo(KEPT);
        disk.free();
        storage.getMetadataFile().persist(NEXT);
        assertThat(onDisk(storage)).isEqualTo(NEXT);
      }
    }
  }

  /** When this fails, Ratis has mended it, and {@link WholeMetadataFile} can go. */
  @Test
  void ratisAloneForgetsBoth() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("disk"), 4)) {
      try (RaftStorageImpl storage = open(disk.folder().resolve("raft"), StartupOption.FORMAT)) {
        storage.getMetadataFile().persist(KEPT);
        disk.leave(0);
        assertThatThrownBy(() -> storage.getMetadataFile().persist(NEXT))
            .isInstanceOf(IOException.class);
        assertThatThrownBy(() -> onDisk(storage))
            .hasRootCauseMessage("'term' not found in properties: {}");
      }
    }
  }

  @Test
  void whatACrashLeftHalfWrittenDoesNotCount() throws Exception {
    Path place = folder.resolve("raft");
    File file;
    try (RaftStorageImpl storage = ours(place, StartupOption.FORMAT)) {
      storage.getMetadataFile().persist(KEPT);
      file = storage.getStorageDir().getMetaFile();
    }
    Path torn = Path.of(file + ".tmp");
    Files.writeString(torn, "term=6\nvot");
    try (RaftStorageImpl storage = ours(place, StartupOption.RECOVER)) {
      assertThat(storage.getMetadataFile().getMetadata()).isEqualTo(KEPT);
      storage.getMetadataFile().persist(NEXT);
    }
    // Ratis reads it as its own.
    try (RaftStorageImpl storage = open(place, StartupOption.RECOVER)) {
      assertThat(storage.getMetadataFile().getMetadata()).isEqualTo(NEXT);
    }
  }

  @Test
  void aVoteThatIsGoneIsNotMadeUp() throws Exception {
    Path place = folder.resolve("raft");
    File file;
    try (RaftStorageImpl storage = ours(place, StartupOption.FORMAT)) {
      file = storage.getStorageDir().getMetaFile();
      assertThat(storage.getMetadataFile().getMetadata())
          .isEqualTo(RaftStorageMetadata.getDefault());
    }
    Files.write(file.toPath(), new byte[0]);
    assertThatThrownBy(() -> ours(place, StartupOption.RECOVER)).isInstanceOf(IOException.class);
  }
}
