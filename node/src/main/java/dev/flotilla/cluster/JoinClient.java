package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.MessageDigest;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.security.spec.X509EncodedKeySpec;
import java.util.Base64;
import java.util.Optional;
import javax.net.ssl.SSLSocket;

/**
 * The joiner's side. Its key is kept in {@code joining.key} until the cluster has answered, so that
 * a try that lost its answer can be repeated with the same token.
 */
final class JoinClient {

  private static final int CONNECT_TIMEOUT_MS = 5_000;
  private static final int REPLY_TIMEOUT_MS = 20_000;

  private JoinClient() {}

  /**
   * @param address host and HTTP port of a node of the cluster
   */
  static Identity join(ClusterConfig config, String address, JoinToken token) {
    int colon = address.lastIndexOf(':');
    int port;
    try {
      port = Integer.parseInt(address.substring(colon + 1));
    } catch (NumberFormatException e) {
      port = -1;
    }
    if (colon <= 0 || port <= 0 || port > 65_500) {
      throw new FlotillaException(
          Code.INVALID,
          "\"" + address + "\" is not HOST:PORT",
          "Give the address of the HTTP API of a node of the cluster, such as 10.0.0.1:8000.");
    }
    String host = address.substring(0, colon).replaceAll("^\\[|]$", "");
    Path keyFile = config.dataFolder().resolve("joining.key");
    KeyPair pair = keyPair(keyFile);
    Joining.Request request =
        new Joining.Request(
            Optional.empty(),
            token.secret(),
            CertificateAuthority.request(pair),
            config.name(),
            config.advertisedHost(),
            config.httpPort(),
            config.version(),
            config.clock().millis());
    Joining.Reply reply = exchange(host, port, token.authorityFingerprint(), request);
    if (reply.refusal().isPresent()) {
      Joining.Refusal refusal = reply.refusal().get();
      throw new FlotillaException(refusal.code(), refusal.message(), refusal.remedy());
    }
    Joining.Welcome welcome = reply.welcome().orElseThrow();
    try {
      X509Certificate authority = Identity.certificate(welcome.authority());
      if (!MessageDigest.isEqual(
          CertificateAuthority.fingerprint(authority), token.authorityFingerprint())) {
        throw new GeneralSecurityException("the authority is not the one that the token names");
      }
      X509Certificate certificate = Identity.certificate(welcome.certificate());
      certificate.verify(authority.getPublicKey());
      Optional<java.security.PrivateKey> authorityKey = Optional.empty();
      if (welcome.authorityKey().isPresent()) {
        authorityKey = Optional.of(Identity.privateKey(welcome.authorityKey().get()));
      }
      Identity identity =
          new Identity(
              new Identity.Facts(
                  welcome.clusterId(),
                  welcome.nodeId(),
                  config.advertisedHost(),
                  config.httpPort(),
                  welcome.peers()),
              pair.getPrivate(),
              certificate,
              authority,
              authorityKey);
      identity.save(config.dataFolder());
      Files.deleteIfExists(keyFile);
      return identity;
    } catch (GeneralSecurityException e) {
      throw new FlotillaException(
          Code.FAILED,
          "the cluster's answer to the join does not verify: " + e.getMessage(),
          "Check that all nodes run the same version.",
          e);
    } catch (IOException e) {
      throw NodeFiles.storage("cannot finish the join in " + config.dataFolder(), e);
    }
  }

  /** What another node of the cluster says of this one; nothing if it is silent. */
  static Optional<Joining.Reply> ask(ClusterConfig config, Identity identity, Identity.Peer peer) {
    Joining.Request request =
        new Joining.Request(
            Optional.of(identity.nodeId()),
            new byte[0],
            new byte[0],
            config.name(),
            config.advertisedHost(),
            config.httpPort(),
            config.version(),
            config.clock().millis());
    try {
      return Optional.of(
          exchange(
              peer.host(),
              peer.httpPort(),
              CertificateAuthority.fingerprint(identity.authority()),
              request));
    } catch (FlotillaException silent) {
      return Optional.empty();
    }
  }

  /** Whether it says that this one was removed. */
  static boolean saysRemoved(Joining.Reply reply) {
    return reply.refusal().map(refusal -> refusal.code() == Code.CONFLICT).orElse(false);
  }

  private static Joining.Reply exchange(
      String host, int port, byte[] authority, Joining.Request request) {
    PinnedTrust trust = new PinnedTrust(authority);
    String where = host + ":" + port;
    try (Socket plain = new Socket()) {
      plain.connect(new InetSocketAddress(host, port + 3), CONNECT_TIMEOUT_MS);
      plain.setSoTimeout(REPLY_TIMEOUT_MS);
      try (SSLSocket socket =
          (SSLSocket)
              Tls.context(null, trust)
                  .getSocketFactory()
                  .createSocket(plain, host, port + 3, true)) {
        socket.startHandshake();
        Joining.send(socket, request);
        return Joining.receive(socket, Joining.Reply.class);
      }
    } catch (IOException e) {
      if (trust.mismatch) {
        throw new FlotillaException(
            Code.UNAUTHENTICATED,
            "the join token is for another cluster than the one at " + where,
            "Make a token with `flotilla invite` on a node of the cluster to join, or correct the"
                + " address.",
            e);
      }
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "cannot join through "
              + where
              + " (join port "
              + (port + 3)
              + "): "
              + RaftRegistry.rootCause(e),
          "Check that the node there is up, that the address is the one of its HTTP API, and that"
              + " no firewall blocks its ports.",
          e);
    }
  }

  private static KeyPair keyPair(Path file) {
    try {
      if (Files.exists(file)) {
        String[] lines = Files.readString(file).split("\n-----END PUBLIC KEY-----\n", 2);
        byte[] publicKey =
            Base64.getDecoder()
                .decode(lines[0].replace("-----BEGIN PUBLIC KEY-----\n", "").replace("\n", ""));
        return new KeyPair(
            KeyFactory.getInstance("EC").generatePublic(new X509EncodedKeySpec(publicKey)),
            Identity.privateKey(lines[1]));
      }
      KeyPair pair = CertificateAuthority.newKeyPair();
      String text =
          new String(
                  Identity.pem("PUBLIC KEY", pair.getPublic().getEncoded()),
                  StandardCharsets.US_ASCII)
              + new String(
                  Identity.pem("PRIVATE KEY", pair.getPrivate().getEncoded()),
                  StandardCharsets.US_ASCII);
      NodeFiles.writeDurably(file, text.getBytes(StandardCharsets.US_ASCII), true);
      return pair;
    } catch (IOException e) {
      throw NodeFiles.storage("cannot write " + file, e);
    } catch (GeneralSecurityException | RuntimeException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          "the key of an unfinished join in " + file + " is damaged",
          "Delete that file and join again.",
          e);
    }
  }

  /** Trusts whoever shows a certificate of the authority with the known fingerprint. */
  private static final class PinnedTrust extends ChainTrust {

    private final byte[] fingerprint;
    private volatile boolean mismatch;

    PinnedTrust(byte[] fingerprint) {
      this.fingerprint = fingerprint;
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String authType)
        throws CertificateException {
      X509Certificate authority = chain[chain.length - 1];
      if (!MessageDigest.isEqual(CertificateAuthority.fingerprint(authority), fingerprint)) {
        mismatch = true;
        throw new CertificateException("another authority than the one in the join token");
      }
      Tls.pkix(authority).checkServerTrusted(chain, authType);
    }

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String authType)
        throws CertificateException {
      throw new CertificateException("a joiner serves nobody");
    }

    @Override
    public X509Certificate[] getAcceptedIssuers() {
      return new X509Certificate[0];
    }
  }
}
