package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.PublicKey;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The only port that answers without a client certificate. It reads one small request in little
 * time, from few at once, and hands out a certificate only for a token that is good and unused.
 */
final class JoinServer implements AutoCloseable {

  static final String TOKEN_KIND = "join-token";

  /**
   * A token as the registry knows it, named by the hash of its secret.
   *
   * @param usedBy the node that it admitted; empty while unused
   * @param usedByKey hash of that node's public key: the same node may ask again if it did not get
   *     the answer
   */
  record Invitation(long expiresAtMs, String usedBy, String usedByKey) {}

  private static final Logger LOG = LoggerFactory.getLogger(JoinServer.class);
  private static final int MAX_AT_ONCE = 8;
  private static final Duration MAX_TIME = Duration.ofSeconds(20);
  private static final int READ_TIMEOUT_MS = 5_000;

  private final ClusterConfig config;
  private final Identity identity;
  private final Registry registry;
  private final Supplier<List<NodeInfo>> nodes;
  private final Supplier<List<String>> voters;
  private final RateLimitedLog refusals = new RateLimitedLog(LOG, System::nanoTime);
  private final Semaphore slots = new Semaphore(MAX_AT_ONCE);
  private final ExecutorService handlers = Executors.newVirtualThreadPerTaskExecutor();
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("join-timer").factory());
  private final SSLServerSocket listening;
  private volatile boolean closed;

  JoinServer(
      ClusterConfig config,
      Identity identity,
      Tls tls,
      Registry registry,
      Supplier<List<NodeInfo>> nodes,
      Supplier<List<String>> voters)
      throws IOException {
    this.config = config;
    this.identity = identity;
    this.registry = registry;
    this.nodes = nodes;
    this.voters = voters;
    this.listening = (SSLServerSocket) tls.context().getServerSocketFactory().createServerSocket();
    listening.setReuseAddress(true);
    listening.bind(new InetSocketAddress(config.bindHost(), config.joinPort()), 16);
  }

  void start() {
    Thread.ofPlatform().daemon().name("join-" + identity.nodeId()).start(this::accept);
  }

  private void accept() {
    while (!closed) {
      try {
        SSLSocket socket = (SSLSocket) listening.accept();
        if (slots.tryAcquire()) {
          handlers.execute(() -> handle(socket));
        } else {
          refusals.warn("too many joins at once; refused " + socket.getRemoteSocketAddress());
          closeQuietly(socket);
        }
      } catch (IOException e) {
        if (!closed) {
          refusals.warn("cannot accept on the join port: " + e.getMessage());
        }
      }
    }
  }

  private void handle(SSLSocket socket) {
    // Also against a stranger who sends one byte a second.
    ScheduledFuture<?> deadline =
        timer.schedule(() -> closeQuietly(socket), MAX_TIME.toMillis(), TimeUnit.MILLISECONDS);
    try (socket) {
      socket.setSoTimeout(READ_TIMEOUT_MS);
      socket.startHandshake();
      Joining.Reply reply;
      try {
        Joining.Request request = Joining.receive(socket, Joining.Request.class);
        reply =
            request.asksAbout().isPresent()
                ? Joining.Reply.ofStarts(starts(request.asksAbout().get()))
                : Joining.Reply.of(admit(request));
      } catch (FlotillaException e) {
        refusals.warn(
            "refused to let in " + socket.getRemoteSocketAddress() + ": " + e.getMessage());
        reply = Joining.Reply.of(e);
      }
      Joining.send(socket, reply);
    } catch (IOException | RuntimeException e) {
      refusals.warn(
          "a join from "
              + socket.getRemoteSocketAddress()
              + " failed: "
              + RaftRegistry.rootCause(e));
    } finally {
      deadline.cancel(false);
      slots.release();
    }
  }

  private long starts(String id) {
    if (registry.get(new Registry.Key(Controller.REMOVED_KIND, id)).isPresent()) {
      throw new FlotillaException(Code.CONFLICT, "node " + id + " was removed", "");
    }
    return nodes.get().stream()
        .filter(node -> node.id().equals(id))
        .mapToLong(NodeInfo::incarnation)
        .findFirst()
        .orElse(0);
  }

  private Joining.Welcome admit(Joining.Request request) {
    if (identity.authorityKey().isEmpty()) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "node " + config.name() + " is not a voter and cannot admit others",
          "Join through one of the voters: " + addressesOf(voters.get()) + ".");
    }
    checkVersionAndClock(request);
    PublicKey publicKey = CertificateAuthority.requestedKey(request.certificateRequest());
    String keyHash = JoinToken.hash(publicKey.getEncoded());
    String nodeId = redeem(request.secret(), keyHash);
    Instant now = config.clock().instant();
    CertificateAuthority authority =
        new CertificateAuthority(identity.authorityKey().get(), identity.authority());
    boolean toVote = voters.get().size() < RaftRegistry.MAX_VOTERS;
    LOG.info(
        "node {} ({}) at {}:{} is let in",
        nodeId,
        request.name(),
        request.host(),
        request.httpPort());
    return new Joining.Welcome(
        identity.clusterId(),
        nodeId,
        ascii(Identity.pem(authority.issue(nodeId, publicKey, now))),
        ascii(Identity.pem(identity.authority())),
        toVote
            ? Optional.of(ascii(Identity.pem("PRIVATE KEY", authority.key().getEncoded())))
            : Optional.empty(),
        peers());
  }

  private void checkVersionAndClock(Joining.Request request) {
    if (!Versions.adjacent(config.version(), request.version())) {
      throw new FlotillaException(
          Code.INVALID,
          "the joining node runs version "
              + request.version()
              + " but this cluster runs "
              + config.version(),
          Versions.rule(config.version()));
    }
    long differenceMs = request.clockMs() - config.clock().millis();
    if (Math.abs(differenceMs) > Joining.MAX_CLOCK_DIFFERENCE.toMillis()) {
      throw new FlotillaException(
          Code.INVALID,
          "the joining node's clock is "
              + Math.abs(differenceMs) / 1000
              + " s "
              + (differenceMs > 0 ? "ahead of" : "behind")
              + " the cluster's; at most "
              + Joining.MAX_CLOCK_DIFFERENCE.toSeconds()
              + " s are allowed",
          "Synchronise the machines' clocks (NTP), then join again.");
    }
  }

  /** Uses up the token; of two that race, one gets it. */
  private String redeem(byte[] secret, String keyHash) {
    Registry.Key key = new Registry.Key(TOKEN_KIND, JoinToken.hash(secret));
    String nodeId = Identity.newId("n");
    while (true) {
      registry.sync();
      Registry.Entry entry =
          registry
              .get(key)
              .orElseThrow(
                  () ->
                      new FlotillaException(
                          Code.UNAUTHENTICATED,
                          "the join token is not one of this cluster's",
                          "Make a new one with `flotilla invite` on a node of the cluster."));
      Invitation invitation = Json.read(entry.value(), Invitation.class);
      if (!invitation.usedBy().isEmpty()) {
        if (invitation.usedByKey().equals(keyHash)) {
          return invitation.usedBy();
        }
        throw new FlotillaException(
            Code.UNAUTHENTICATED,
            "the join token was already used, by node " + invitation.usedBy(),
            "Each token admits one node: make another with `flotilla invite`.");
      }
      if (config.clock().millis() >= invitation.expiresAtMs()) {
        throw new FlotillaException(
            Code.UNAUTHENTICATED,
            "the join token expired at " + Instant.ofEpochMilli(invitation.expiresAtMs()),
            "Make a new one with `flotilla invite`.");
      }
      Invitation used = new Invitation(invitation.expiresAtMs(), nodeId, keyHash);
      if (registry
          .commit(
              List.of(new Registry.Condition(key, entry.epoch())),
              List.of(new Registry.Write(key, Optional.of(Json.write(used)))))
          .isPresent()) {
        return nodeId;
      }
    }
  }

  private List<Identity.Peer> peers() {
    List<Identity.Peer> peers = new ArrayList<>();
    peers.add(new Identity.Peer(identity.nodeId(), config.advertisedHost(), config.httpPort()));
    for (NodeInfo node : nodes.get()) {
      if (!node.id().equals(identity.nodeId())) {
        peers.add(new Identity.Peer(node.id(), node.host(), node.httpPort()));
      }
    }
    return peers;
  }

  private String addressesOf(List<String> nodeIds) {
    return String.join(
        ", ",
        nodes.get().stream()
            .filter(node -> nodeIds.contains(node.id()))
            .map(node -> node.host() + ":" + node.httpPort())
            .toList());
  }

  private static String ascii(byte[] bytes) {
    return new String(bytes, StandardCharsets.US_ASCII);
  }

  private static void closeQuietly(@Nullable AutoCloseable closeable) {
    if (closeable != null) {
      try {
        closeable.close();
      } catch (Exception e) {
        LOG.debug("cannot close a socket", e);
      }
    }
  }

  @Override
  public void close() {
    closed = true;
    closeQuietly(listening);
    timer.shutdownNow();
    handlers.shutdownNow();
  }
}
