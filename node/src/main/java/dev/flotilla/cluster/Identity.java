package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.cert.CertificateEncodingException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;

/**
 * Who this node is: its id, key and certificate, the cluster's authority, and where it found the
 * cluster. Kept in {@code certs/}, which appears whole or not at all.
 *
 * @param authorityKey present on voters, which can admit others
 */
record Identity(
    Facts facts,
    PrivateKey key,
    X509Certificate certificate,
    X509Certificate authority,
    Optional<PrivateKey> authorityKey) {

  /**
   * What stands in {@code certs/cluster.json}.
   *
   * @param host where this node said it is when it came; Raft's configuration rests on it
   * @param peers through whom it came in; empty on the first node
   */
  record Facts(String clusterId, String nodeId, String host, int httpPort, List<Peer> peers) {}

  /** Where to reach a node of the cluster. */
  record Peer(String nodeId, String host, int httpPort) {}

  private static final SecureRandom RANDOM = new SecureRandom();

  String nodeId() {
    return facts.nodeId();
  }

  String clusterId() {
    return facts.clusterId();
  }

  static Path folder(Path dataFolder) {
    return dataFolder.resolve("certs");
  }

  /** A new cluster with this node as its first. */
  static Identity found(ClusterConfig config) {
    String clusterId = newId("c");
    String nodeId = newId("n");
    CertificateAuthority authority =
        CertificateAuthority.create(clusterId, config.clock().instant());
    KeyPair pair = CertificateAuthority.newKeyPair();
    return new Identity(
        new Facts(clusterId, nodeId, config.advertisedHost(), config.httpPort(), List.of()),
        pair.getPrivate(),
        authority.issue(nodeId, pair.getPublic(), config.clock().instant()),
        authority.certificate(),
        Optional.of(authority.key()));
  }

  static String newId(String prefix) {
    byte[] random = new byte[6];
    RANDOM.nextBytes(random);
    return prefix + HexFormat.of().formatHex(random);
  }

  /**
   * Reads {@code certs/}; empty if there is none.
   *
   * @throws FlotillaException {@code BAD_FILE} if it is damaged
   */
  static Optional<Identity> load(Path dataFolder) {
    Path folder = folder(dataFolder);
    if (!Files.isDirectory(folder)) {
      return Optional.empty();
    }
    Path file = folder;
    try {
      file = folder.resolve("cluster.json");
      Facts facts = Json.read(Files.readAllBytes(file), Facts.class);
      file = folder.resolve("node.key");
      PrivateKey key = privateKey(Files.readString(file));
      file = folder.resolve("node.crt");
      X509Certificate certificate = certificate(Files.readString(file));
      file = folder.resolve("authority.crt");
      X509Certificate authority = certificate(Files.readString(file));
      certificate.verify(authority.getPublicKey());
      Optional<PrivateKey> authorityKey = Optional.empty();
      file = folder.resolve("authority.key");
      if (Files.exists(file)) {
        authorityKey = Optional.of(privateKey(Files.readString(file)));
      }
      if (!CertificateAuthority.nodeId(certificate).equals(facts.nodeId())) {
        throw new GeneralSecurityException("node.crt names another node than cluster.json");
      }
      return Optional.of(new Identity(facts, key, certificate, authority, authorityKey));
    } catch (IOException
        | GeneralSecurityException
        | IllegalArgumentException
        | FlotillaException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          "cannot read this node's identity from " + file + ": " + e.getMessage(),
          "Restore the certs folder from a backup, or start with an empty --data folder and join"
              + " the cluster anew.",
          e);
    }
  }

  /** Writes {@code certs/} whole: all files into a folder beside it, then one rename. */
  void save(Path dataFolder) {
    Path folder = folder(dataFolder);
    Path temp = dataFolder.resolve("certs.tmp");
    try {
      NodeFiles.deleteTree(temp);
      NodeFiles.createPrivateFolder(temp);
      NodeFiles.writeDurably(temp.resolve("cluster.json"), Json.write(facts), false);
      NodeFiles.writeDurably(temp.resolve("node.key"), pem("PRIVATE KEY", key.getEncoded()), true);
      NodeFiles.writeDurably(temp.resolve("node.crt"), pem(certificate), false);
      NodeFiles.writeDurably(temp.resolve("authority.crt"), pem(authority), false);
      if (authorityKey.isPresent()) {
        NodeFiles.writeDurably(
            temp.resolve("authority.key"),
            pem("PRIVATE KEY", authorityKey.get().getEncoded()),
            true);
      }
      Files.move(temp, folder, StandardCopyOption.ATOMIC_MOVE);
      NodeFiles.syncFolder(dataFolder);
    } catch (IOException e) {
      throw NodeFiles.storage("cannot write this node's identity to " + folder, e);
    }
  }

  static byte[] pem(X509Certificate certificate) {
    try {
      return pem("CERTIFICATE", certificate.getEncoded());
    } catch (CertificateEncodingException e) {
      throw new IllegalStateException("cannot encode a certificate", e);
    }
  }

  static byte[] pem(String type, byte[] der) {
    String body = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der);
    return ("-----BEGIN " + type + "-----\n" + body + "\n-----END " + type + "-----\n")
        .getBytes(StandardCharsets.US_ASCII);
  }

  static X509Certificate certificate(String pem) throws GeneralSecurityException {
    return (X509Certificate)
        CertificateFactory.getInstance("X.509")
            .generateCertificate(new ByteArrayInputStream(pem.getBytes(StandardCharsets.US_ASCII)));
  }

  static PrivateKey privateKey(String pem) throws GeneralSecurityException {
    String body = pem.replaceAll("-----[A-Z ]+-----", "").replaceAll("\\s", "");
    return KeyFactory.getInstance("EC")
        .generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(body)));
  }
}
