package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.cluster.proto.EnterRequest;
import dev.flotilla.cluster.proto.MembershipGrpc;
import dev.flotilla.cluster.proto.PingRequest;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.X509ExtendedKeyManager;
import javax.net.ssl.X509KeyManager;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Who is refused at the handshake, on every port that asks for a certificate. */
class MutualTlsTest {

  @TempDir static Path folder;

  private static TestNodes nodes;
  private static ClusterConfig config;
  private static ClusterNode node;
  private static Identity identity;

  @BeforeAll
  static void startOneNode() {
    nodes = new TestNodes(folder);
    config = nodes.config("first");
    node = nodes.start(config);
    identity = Identity.load(config.dataFolder()).orElseThrow();
  }

  @AfterAll
  static void stop() {
    nodes.close();
  }

  private static Identity issued(String nodeId, Instant from, Instant until) {
    CertificateAuthority authority =
        new CertificateAuthority(identity.authorityKey().orElseThrow(), identity.authority());
    KeyPair pair = CertificateAuthority.newKeyPair();
    return new Identity(
        new Identity.Facts(identity.clusterId(), nodeId, "127.0.0.1", 1, List.of()),
        pair.getPrivate(),
        authority.issue(nodeId, pair.getPublic(), from, until),
        identity.authority(),
        Optional.empty());
  }

  private static Identity member(String nodeId) {
    return issued(nodeId, Instant.now().minusSeconds(60), Instant.now().plusSeconds(600));
  }

  /** A stranger with another cluster's certificate, who trusts us so that only we can refuse. */
  private static SSLContext stranger() {
    X509KeyManager keys = Tls.keyManager(Identity.found(config));
    // The JDK's own would keep a certificate back that the server does not ask for.
    X509ExtendedKeyManager insistent =
        new X509ExtendedKeyManager() {
          @Override
          public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
            return "node";
          }

          @Override
          public X509Certificate[] getCertificateChain(String alias) {
            return keys.getCertificateChain(alias);
          }

          @Override
          public PrivateKey getPrivateKey(String alias) {
            return keys.getPrivateKey(alias);
          }

          @Override
          public String[] getClientAliases(String type, Principal[] issuers) {
            return new String[] {"node"};
          }

          @Override
          public String[] getServerAliases(String type, Principal[] issuers) {
            return new String[0];
          }

          @Override
          public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
            return "node";
          }
        };
    return Tls.context(insistent, Tls.pkix(identity.authority()));
  }

  private static Tls tlsOf(Identity caller) {
    return new Tls(caller, (host, port) -> Optional.empty(), removed -> false);
  }

  private static Status ping(Identity caller, String dialled) {
    ManagedChannel channel =
        NettyChannelBuilder.forAddress("127.0.0.1", config.servicePort())
            .overrideAuthority(Tls.authorityOf(dialled))
            .sslContext(tlsOf(caller).client())
            .intercept(new VersionCheck("test", config.version()).saying())
            .build();
    try {
      MembershipGrpc.newBlockingStub(channel)
          .withDeadlineAfter(5, TimeUnit.SECONDS)
          .ping(PingRequest.getDefaultInstance());
      return Status.OK;
    } catch (StatusRuntimeException e) {
      return e.getStatus();
    } finally {
      channel.shutdownNow();
    }
  }

  /** Whether a TLS peer is let through to the protocol above, on both ports of gRPC. */
  private static boolean accepts(SSLContext context) throws IOException {
    boolean calls = accepts(context, config.servicePort());
    assertThat(accepts(context, config.raftPort())).isEqualTo(calls);
    return calls;
  }

  private static boolean accepts(SSLContext context, int port) throws IOException {
    try (SSLSocket socket =
        (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", port)) {
      var parameters = socket.getSSLParameters();
      parameters.setApplicationProtocols(new String[] {"h2"});
      socket.setSSLParameters(parameters);
      socket.setSoTimeout(5_000);
      socket.startHandshake();
      // In TLS 1.3 the server's refusal comes after the client is done. HTTP/2 servers speak first.
      return socket.getInputStream().read() >= 0;
    } catch (javax.net.ssl.SSLException | java.net.SocketException e) {
      return false;
    }
  }

  @Test
  void aMemberIsAnswered() throws Exception {
    assertThat(ping(member("n000000000001"), node.self()).getCode()).isEqualTo(Status.Code.OK);
    assertThat(accepts(tlsOf(member("n000000000001")).context())).isTrue();
  }

  @Test
  void aCertificateOfAnotherClusterIsRefused() throws Exception {
    assertThat(accepts(stranger())).isFalse();
  }

  @Test
  void noCertificateIsRefused() throws Exception {
    SSLContext anonymous = Tls.context(null, Tls.pkix(identity.authority()));
    assertThat(accepts(anonymous)).isFalse();
  }

  @Test
  void anExpiredCertificateIsRefused() throws Exception {
    Identity expired =
        issued("n000000000002", Instant.now().minusSeconds(600), Instant.now().minusSeconds(60));
    assertThat(ping(expired, node.self()).getCode()).isEqualTo(Status.Code.UNAVAILABLE);
    assertThat(accepts(tlsOf(expired).context())).isFalse();
  }

  @Test
  void plaintextIsRefused() throws Exception {
    for (int port : List.of(config.servicePort(), config.raftPort())) {
      try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), port)) {
        socket.setSoTimeout(5_000);
        socket
            .getOutputStream()
            .write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
        byte[] answer = socket.getInputStream().readAllBytes();
        assertThat(answer.length).as("at most a TLS alert").isLessThan(16);
      } catch (java.net.SocketException e) {
        assertThat(e).hasMessageContaining("reset");
      }
    }
  }

  @Test
  void aMemberThatIsNotTheOneDialledIsRefusedByTheDialler() {
    Status status = ping(member("n000000000003"), "n999999999999");
    assertThat(status.getCode()).isEqualTo(Status.Code.UNAVAILABLE);
    assertThat(String.valueOf(status.getCause()) + RaftRegistry.rootCause(status.asException()))
        .contains("dialled node n999999999999");
  }

  @Test
  void aMemberCannotEnterTheGroupAsAnother() {
    ManagedChannel channel =
        NettyChannelBuilder.forAddress("127.0.0.1", config.servicePort())
            .overrideAuthority(Tls.authorityOf(node.self()))
            .sslContext(tlsOf(member("n000000000004")).client())
            .intercept(new VersionCheck("test", config.version()).saying())
            .build();
    try {
      assertThatThrownBy(
              () ->
                  MembershipGrpc.newBlockingStub(channel)
                      .enter(EnterRequest.newBuilder().setNode("n000000000005").build()))
          .hasMessageContaining("n000000000004 cannot enter as another");
    } finally {
      channel.shutdownNow();
    }
  }

  @Test
  void aRemovedNodeIsRefused() {
    Identity gone = member("n000000000006");
    assertThat(ping(gone, node.self()).getCode()).isEqualTo(Status.Code.OK);
    node.registry()
        .commit(
            List.of(),
            TestNodes.put(new Registry.Key(Controller.REMOVED_KIND, gone.nodeId()), "removed"));
    assertThat(ping(gone, node.self()).getCode()).isEqualTo(Status.Code.UNAVAILABLE);
  }

  @Test
  void otherSocketsAuthenticateBothSidesAndTheDialledNode() throws Exception {
    SSLContext other = tlsOf(member("n000000000007")).context();
    try (SSLServerSocket listening =
        (SSLServerSocket) other.getServerSocketFactory().createServerSocket(0)) {
      listening.setNeedClientAuth(true);
      Thread echo =
          Thread.ofVirtual()
              .start(
                  () -> {
                    try (Socket socket = listening.accept()) {
                      socket.getInputStream().transferTo(socket.getOutputStream());
                    } catch (IOException e) {
                      throw new java.io.UncheckedIOException(e);
                    }
                  });
      try (Socket socket =
          node.tls().getSocketFactory().createSocket("127.0.0.1", listening.getLocalPort())) {
        socket.getOutputStream().write(42);
        assertThat(socket.getInputStream().read()).isEqualTo(42);
      }
      echo.join(Duration.ofSeconds(5));
    }
    // Behind a port of the first node stands the first node: another one there is an impostor.
    try (SSLServerSocket impostor =
        (SSLServerSocket)
            other.getServerSocketFactory().createServerSocket(config.httpPort() + 4)) {
      Thread accepting =
          Thread.ofVirtual()
              .start(
                  () -> {
                    try (SSLSocket socket = (SSLSocket) impostor.accept()) {
                      socket.startHandshake();
                    } catch (IOException e) {
                      assertThat(e).isNotNull();
                    }
                  });
      try (SSLSocket socket =
          (SSLSocket)
              node.tls().getSocketFactory().createSocket("127.0.0.1", config.httpPort() + 4)) {
        assertThatThrownBy(socket::startHandshake)
            .hasStackTraceContaining("dialled node " + node.self());
      }
      accepting.join(Duration.ofSeconds(5));
    }
  }
}
