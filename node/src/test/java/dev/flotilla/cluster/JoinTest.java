package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.address;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import javax.net.ssl.X509TrustManager;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The door: who is let in, who is not, and what each is told. */
class JoinTest {

  @TempDir static Path folder;

  // The cluster's clock, which the tests move.
  private static final AtomicReference<Duration> ahead = new AtomicReference<>(Duration.ZERO);
  private static final InstantSource clock = () -> Instant.now().plus(ahead.get());

  private static TestNodes nodes;
  private static ClusterConfig config;
  private static ClusterNode cluster;

  @BeforeAll
  static void startOneNode() {
    nodes = new TestNodes(folder);
    config = nodes.config("first", clock, "0.1.3");
    cluster = nodes.start(config);
  }

  @AfterAll
  static void stop() {
    nodes.close();
  }

  private static void refused(Code code, String says, ThrowingCallable join) {
    assertThatThrownBy(join)
        .isInstanceOfSatisfying(
            FlotillaException.class,
            thrown -> {
              assertThat(thrown.code()).isEqualTo(code);
              assertThat(thrown.remedy()).isNotEmpty();
            })
        .hasMessageContaining(says);
  }

  @Test
  void aTokenAdmitsOneNodeAndNoSecond() throws Exception {
    String token = cluster.invite();
    ClusterConfig joiner = nodes.config("one");
    ClusterNode node = nodes.join(joiner, config, token);
    assertThat(node.clusterId()).isEqualTo(cluster.clusterId());
    refused(
        Code.UNAUTHENTICATED,
        "already used, by node " + node.self(),
        () -> nodes.join(nodes.config("two"), config, token));
    for (String secret : List.of("node.key", "authority.key")) {
      Path file = joiner.dataFolder().resolve("certs").resolve(secret);
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(file)))
          .isEqualTo("rw-------");
    }
    try (Stream<Registry.Entry> entries = cluster.registry().list(JoinServer.TOKEN_KIND).stream()) {
      byte[] plain = JoinToken.parse(token).secret();
      assertThat(entries)
          .noneMatch(
              entry ->
                  new String(entry.value(), java.nio.charset.StandardCharsets.UTF_8)
                      .contains(java.util.Base64.getEncoder().encodeToString(plain)));
    }
  }

  @Test
  void ofManyThatRaceWithOneTokenOneGetsIn() {
    String token = cluster.invite();
    List<CompletableFuture<Boolean>> races =
        IntStream.range(0, 6)
            .mapToObj(i -> nodes.config("racer" + i))
            .map(
                joiner ->
                    CompletableFuture.supplyAsync(
                        () -> {
                          try {
                            nodes.join(joiner, config, token);
                            return true;
                          } catch (FlotillaException e) {
                            assertThat(e).hasMessageContaining("already used");
                            return false;
                          }
                        },
                        TestNodes.MEANWHILE))
            .toList();
    assertThat(races.stream().map(CompletableFuture::join).filter(won -> won)).hasSize(1);
  }

  @Test
  void anExpiredTokenIsRefused() {
    String token = cluster.invite();
    ahead.set(ClusterNode.TOKEN_LIFETIME.plusSeconds(1));
    try {
      refused(
          Code.UNAUTHENTICATED,
          "expired at",
          () -> nodes.join(nodes.config("late", clock, "0.1.0"), config, token));
    } finally {
      ahead.set(Duration.ZERO);
    }
  }

  @Test
  void anUnknownTokenOfTheRightAuthorityIsRefused() {
    JoinToken real = JoinToken.parse(cluster.invite());
    String forged = JoinToken.create(real.authorityFingerprint(), real.expiresAt()).text();
    refused(
        Code.UNAUTHENTICATED,
        "not one of this cluster's",
        () -> nodes.join(nodes.config("forger"), config, forged));
  }

  @Test
  void aTokenOfAnotherAuthorityIsNotShownToThisOne() {
    String foreign = JoinToken.create(new byte[32], Instant.now().plusSeconds(60)).text();
    refused(
        Code.UNAUTHENTICATED,
        "for another cluster than the one at " + address(config),
        () -> nodes.join(nodes.config("lost"), config, foreign));
  }

  @Test
  void aClockThatIsFarOffIsRefusedAndSaysByHowMuch() {
    InstantSource behind = () -> Instant.now().minusSeconds(100);
    String token = cluster.invite();
    refused(
        Code.INVALID,
        "s behind the cluster's",
        () -> nodes.join(nodes.config("slow", behind, "0.1.0"), config, token));
    // The token was not used up by the refusal.
    ClusterNode node = nodes.join(nodes.config("slow"), config, token);
    assertThat(node.clusterId()).isEqualTo(cluster.clusterId());
  }

  @Test
  void anotherMinorVersionIsRefusedAndBothAreNamed() {
    refused(
        Code.INVALID,
        "runs version 0.3.0 but this cluster runs 0.1.3",
        () ->
            nodes.join(
                nodes.config("newer", InstantSource.system(), "0.3.0"), config, cluster.invite()));
  }

  @Test
  void aTryWhoseAnswerWasLostCanBeRepeatedWithTheSameToken() throws Exception {
    JoinToken token = JoinToken.parse(cluster.invite());
    ClusterConfig joiner = nodes.config("again");
    Files.createDirectories(joiner.dataFolder());
    Identity first = JoinClient.join(joiner, address(config), token);
    // As if the answer had not arrived: the key of the try is there, the certificate is not.
    Path certs = Identity.folder(joiner.dataFolder());
    String publicKey =
        new String(
            Identity.pem("PUBLIC KEY", first.certificate().getPublicKey().getEncoded()),
            java.nio.charset.StandardCharsets.US_ASCII);
    String key = Files.readString(certs.resolve("node.key"));
    NodeFiles.deleteTree(certs);
    Files.writeString(joiner.dataFolder().resolve("joining.key"), publicKey + key);
    ClusterNode node = nodes.join(joiner, config, token.text());
    assertThat(node.self()).isEqualTo(first.nodeId());
  }

  @Test
  void theFolderOfAnotherClusterIsNamedAndNotTouched() throws Exception {
    ClusterConfig other = nodes.config("other");
    try (ClusterNode stranger = nodes.create(other)) {
      assertThat(stranger.clusterId()).isNotEqualTo(cluster.clusterId());
    }
    List<String> before = contents(other.dataFolder());
    String token = cluster.invite();
    refused(Code.CONFLICT, "belongs to node n", () -> nodes.join(other, config, token));
    assertThat(contents(other.dataFolder())).isEqualTo(before);
    // And the token is still good.
    assertThat(nodes.join(nodes.config("good"), config, token).clusterId())
        .isEqualTo(cluster.clusterId());
  }

  private static List<String> contents(Path folder) throws IOException {
    try (Stream<Path> files = Files.walk(folder)) {
      return files.map(file -> file + " " + file.toFile().lastModified()).sorted().toList();
    }
  }

  @Test
  void theSameCommandStartsANodeThatHasJoinedAlready() {
    ClusterConfig joiner = nodes.config("twice");
    String token = cluster.invite();
    String id;
    try (ClusterNode node = nodes.join(joiner, config, token)) {
      id = node.self();
    }
    assertThat(nodes.join(joiner, config, token).self()).isEqualTo(id);
  }

  @Test
  void garbageOnTheJoinPortIsSurvived() throws Exception {
    try (Socket plain = new Socket(InetAddress.getLoopbackAddress(), config.joinPort())) {
      plain
          .getOutputStream()
          .write("GET / HTTP/1.0\r\n\r\n".getBytes(java.nio.charset.StandardCharsets.US_ASCII));
      plain.setSoTimeout(5_000);
      // A TLS alert at most, then the end.
      assertThat(plain.getInputStream().readAllBytes().length).isLessThan(64);
    }
    X509Certificate authority = Identity.load(config.dataFolder()).orElseThrow().authority();
    X509TrustManager trust = Tls.pkix(authority);
    var factory = Tls.context(null, trust).getSocketFactory();
    for (byte[] body :
        List.of(new byte[0], "[[[".getBytes(java.nio.charset.StandardCharsets.US_ASCII))) {
      try (Socket tls = factory.createSocket("127.0.0.1", config.joinPort())) {
        DataOutputStream out = new DataOutputStream(tls.getOutputStream());
        out.writeInt(body.length);
        out.write(body);
        out.flush();
        DataInputStream in = new DataInputStream(tls.getInputStream());
        assertThat(new String(in.readNBytes(in.readInt()), java.nio.charset.StandardCharsets.UTF_8))
            .contains("INVALID");
      }
    }
    try (Socket tls = factory.createSocket("127.0.0.1", config.joinPort())) {
      new DataOutputStream(tls.getOutputStream()).writeInt(Integer.MAX_VALUE);
      tls.setSoTimeout(5_000);
      assertThat(tls.getInputStream().read()).isEqualTo(-1);
    }
    assertThat(nodes.join(nodes.config("after"), config, cluster.invite()).clusterId())
        .isEqualTo(cluster.clusterId());
  }

  @Test
  void nobodyThereIsSaidSo() {
    String token = cluster.invite();
    ClusterConfig nowhere = nodes.config("nowhere");
    refused(
        Code.UNAVAILABLE,
        "cannot join through " + address(nowhere),
        () -> nodes.join(nodes.config("early"), nowhere, token));
    refused(
        Code.INVALID,
        "is not HOST:PORT",
        () -> ClusterNode.join(nodes.config("vague"), "somewhere", token));
  }
}
