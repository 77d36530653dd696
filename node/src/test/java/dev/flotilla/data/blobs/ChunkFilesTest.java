package dev.flotilla.data.blobs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ChunkFilesTest {

  @TempDir Path folder;

  private final AtomicReference<Instant> now = new AtomicReference<>(Instant.ofEpochSecond(1000));
  private final AtomicLong usable = new AtomicLong(1 << 20);

  private ChunkFiles files() {
    ChunkFiles files = new ChunkFiles(folder, usable::get, 1000, now::get);
    files.open();
    return files;
  }

  private static byte[] content(int seed, int length) {
    byte[] content = new byte[length];
    new Random(seed).nextBytes(content);
    return content;
  }

  private static String write(ChunkFiles files, byte[] content) {
    String chunk = BlobManifest.sha256(content, content.length);
    files.write(chunk, content, content.length);
    return chunk;
  }

  static Path file(Path folder, String chunk) {
    return folder.resolve(chunk.substring(0, 2)).resolve(chunk);
  }

  @Test
  void whatWasWrittenIsReadAndAFlippedBitOrACutIsRecognised() throws IOException {
    ChunkFiles files = files();
    String whole = write(files, content(1, 5000));
    String flipped = write(files, content(2, 5000));
    String cut = write(files, content(3, 5000));
    byte[] bytes = Files.readAllBytes(file(folder, flipped));
    bytes[777] ^= 4;
    Files.write(file(folder, flipped), bytes);
    Files.write(file(folder, cut), content(3, 4999));
    assertThat(files.read(whole)).contains(content(1, 5000));
    for (String bad : List.of(flipped, cut)) {
      assertThatThrownBy(() -> files.read(bad))
          .isInstanceOfSatisfying(
              FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BAD_FILE));
      assertThat(files.read(bad)).isEqualTo(Optional.empty());
    }
    assertThat(files.damaged()).isEqualTo(2);
    assertThat(files.list()).containsExactly(whole);
    write(files, content(2, 5000));
    assertThat(files.read(flipped)).contains(content(2, 5000));
  }

  @Test
  void aFullDiskIsSaidAndNothingIsLeftHalfDone() throws IOException {
    ChunkFiles files = files();
    usable.set(5999);
    assertThatThrownBy(() -> write(files, content(1, 5000)))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> {
              assertThat(e.code()).isEqualTo(Code.STORAGE);
              assertThat(e.explanation()).contains("5999", "1000", "Remove blobs");
            });
    assertThat(files.list()).isEmpty();
    assertThat(Files.list(folder.resolve("new"))).isEmpty();
    usable.set(6000);
    assertThat(files.has(write(files, content(1, 5000)))).isTrue();
  }

  @Test
  void aTouchedChunkIsNotDropped() {
    ChunkFiles files = files();
    String touched = write(files, content(1, 10));
    String rewritten = write(files, content(2, 10));
    String idle = write(files, content(3, 10));
    now.set(now.get().plusSeconds(100));
    assertThat(files.touch(touched)).isTrue();
    write(files, content(2, 10));
    now.set(now.get().plusSeconds(50));
    for (String chunk : List.of(touched, rewritten)) {
      assertThat(files.drop(chunk, Duration.ofSeconds(100))).isFalse();
    }
    assertThat(files.drop(idle, Duration.ofSeconds(100))).isTrue();
    assertThat(files.list()).containsExactlyInAnyOrder(touched, rewritten);
  }

  @Test
  void whatAKillLeftHalfWrittenIsGoneAfterTheNextStart() throws IOException {
    files();
    Files.write(folder.resolve("new").resolve("half.1"), content(1, 10));
    files();
    assertThat(Files.list(folder.resolve("new"))).isEmpty();
  }

  @Test
  void anInterruptedReaderDoesNotTakeAChunkForDamaged() {
    ChunkFiles files = files();
    byte[] content = content(1, 300_000);
    String chunk = write(files, content);
    Thread.currentThread().interrupt();
    try {
      assertThat(files.read(chunk)).hasValue(content);
    } finally {
      assertThat(Thread.interrupted()).isTrue();
    }
    assertThat(files.damaged()).isZero();
    assertThat(files.has(chunk)).isTrue();
  }

  @Test
  void aScrubFindsWhatIsDamagedAndGoesOnWhereItWas() throws Exception {
    ChunkFiles files = files();
    List<String> chunks = new ArrayList<>();
    for (int i = 0; i < 300; i++) {
      chunks.add(write(files, content(i, 100)));
    }
    String bad = chunks.get(150);
    Files.write(file(folder, bad), content(9999, 100));
    List<String> replaced = new CopyOnWriteArrayList<>();
    List<String> read = new CopyOnWriteArrayList<>();
    // 100 bytes at 100 kB/s: a millisecond each, so that the stop comes in the middle.
    try (BlobScrubber scrubber = scrubber(files, read, replaced, 100_000)) {
      scrubber.start();
      scrubber.startOver();
      await(() -> read.size() > 60);
    }
    int before = read.size();
    assertThat(before).isLessThan(300);
    try (BlobScrubber scrubber = scrubber(files, read, replaced, 100_000_000)) {
      scrubber.start();
      await(() -> !scrubber.running());
    }
    assertThat(replaced).containsExactly(bad);
    assertThat(read).containsAll(chunks);
    // A folder that was under way is read again, others are not.
    assertThat(read.size()).isLessThan(300 + 20);
  }

  private BlobScrubber scrubber(
      ChunkFiles files, List<String> read, List<String> replaced, long bytesPerSecond) {
    return new BlobScrubber(
        folder.resolve("scrub.json"),
        files::list,
        chunk -> {
          read.add(chunk);
          return files.read(chunk);
        },
        replaced::add,
        bytesPerSecond,
        Duration.ofDays(1),
        now::get);
  }

  private static void await(java.util.function.BooleanSupplier condition)
      throws InterruptedException {
    for (int i = 0; i < 1000 && !condition.getAsBoolean(); i++) {
      Thread.sleep(10);
    }
    assertThat(condition.getAsBoolean()).isTrue();
  }
}
