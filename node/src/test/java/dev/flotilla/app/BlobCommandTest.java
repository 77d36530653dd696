package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.blobs.Blobs.Blob;
import dev.flotilla.data.blobs.Blobs.Upload;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class BlobCommandTest {

  @TempDir static Path folder;
  private static TestNode node;

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("node"));
  }

  @AfterAll
  static void stop() {
    node.close();
  }

  private static byte[] content(int seed, int length) {
    byte[] content = new byte[length];
    new Random(seed).nextBytes(content);
    return content;
  }

  private static String digest(byte[] content) throws Exception {
    return "sha256:"
        + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
  }

  private static HttpResponse<byte[]> send(
      String method, String path, byte[] body, String... headers) throws Exception {
    HttpRequest.Builder request =
        HttpRequest.newBuilder(URI.create(node.url() + path))
            .header("Authorization", "Bearer " + node.key())
            .method(method, HttpRequest.BodyPublishers.ofByteArray(body));
    for (int i = 0; i < headers.length; i += 2) {
      request.header(headers[i], headers[i + 1]);
    }
    try (HttpClient http = HttpClient.newHttpClient()) {
      return http.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
    }
  }

  private static HttpResponse<byte[]> range(String digest, String range, String... more)
      throws Exception {
    String[] headers = Arrays.copyOf(new String[] {"Range", range}, 2 + more.length);
    System.arraycopy(more, 0, headers, 2, more.length);
    return send("GET", "/api/blobs/" + digest, new byte[0], headers);
  }

  @Test
  void rangesAndTagsAreAsHttpSays() throws Exception {
    // Larger than a body that is held in memory may be, and than two chunks.
    byte[] content = content(1, 10_000_000);
    HttpResponse<byte[]> put = send("POST", "/api/blobs", content);
    assertThat(new String(put.body(), java.nio.charset.StandardCharsets.UTF_8))
        .isEqualTo("{\"digest\":\"" + digest(content) + "\",\"size\":10000000}");
    String digest = digest(content);
    String tag = "\"" + digest + "\"";
    HttpResponse<byte[]> whole = send("GET", "/api/blobs/" + digest, new byte[0]);
    assertThat(whole.statusCode()).isEqualTo(200);
    assertThat(whole.body()).isEqualTo(content);
    assertThat(whole.headers().firstValue("etag")).contains(tag);
    HttpResponse<byte[]> middle = range(digest, "bytes=4194300-4194309");
    assertThat(middle.statusCode()).isEqualTo(206);
    assertThat(middle.body()).isEqualTo(Arrays.copyOfRange(content, 4194300, 4194310));
    assertThat(middle.headers().firstValue("content-range"))
        .contains("bytes 4194300-4194309/10000000");
    assertThat(range(digest, "bytes=9999990-").body())
        .isEqualTo(Arrays.copyOfRange(content, 9999990, 10000000));
    assertThat(range(digest, "bytes=-5").body())
        .isEqualTo(Arrays.copyOfRange(content, 9999995, 10000000));
    assertThat(range(digest, "bytes=9999999-20000000").body()).hasSize(1);
    HttpResponse<byte[]> beyond = range(digest, "bytes=10000000-");
    assertThat(beyond.statusCode()).isEqualTo(416);
    assertThat(beyond.headers().firstValue("content-range")).contains("bytes */10000000");
    assertThat(range(digest, "bytes=-0").statusCode()).isEqualTo(416);
    for (String ignored : List.of("bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,3-4")) {
      assertThat(range(digest, ignored).statusCode()).as(ignored).isEqualTo(200);
    }
    assertThat(range(digest, "bytes=0-1", "If-Range", tag).statusCode()).isEqualTo(206);
    assertThat(range(digest, "bytes=0-1", "If-Range", "\"x\"").statusCode()).isEqualTo(200);
    assertThat(send("GET", "/api/blobs/" + digest, new byte[0], "If-None-Match", tag).statusCode())
        .isEqualTo(304);
    HttpResponse<byte[]> head = send("HEAD", "/api/blobs/" + digest, new byte[0]);
    assertThat(head.statusCode()).isEqualTo(200);
    assertThat(head.headers().firstValue("content-length")).contains("10000000");
    assertThat(head.body()).isEmpty();
    assertThat(send("GET", "/api/blobs/sha256:12", new byte[0]).statusCode()).isEqualTo(400);
    assertThat(send("GET", "/api/blobs/" + digest(content(2, 1)), new byte[0]).statusCode())
        .isEqualTo(404);
    assertThat(send("POST", "/api/blobs", content(3, 9), "Content-Encoding", "gzip").statusCode())
        .isEqualTo(415);
    assertThat(send("DELETE", "/api/blobs/" + digest, new byte[0]).statusCode()).isEqualTo(200);
    assertThat(send("DELETE", "/api/blobs/" + digest, new byte[0]).statusCode()).isEqualTo(404);
  }

  @Test
  void theSameInterfaceWorksOverHttp() throws Exception {
    Blobs blobs = new HttpBlobs(node.client());
    byte[] content = content(4, 5_000_000);
    Upload upload = blobs.startUpload("web");
    upload = blobs.append(upload.id(), 0, new ByteArrayInputStream(content, 0, 4_500_000));
    assertThat(blobs.upload(upload.id()).offset()).isEqualTo(4_500_000);
    String id = upload.id();
    assertThatThrownBy(() -> blobs.append(id, 3, new ByteArrayInputStream(content)))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT));
    var _ = blobs.append(id, 4_500_000, new ByteArrayInputStream(content, 4_500_000, 500_000));
    Blob blob = blobs.complete(id, Optional.of(digest(content)));
    assertThat(blobs.find(blob.digest())).contains(blob);
    assertThat(blobs.find(digest(content(5, 5)))).isEmpty();
    try (InputStream part = blobs.read(blob.digest(), 4_000_000, 1_000_000)) {
      assertThat(part.readAllBytes()).isEqualTo(Arrays.copyOfRange(content, 4_000_000, 5_000_000));
    }
    var named =
        blobs.name("web", "a/b", blob.digest(), Optional.of(0L), Optional.of(new Fence("move", 5)));
    assertThat(blobs.reference("web", "a/b")).contains(named);
    assertThatThrownBy(
            () ->
                blobs.name(
                    "web",
                    "a/b",
                    blob.digest(),
                    Optional.empty(),
                    Optional.of(new Fence("move", 4))))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT));
    assertThat(blobs.list("web", "a/", "", 10)).containsExactly(named);
    assertThat(blobs.remove("web", "a/b", Optional.empty())).isTrue();
    assertThat(blobs.remove("web", "a/b", Optional.empty())).isFalse();
    assertThat(blobs.reference("web", "a/b")).isEmpty();
    assertThat(blobs.limit("web", 5_000_001, 10).bytes()).isEqualTo(5_000_000);
    assertThatThrownBy(() -> blobs.put("web", new ByteArrayInputStream(content(6, 2))))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> {
              assertThat(e.code()).isEqualTo(Code.TOO_LARGE);
              assertThat(e.getMessage()).contains("5000000 of 5000001");
            });
    assertThat(blobs.quota("web").count()).isEqualTo(1);
    assertThat(blobs.nodes()).hasSize(1).allMatch(Blobs.NodeState::answers);
    assertThat(blobs.scrub()).hasSize(1);
  }

  @Test
  void aJobsCheckpointIsKeptUnderItsNameAlsoWhenKeptTwice() throws Exception {
    Blobs blobs = new HttpBlobs(node.client());
    Path trained = Files.createDirectories(folder.resolve("trained"));
    Files.write(trained.resolve("config.json"), content(8, 100));
    Files.write(trained.resolve("model.safetensors"), content(9, 100_000));
    Checkpoints.keep(blobs, "job-1", trained);
    Checkpoints.keep(blobs, "job-1", trained);
    assertThat(blobs.list("checkpoints", "", "", 10))
        .extracting(Blobs.Reference::name)
        .containsExactly("job-1/config.json", "job-1/model.safetensors");
    try (InputStream kept = blobs.read(digest(content(9, 100_000)), 0, Long.MAX_VALUE)) {
      assertThat(kept.readAllBytes()).isEqualTo(content(9, 100_000));
    }
    assertThat(blobs.quota("checkpoints").bytes()).isEqualTo(100_100);
  }

  @Test
  void theCommandPutsAndFetchesAndCompletesAPartOfAFile() throws IOException {
    byte[] content = content(7, 6_000_000);
    Path file = folder.resolve("file");
    Files.write(file, content);
    assertThat(node.run("blob", "put", file.toString(), "--name", "data/file")).isZero();
    Path copy = folder.resolve("copy");
    byte[] part = Arrays.copyOf(content, 5_000_000);
    Files.write(folder.resolve("copy.part"), part);
    assertThat(node.run("blob", "get", "data/file", "-o", copy.toString())).isZero();
    assertThat(Files.readAllBytes(copy)).isEqualTo(content);
    part[17] ^= 1;
    Files.write(folder.resolve("copy.part"), part);
    assertThat(node.run("blob", "get", "data/file", "-o", copy.toString())).isEqualTo(1);
    assertThat(node.run("blob", "get", "data/file", "-o", copy.toString())).isZero();
    assertThat(node.run("blob", "ls", "data/")).isZero();
    assertThat(node.run("blob", "stats")).isZero();
    assertThat(node.run("blob", "scrub", "--json")).isZero();
    assertThat(node.run("blob", "quota", "--bytes", "100000000")).isZero();
    assertThat(node.run("blob", "rm", "data/file")).isZero();
    assertThat(node.run("blob", "rm", "data/file")).isEqualTo(1);
    assertThat(node.run("blob", "get", "data/file")).isEqualTo(1);
  }
}
