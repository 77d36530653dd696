package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.train.GradientTunnel.GlooAddress;
import dev.flotilla.train.GradientTunnel.World;
import java.io.DataInputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

class GradientTunnelTest {

  private static final InetSocketAddress ANY_PORT =
      new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
  private static final long TIMEOUT_NS = Duration.ofSeconds(10).toNanos();

  private final TestTls cluster = new TestTls();

  /** What Gloo publishes: host name, socket address, and one identifier a rank. */
  private static byte[] blob(int rank, int port) {
    ByteBuffer blob = ByteBuffer.allocate(170).order(ByteOrder.LITTLE_ENDIAN);
    blob.putLong(2).put((byte) 'v').put((byte) 'm').putLong(136).putShort((short) 2);
    blob.order(ByteOrder.BIG_ENDIAN).putShort((short) port);
    blob.put(new byte[] {127, 77, 0, (byte) (10 + rank)});
    return blob.array();
  }

  private static InetSocketAddress at(GradientTunnel tunnel) {
    return new InetSocketAddress(InetAddress.getLoopbackAddress(), tunnel.port());
  }

  @Test
  void carriesBytesBothWaysBetweenTwoRanks() throws Exception {
    World world = new World("job", 1);
    try (var tunnel0 = new GradientTunnel(cluster.node("a"), ANY_PORT);
        var tunnel1 = new GradientTunnel(cluster.node("b"), ANY_PORT);
        var gloo1 = new ServerSocket(0, 4, InetAddress.getByName("127.77.0.11"))) {
      var tunnels = List.of(at(tunnel0), at(tunnel1));
      var end0 = tunnel0.open(world, 0, tunnels);
      var end1 = tunnel1.open(world, 1, tunnels);
      var seen1 =
          CompletableFuture.supplyAsync(
              () -> end1.exchange(blob(1, gloo1.getLocalPort()), TIMEOUT_NS), TestNodes.MEANWHILE);
      List<byte[]> seen0 = end0.exchange(blob(0, 1), TIMEOUT_NS);
      seen1.join();

      int forwarder = GlooAddress.port(seen0.get(1));
      assertThat(forwarder).isNotEqualTo(gloo1.getLocalPort());
      assertThat(seen0.get(0)).isEqualTo(blob(0, 1));
      try (Socket dialled = new Socket("127.77.0.11", forwarder);
          Socket accepted = gloo1.accept()) {
        byte[] sent = new byte[300_000];
        new java.util.Random(7).nextBytes(sent);
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    dialled.getOutputStream().write(sent);
                  } catch (java.io.IOException e) {
                    throw new java.io.UncheckedIOException(e);
                  }
                });
        assertThat(accepted.getInputStream().readNBytes(sent.length)).isEqualTo(sent);
        accepted.getOutputStream().write(42);
        assertThat(dialled.getInputStream().read()).isEqualTo(42);

        end1.close();
        assertThat(dialled.getInputStream().read())
            .as("a closed session ends streams")
            .isEqualTo(-1);
      }
    }
  }

  @Test
  void refusesAnotherWorldsStreams() throws Exception {
    try (var tunnel0 = new GradientTunnel(cluster.node("a"), ANY_PORT);
        var tunnel1 = new GradientTunnel(cluster.node("b"), ANY_PORT)) {
      var tunnels = List.of(at(tunnel0), at(tunnel1));
      var stale = tunnel0.open(new World("job", 1), 0, tunnels);
      tunnel1.open(new World("job", 2), 1, tunnels);
      assertThatThrownBy(() -> stale.exchange(blob(0, 1), Duration.ofMillis(300).toNanos()))
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("rank 1 is not there");
    }
  }

  @Test
  void refusesACertificateOfAnotherCluster() throws Exception {
    World world = new World("job", 1);
    try (var tunnel0 = new GradientTunnel(new TestTls().node("a"), ANY_PORT);
        var tunnel1 = new GradientTunnel(cluster.node("b"), ANY_PORT)) {
      var tunnels = List.of(at(tunnel0), at(tunnel1));
      var foreign = tunnel0.open(world, 0, tunnels);
      var home = tunnel1.open(world, 1, tunnels);
      CompletableFuture.runAsync(
          () -> home.exchange(blob(1, 1), TIMEOUT_NS / 20), TestNodes.MEANWHILE);
      assertThatThrownBy(() -> foreign.exchange(blob(0, 1), Duration.ofMillis(300).toNanos()))
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("did not come up");
    }
  }

  @Test
  void answersNothingToAPlainConnection() throws Exception {
    try (var tunnel = new GradientTunnel(cluster.node("a"), ANY_PORT);
        Socket plain = new Socket(InetAddress.getLoopbackAddress(), tunnel.port())) {
      tunnel.open(new World("job", 1), 0, List.of(at(tunnel)));
      plain.setSoTimeout(5_000);
      plain.getOutputStream().write(new byte[] {0x46, 0x4c, 0x54, 0x31, 1, 0, 3, 'j', 'o', 'b'});
      DataInputStream in = new DataInputStream(plain.getInputStream());
      byte[] answer = in.readAllBytes();
      assertThat(answer.length).as("at most a TLS alert").isLessThan(16);
    }
  }

  @Test
  void portIsRewrittenAndNothingElse() {
    byte[] before = blob(3, 1234);
    byte[] after = GlooAddress.withPort(before, 54321);
    assertThat(GlooAddress.port(before)).isEqualTo(1234);
    assertThat(GlooAddress.port(after)).isEqualTo(54321);
    assertThat(GlooAddress.withPort(after, 1234)).isEqualTo(before);
    assertThatThrownBy(() -> GlooAddress.port(new byte[40]))
        .isInstanceOf(IllegalStateException.class);
  }
}
