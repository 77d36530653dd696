package dev.flotilla.data.blobs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.blobs.Blobs.Blob;
import dev.flotilla.data.blobs.Blobs.Upload;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** Three nodes; the first starts alone, and is lost at the end. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class BlobsTest {

  private static final int CHUNK = 64 << 10;
  private static final Duration DELAY = Duration.ofSeconds(2);

  private static final BlobConfig CONFIG =
      new BlobConfig(
          3,
          CHUNK,
          DELAY,
          Duration.ofSeconds(2),
          Duration.ofSeconds(1),
          Duration.ofDays(7),
          1L << 40,
          1 << 20,
          Duration.ofHours(1),
          Optional.empty());

  @TempDir static Path folder;

  private static TestGrids grids;
  private static final Map<String, GridBlobs> made = new HashMap<>();
  private static final List<TestGrids.Member> members = new ArrayList<>();
  private static final List<Blob> everything = new ArrayList<>();
  private static Blob fromBefore;

  @BeforeAll
  static void start() {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, dataFolder) ->
                made.put(
                    cluster.self(),
                    new GridBlobs(
                        cluster,
                        grid,
                        new Fences(grid),
                        dataFolder,
                        CONFIG,
                        new SimpleMeterRegistry(),
                        InstantSource.system(),
                        System::nanoTime,
                        new Random())));
    add();
    fromBefore = put(0, content(1, 10 * CHUNK + 17));
    add();
    add();
  }

  private static void add() {
    TestGrids.Member member = grids.add();
    made.get(member.id()).start();
    members.add(member);
  }

  @AfterAll
  static void stop() {
    made.values().forEach(GridBlobs::close);
    grids.close();
  }

  private static GridBlobs blobs(int node) {
    return made.get(members.get(node).id());
  }

  static byte[] content(long seed, int length) {
    byte[] content = new byte[length];
    new Random(seed).nextBytes(content);
    return content;
  }

  private static Blob put(int node, byte[] content) {
    Blob blob = blobs(node).put("default", new ByteArrayInputStream(content));
    everything.add(blob);
    return blob;
  }

  private static byte[] read(int node, String digest, long offset, long length) {
    try (InputStream stream = blobs(node).read(digest, offset, length)) {
      return stream.readAllBytes();
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static byte[] read(int node, Blob blob) {
    return read(node, blob.digest(), 0, blob.size());
  }

  private static void refused(Code code, Runnable action) {
    assertThatThrownBy(action::run)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).as(e.toString()).isEqualTo(code));
  }

  private static long copies(String chunk) {
    return made.values().stream().filter(blobs -> blobs.files().has(chunk)).count();
  }

  private static List<String> chunks(byte[] content) {
    List<String> chunks = new ArrayList<>();
    for (int at = 0; at < content.length; at += CHUNK) {
      byte[] part = java.util.Arrays.copyOfRange(content, at, Math.min(content.length, at + CHUNK));
      chunks.add(BlobManifest.sha256(part, part.length));
    }
    return chunks;
  }

  private static Path file(int node, String chunk) {
    return ChunkFilesTest.file(
        members.get(node).config().dataFolder().resolve("data").resolve("blobs"), chunk);
  }

  @Test
  @Order(1)
  void whatOneNodeHeldAloneSpreadsToThoseThatJoin() {
    List<String> chunks = chunks(content(1, 10 * CHUNK + 17));
    TestNodes.await(
        "three copies of each chunk",
        Duration.ofSeconds(20),
        () -> chunks.stream().allMatch(chunk -> copies(chunk) == 3));
    assertThat(read(2, fromBefore)).isEqualTo(content(1, 10 * CHUNK + 17));
  }

  @Test
  @Order(2)
  void contentsAndRangesOfAllSizesComeBackFromEveryNode() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    int[] sizes = {
      0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 7 * CHUNK + random.nextInt(CHUNK)
    };
    for (int size : sizes) {
      byte[] content = content(seed + size, size);
      Blob blob = put(random.nextInt(3), content);
      assertThat(blob.digest()).isEqualTo("sha256:" + BlobManifest.sha256(content, size));
      for (int node = 0; node < 3; node++) {
        assertThat(read(node, blob)).as("seed %d size %d", seed, size).isEqualTo(content);
      }
      for (int i = 0; i < 5; i++) {
        int from = random.nextInt(size + 1);
        int length = random.nextInt(size - from + 1);
        assertThat(read(i % 3, blob.digest(), from, length))
            .as("seed %d size %d from %d length %d", seed, size, from, length)
            .isEqualTo(java.util.Arrays.copyOfRange(content, from, from + length));
      }
      assertThat(blobs(1).put("default", new ByteArrayInputStream(content))).isEqualTo(blob);
    }
    refused(Code.NOT_FOUND, () -> read(0, "sha256:" + "0".repeat(64), 0, 1));
    refused(Code.INVALID, () -> read(0, "sha256:xyz", 0, 1));
    refused(Code.INVALID, () -> read(0, fromBefore.digest(), fromBefore.size() + 1, 1));
  }

  @Test
  @Order(3)
  void aFlippedBitAndAMissingChunkAreReplacedFromAnotherCopy() throws IOException {
    byte[] content = content(3, 4 * CHUNK);
    Blob blob = put(0, content);
    List<String> chunks = chunks(content);
    TestNodes.await(
        "three copies",
        Duration.ofSeconds(20),
        () -> chunks.stream().allMatch(chunk -> copies(chunk) == 3));
    byte[] flipped = Files.readAllBytes(file(0, chunks.get(1)));
    flipped[5] ^= 1;
    Files.write(file(0, chunks.get(1)), flipped);
    Files.delete(file(0, chunks.get(2)));
    Files.write(file(1, chunks.get(3)), content(99, 100));
    long damaged = blobs(0).files().damaged();
    assertThat(read(0, blob)).isEqualTo(content);
    assertThat(blobs(0).files().damaged()).isEqualTo(damaged + 1);
    assertThat(blobs(0).files().read(chunks.get(1))).isPresent();
    assertThat(blobs(0).files().read(chunks.get(2))).isPresent();
    // Nobody read the copy on the second node; the scrub does.
    var _ = blobs(2).scrub();
    TestNodes.await(
        "the scrub's repair",
        Duration.ofSeconds(20),
        () -> {
          try {
            return Files.exists(file(1, chunks.get(3)))
                && Files.size(file(1, chunks.get(3))) == CHUNK;
          } catch (IOException e) {
            return false;
          }
        });
    assertThat(blobs(1).files().read(chunks.get(3))).isPresent();
  }

  @Test
  @Order(4)
  void anUploadGoesOnThroughAnotherNodeAndAfterABrokenStream() {
    byte[] content = content(4, 9 * CHUNK + 1234);
    Upload upload = blobs(0).startUpload("default");
    int first = 2 * CHUNK + 99;
    Upload at = blobs(0).append(upload.id(), 0, new ByteArrayInputStream(content, 0, first));
    assertThat(at.offset()).isEqualTo(first);
    refused(
        Code.CONFLICT, () -> blobs(1).append(upload.id(), 0, new ByteArrayInputStream(content)));
    InputStream broken =
        new InputStream() {
          private int position = first;

          @Override
          public int read() throws IOException {
            throw new IOException("not used");
          }

          @Override
          public int read(byte[] bytes, int offset, int length) throws IOException {
            if (position >= first + 3 * CHUNK + 5) {
              throw new IOException("the client left");
            }
            int count = Math.min(length, first + 3 * CHUNK + 5 - position);
            System.arraycopy(content, position, bytes, offset, count);
            position += count;
            return count;
          }
        };
    assertThatThrownBy(() -> blobs(1).append(upload.id(), first, broken))
        .hasRootCauseMessage("the client left");
    long reached = blobs(2).upload(upload.id()).offset();
    assertThat(reached).isEqualTo(first + 3 * CHUNK + 5);
    var _ =
        blobs(2)
            .append(
                upload.id(),
                reached,
                new ByteArrayInputStream(content, (int) reached, content.length - (int) reached));
    refused(
        Code.INVALID,
        () -> blobs(0).complete(upload.id(), Optional.of("sha256:" + "1".repeat(64))));
    String digest = "sha256:" + BlobManifest.sha256(content, content.length);
    Blob blob = blobs(0).complete(upload.id(), Optional.of(digest));
    assertThat(blob).isEqualTo(new Blob(digest, content.length));
    // A client that did not hear the answer asks again.
    assertThat(blobs(1).complete(upload.id(), Optional.of(digest))).isEqualTo(blob);
    assertThat(read(1, blob)).isEqualTo(content);
    everything.add(blob);
    // The same content put in one go has the same manifest, and is the same blob.
    assertThat(put(2, content)).isEqualTo(blob);
  }

  @Test
  @Order(5)
  void aStaleHolderCannotMoveAName() {
    Blob one = put(0, content(51, 100));
    Blob two = put(0, content(52, 100));
    Fence old = new Fence("release", 7);
    Fence current = new Fence("release", 9);
    var first =
        blobs(0).name("default", "models/current", one.digest(), Optional.of(0L), Optional.of(old));
    assertThat(first.version()).isEqualTo(1);
    refused(
        Code.CONFLICT,
        () ->
            blobs(1)
                .name(
                    "default", "models/current", two.digest(), Optional.of(0L), Optional.empty()));
    var second =
        blobs(1)
            .name("default", "models/current", two.digest(), Optional.of(1L), Optional.of(current));
    assertThat(second.version()).isEqualTo(2);
    assertThatThrownBy(
            () ->
                blobs(2)
                    .name(
                        "default",
                        "models/current",
                        one.digest(),
                        Optional.empty(),
                        Optional.of(old)))
        .hasMessageContaining("stale token 7");
    refused(Code.CONFLICT, () -> blobs(2).remove("default", "models/current", Optional.of(old)));
    assertThat(blobs(2).reference("default", "models/current")).contains(second);
    assertThat(blobs(0).list("default", "models/", "", 10)).containsExactly(second);
    refused(
        Code.INVALID,
        () -> blobs(0).name("default", "../x", one.digest(), Optional.empty(), Optional.empty()));
  }

  @Test
  @Order(6)
  void aQuotaHoldsAndItsFiguresAreSaid() {
    var _ = blobs(0).limit("small", 1000, 3);
    var _ = blobs(1).put("small", new ByteArrayInputStream(content(61, 600)));
    assertThatThrownBy(() -> blobs(2).put("small", new ByteArrayInputStream(content(62, 500))))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> {
              assertThat(e.code()).isEqualTo(Code.TOO_LARGE);
              assertThat(e.getMessage()).contains("600 of 1000", "1 of 3", "500");
            });
    // What is there already costs nothing more.
    var _ = blobs(2).put("small", new ByteArrayInputStream(content(61, 600)));
    var _ = blobs(0).put("small", new ByteArrayInputStream(content(63, 1)));
    var _ = blobs(0).put("small", new ByteArrayInputStream(content(64, 1)));
    refused(Code.TOO_LARGE, () -> blobs(0).put("small", new ByteArrayInputStream(content(65, 1))));
    assertThat(blobs(1).quota("small")).isEqualTo(new Blobs.Quota("small", 602, 3, 1000, 3));
    assertThat(
            blobs(1)
                .remove(
                    "small",
                    "sha256:" + BlobManifest.sha256(content(61, 600), 600),
                    Optional.empty()))
        .isTrue();
    assertThat(blobs(1).quota("small").bytes()).isEqualTo(2);
  }

  @Test
  @Order(7)
  void whatNothingRefersToIsCollectedAfterTheDelayAndASimultaneousPutIsSafe() throws Exception {
    byte[] gone = content(71, 3 * CHUNK);
    Blob blob = blobs(0).put("default", new ByteArrayInputStream(gone));
    assertThat(blobs(1).remove("default", blob.digest(), Optional.empty())).isTrue();
    TestNodes.await(
        "the chunks deleted",
        Duration.ofSeconds(25),
        () -> chunks(gone).stream().allMatch(chunk -> copies(chunk) == 0));
    assertThat(blobs(2).find(blob.digest())).isEmpty();

    // Contents put and removed over and over, while collections run all the time.
    AtomicBoolean stop = new AtomicBoolean();
    AtomicInteger rounds = new AtomicInteger();
    List<Throwable> failures = java.util.Collections.synchronizedList(new ArrayList<>());
    List<Thread> threads = new ArrayList<>();
    for (int t = 0; t < 3; t++) {
      int node = t;
      byte[] content = content(72 + t % 2, 2 * CHUNK);
      String bucket = "race-" + t;
      threads.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    Random random = new Random(node);
                    try {
                      while (!stop.get()) {
                        Blob again = blobs(node).put(bucket, new ByteArrayInputStream(content));
                        blobs(node).repair();
                        Thread.sleep(random.nextInt(200));
                        if (!java.util.Arrays.equals(read(node, again), content)) {
                          throw new AssertionError("another content");
                        }
                        var _ = blobs(node).remove(bucket, again.digest(), Optional.empty());
                        Thread.sleep(random.nextInt(2_500));
                        rounds.incrementAndGet();
                      }
                    } catch (Throwable e) {
                      failures.add(e);
                    }
                  }));
    }
    TestNodes.await(
        "rounds of putting and removing",
        Duration.ofSeconds(60),
        () -> rounds.get() >= 9 || !failures.isEmpty());
    stop.set(true);
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(failures).isEmpty();
  }

  @Test
  @Order(8)
  void theFirstNodeDiesInTheMiddleOfWritesAndReadsAndAllIsServed() throws Exception {
    for (Blob blob : everything) {
      assertThat(read(1, blob)).hasSize((int) blob.size());
    }
    byte[] large = content(81, 40 * CHUNK);
    Blob before = put(1, large);
    List<byte[]> acknowledged = java.util.Collections.synchronizedList(new ArrayList<>());
    AtomicBoolean stop = new AtomicBoolean();
    List<Throwable> failures = java.util.Collections.synchronizedList(new ArrayList<>());
    Thread writer =
        Thread.ofVirtual()
            .start(
                () -> {
                  for (int i = 0; !stop.get(); i++) {
                    byte[] content = content(8_000 + i, 3 * CHUNK);
                    try {
                      var _ = blobs(1).put("default", new ByteArrayInputStream(content));
                      acknowledged.add(content);
                    } catch (FlotillaException refused) {
                      // While the grid finds out; nothing was promised.
                    }
                  }
                });
    Thread reader =
        Thread.ofVirtual()
            .start(
                () -> {
                  while (!stop.get()) {
                    try {
                      assertThat(java.util.Arrays.equals(read(2, before), large)).isTrue();
                    } catch (FlotillaException refused) {
                      // As above.
                    } catch (Throwable e) {
                      failures.add(e);
                      return;
                    }
                  }
                });
    TestNodes.await("some writes", Duration.ofSeconds(20), () -> acknowledged.size() > 3);
    int sofar = acknowledged.size();
    made.get(members.get(0).id()).close();
    grids.stop(members.get(0));
    TestNodes.await("writes go on", Duration.ofSeconds(40), () -> acknowledged.size() > sofar + 10);
    stop.set(true);
    writer.join();
    reader.join();
    assertThat(failures).isEmpty();
    for (int node = 1; node < 3; node++) {
      for (Blob blob : everything) {
        byte[] content = read(node, blob);
        assertThat("sha256:" + BlobManifest.sha256(content, content.length))
            .isEqualTo(blob.digest());
      }
      for (byte[] content : acknowledged) {
        String digest = "sha256:" + BlobManifest.sha256(content, content.length);
        assertThat(read(node, digest, 0, content.length)).isEqualTo(content);
      }
    }
  }
}
