package dev.flotilla.data.blobs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.blobs.Blobs.Blob;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.ServerSocket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3Client;

/** Against a real server that speaks S3 (Python's moto), where one can be started. */
class S3ChunksTest {

  private static final int CHUNK = 64 << 10;

  @TempDir static Path folder;

  private static Process server;
  private static URI endpoint;
  private static S3Client store;
  private static TestGrids grids;
  private static GridBlobs cached;

  @BeforeAll
  static void start() throws Exception {
    int port;
    try (ServerSocket socket = new ServerSocket(0)) {
      port = socket.getLocalPort();
    }
    endpoint = URI.create("http://127.0.0.1:" + port);
    try {
      server =
          new ProcessBuilder(python(), "-m", "moto.server", "-p", Integer.toString(port))
              .redirectErrorStream(true)
              .redirectOutput(folder.resolve("moto.log").toFile())
              .start();
    } catch (IOException noPython) {
      assumeTrue(false, "no python3 here, so no S3 server to test against");
    }
    store =
        S3Client.builder()
            .httpClientBuilder(UrlConnectionHttpClient.builder())
            .region(Region.US_EAST_1)
            .endpointOverride(endpoint)
            .forcePathStyle(true)
            .credentialsProvider(
                StaticCredentialsProvider.create(AwsBasicCredentials.create("access", "secret")))
            .build();
    assumeTrue(up(), "no moto.server here (.ci/run installs it), so no S3 server to test against");
    grids =
        new TestGrids(
            folder,
            (cluster, grid, dataFolder) -> {
              cached = blobs(cluster, grid, dataFolder, true);
            });
    grids.add();
    cached.start();
  }

  /** The one with the server that .ci/run installs, else the machine's. */
  private static String python() {
    Path own = Path.of(System.getProperty("flotilla.home"), "node/target/s3-server/bin/python3");
    return Files.isExecutable(own) ? own.toString() : "python3";
  }

  private static boolean up() throws InterruptedException {
    for (int i = 0; i < 100 && server.isAlive(); i++) {
      try {
        store.createBucket(request -> request.bucket("chunks"));
        return true;
      } catch (RuntimeException notYet) {
        Thread.sleep(100);
      }
    }
    return false;
  }

  private static BlobConfig.S3 config(URI address, boolean keep) {
    return new BlobConfig.S3(
        Optional.of(address),
        "us-east-1",
        "chunks",
        "flotilla/",
        Optional.of(new BlobConfig.Credentials("access", "secret")),
        keep);
  }

  private static GridBlobs blobs(
      dev.flotilla.cluster.Cluster cluster, Grid grid, Path dataFolder, boolean keep) {
    BlobConfig config =
        new BlobConfig(
            3,
            CHUNK,
            Duration.ofSeconds(2),
            Duration.ofSeconds(2),
            Duration.ofSeconds(1),
            Duration.ofDays(7),
            1L << 40,
            1 << 20,
            Duration.ofHours(1),
            Optional.of(config(endpoint, keep)));
    return new GridBlobs(
        cluster,
        grid,
        new Fences(grid),
        dataFolder,
        config,
        new SimpleMeterRegistry(),
        InstantSource.system(),
        System::nanoTime,
        new Random());
  }

  @AfterAll
  static void stop() throws InterruptedException {
    if (grids != null) {
      cached.close();
      grids.close();
    }
    if (server != null) {
      server.destroy();
      server.waitFor(5, TimeUnit.SECONDS);
    }
  }

  private static List<String> objects() {
    List<String> keys = new ArrayList<>();
    store
        .listObjectsV2Paginator(request -> request.bucket("chunks").prefix("flotilla/"))
        .contents()
        .forEach(object -> keys.add(object.key()));
    return keys;
  }

  private static String key(byte[] chunk) {
    String digest = BlobManifest.sha256(chunk, chunk.length);
    return "flotilla/" + digest.substring(0, 2) + "/" + digest;
  }

  private static byte[] read(Blob blob) throws IOException {
    try (InputStream content = cached.read(blob.digest(), 0, blob.size())) {
      return content.readAllBytes();
    }
  }

  @Test
  void chunksLieInTheStoreAndComeBackWhenTheNodeHasLostItsOwn() throws IOException {
    byte[] content = BlobsTest.content(1, 5 * CHUNK + 3);
    Blob blob = cached.put("default", new ByteArrayInputStream(content));
    assertThat(objects()).hasSizeGreaterThanOrEqualTo(6);
    for (String chunk : cached.files().list()) {
      Files.delete(
          ChunkFilesTest.file(
              grids.running().getFirst().config().dataFolder().resolve("data").resolve("blobs"),
              chunk));
    }
    assertThat(read(blob)).isEqualTo(content);
    assertThat(cached.files().list()).hasSizeGreaterThanOrEqualTo(6);
  }

  @Test
  void anObjectThatWasChangedInTheStoreIsNotHandedOut() throws IOException {
    byte[] content = BlobsTest.content(2, CHUNK);
    Blob blob = cached.put("default", new ByteArrayInputStream(content));
    store.putObject(
        request -> request.bucket("chunks").key(key(content)),
        RequestBody.fromBytes(BlobsTest.content(3, CHUNK)));
    assertThat(read(blob)).as("the node's own copy").isEqualTo(content);
    Files.delete(
        ChunkFilesTest.file(
            grids.running().getFirst().config().dataFolder().resolve("data").resolve("blobs"),
            BlobManifest.sha256(content, content.length)));
    assertThatThrownBy(() -> read(blob)).hasMessageContaining("is damaged");
  }

  @Test
  void whatNothingRefersToIsDeletedFromTheStoreAndOneThatIsPutAgainIsNot() throws Exception {
    byte[] gone = BlobsTest.content(4, CHUNK);
    byte[] again = BlobsTest.content(5, CHUNK);
    Blob first = cached.put("default", new ByteArrayInputStream(gone));
    Blob second = cached.put("default", new ByteArrayInputStream(again));
    assertThat(cached.remove("default", first.digest(), Optional.empty())).isTrue();
    long untilNs = System.nanoTime() + 20_000_000_000L;
    while (objects().contains(key(gone)) && System.nanoTime() < untilNs) {
      // Falls into the middle of the collection's two steps sooner or later.
      assertThat(cached.remove("default", second.digest(), Optional.empty())).isTrue();
      Thread.sleep(700);
      second = cached.put("default", new ByteArrayInputStream(again));
      assertThat(objects()).contains(key(again));
    }
    assertThat(objects()).doesNotContain(key(gone)).contains(key(again));
    TestNodes.await(
        "forgotten", Duration.ofSeconds(5), () -> cached.find(first.digest()).isEmpty());
  }

  @Test
  void aStoreThatDoesNotAnswerIsSaid() {
    try (S3Chunks away =
        new S3Chunks(
            config(URI.create("http://127.0.0.1:1"), false),
            Optional.empty(),
            grids.running().getFirst().grid(),
            InstantSource.system(),
            Duration.ofDays(1))) {
      byte[] content = BlobsTest.content(6, 10);
      assertThatThrownBy(
              () -> away.store(BlobManifest.sha256(content, content.length), content, 10))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e -> {
                assertThat(e.code()).isEqualTo(Code.UNAVAILABLE);
                assertThat(e.explanation()).contains("FLOTILLA_S3_ENDPOINT");
              });
    }
  }

  @Test
  void withoutACacheNothingStaysOnTheNode() {
    try (S3Chunks only =
        new S3Chunks(
            config(endpoint, false),
            Optional.empty(),
            grids.running().getFirst().grid(),
            InstantSource.system(),
            Duration.ofDays(1))) {
      byte[] content = BlobsTest.content(7, 1000);
      String chunk = BlobManifest.sha256(content, content.length);
      only.store(chunk, content, content.length);
      assertThat(only.load(chunk)).isEqualTo(content);
      only.touch(List.of(chunk));
      assertThat(cached.files().has(chunk)).isFalse();
    }
  }
}
