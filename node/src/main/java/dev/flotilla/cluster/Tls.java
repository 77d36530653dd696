package dev.flotilla.cluster;

import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.netty.handler.ssl.ClientAuth;
import io.grpc.netty.shaded.io.netty.handler.ssl.SslContext;
import io.grpc.netty.shaded.io.netty.handler.ssl.SslContextBuilder;
import java.io.IOException;
import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.util.Optional;
import java.util.function.Predicate;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;
import javax.net.ssl.X509KeyManager;
import javax.net.ssl.X509TrustManager;
import org.apache.ratis.grpc.GrpcTlsConfig;
import org.jspecify.annotations.Nullable;

/**
 * Mutual TLS 1.3 between nodes. Trust has two parts: the certificate comes from the cluster's
 * authority, and it names the very node that was dialled. Host names and addresses are not in
 * certificates, so a node can move without a new one; instead the dialler looks up which node it
 * expects at an address.
 */
final class Tls {

  private static final String PROTOCOL = "TLSv1.3";
  private static final String AUTHORITY_SUFFIX = ".flotilla";

  /** Which node is expected behind a host and port; empty if the cluster knows none there. */
  @FunctionalInterface
  interface AddressBook {
    Optional<String> nodeAt(String host, int port);
  }

  private final Identity identity;
  private final X509KeyManager keyManager;
  private final X509ExtendedTrustManager trustManager;

  Tls(Identity identity, AddressBook addressBook, Predicate<String> removed) {
    this.identity = identity;
    this.keyManager = keyManager(identity);
    this.trustManager = new PeerTrust(pkix(identity.authority()), addressBook, removed);
  }

  /**
   * The name by which a channel dials a node whatever its address; it is also in the certificate.
   */
  static String authorityOf(String nodeId) {
    return nodeId + AUTHORITY_SUFFIX;
  }

  SSLContext context() {
    return context(keyManager, trustManager);
  }

  SslContext server() {
    try {
      return GrpcSslContexts.configure(
              SslContextBuilder.forServer(
                  identity.key(), identity.certificate(), identity.authority()))
          .trustManager(trustManager)
          .clientAuth(ClientAuth.REQUIRE)
          .protocols(PROTOCOL)
          .build();
    } catch (SSLException e) {
      throw new IllegalStateException("cannot set up TLS for the node-to-node port", e);
    }
  }

  SslContext client() {
    try {
      return GrpcSslContexts.forClient()
          .keyManager(identity.key(), identity.certificate(), identity.authority())
          .trustManager(trustManager)
          .protocols(PROTOCOL)
          .build();
    } catch (SSLException e) {
      throw new IllegalStateException("cannot set up TLS for calls to other nodes", e);
    }
  }

  GrpcTlsConfig raft() {
    return new GrpcTlsConfig(keyManager, trustManager, true);
  }

  static SSLContext context(@Nullable X509KeyManager keyManager, TrustManager trustManager) {
    try {
      SSLContext context = SSLContext.getInstance(PROTOCOL);
      context.init(
          keyManager == null ? null : new X509KeyManager[] {keyManager},
          new TrustManager[] {trustManager},
          null);
      return context;
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("no TLS 1.3 in this JDK", e);
    }
  }

  static X509KeyManager keyManager(Identity identity) {
    try {
      KeyStore store = KeyStore.getInstance("PKCS12");
      store.load(null, null);
      store.setKeyEntry(
          "node",
          identity.key(),
          new char[0],
          new Certificate[] {identity.certificate(), identity.authority()});
      KeyManagerFactory factory =
          KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
      factory.init(store, new char[0]);
      return (X509KeyManager) factory.getKeyManagers()[0];
    } catch (GeneralSecurityException | IOException e) {
      throw new IllegalStateException("cannot load this node's key", e);
    }
  }

  /** Accepts chains that end at one authority, within their dates. */
  static X509TrustManager pkix(X509Certificate authority) {
    try {
      KeyStore store = KeyStore.getInstance("PKCS12");
      store.load(null, null);
      store.setCertificateEntry("authority", authority);
      TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
      factory.init(store);
      return (X509TrustManager) factory.getTrustManagers()[0];
    } catch (GeneralSecurityException | IOException e) {
      throw new IllegalStateException("cannot load the cluster's authority", e);
    }
  }

  private static final class PeerTrust extends ChainTrust {

    private final X509TrustManager chains;
    private final AddressBook addressBook;
    private final Predicate<String> removed;

    PeerTrust(X509TrustManager chains, AddressBook addressBook, Predicate<String> removed) {
      this.chains = chains;
      this.addressBook = addressBook;
      this.removed = removed;
    }

    @Override
    public void checkClientTrusted(X509Certificate[] chain, String authType)
        throws CertificateException {
      chains.checkClientTrusted(chain, authType);
      checkMember(chain[0]);
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String authType)
        throws CertificateException {
      chains.checkServerTrusted(chain, authType);
      checkMember(chain[0]);
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String authType, Socket socket)
        throws CertificateException {
      checkServerTrusted(chain, authType);
      if (socket instanceof SSLSocket tls) {
        checkDialled(chain[0], tls.getHandshakeSession().getPeerHost(), tls.getPort());
      }
    }

    @Override
    public void checkServerTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
        throws CertificateException {
      checkServerTrusted(chain, authType);
      checkDialled(chain[0], engine.getPeerHost(), engine.getPeerPort());
    }

    @Override
    public X509Certificate[] getAcceptedIssuers() {
      return chains.getAcceptedIssuers();
    }

    private void checkMember(X509Certificate certificate) throws CertificateException {
      String nodeId = CertificateAuthority.nodeId(certificate);
      if (nodeId.isEmpty()) {
        throw new CertificateException("the certificate names no node");
      }
      if (removed.test(nodeId)) {
        throw new CertificateException("node " + nodeId + " was removed from the cluster");
      }
    }

    private void checkDialled(X509Certificate certificate, @Nullable String host, int port)
        throws CertificateException {
      if (host == null) {
        return;
      }
      Optional<String> expected =
          host.endsWith(AUTHORITY_SUFFIX)
              ? Optional.of(host.substring(0, host.length() - AUTHORITY_SUFFIX.length()))
              : addressBook.nodeAt(host, port);
      String actual = CertificateAuthority.nodeId(certificate);
      if (expected.isPresent() && !expected.get().equals(actual)) {
        throw new CertificateException(
            "dialled node " + expected.get() + " at " + host + " but node " + actual + " answers");
      }
    }
  }
}
