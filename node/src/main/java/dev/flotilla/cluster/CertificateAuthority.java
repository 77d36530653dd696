package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.math.BigInteger;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.List;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.ExtendedKeyUsage;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.asn1.x509.KeyPurposeId;
import org.bouncycastle.asn1.x509.KeyUsage;
import org.bouncycastle.cert.X509v3CertificateBuilder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.operator.OperatorCreationException;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.PKCSException;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

/**
 * The cluster's own certificate authority (EC P-256, ECDSA with SHA-256): who holds a certificate
 * of it is a node of this cluster, and nobody else is.
 *
 * <p>Every voter holds the authority's key, so that any voter can admit a node and the loss of the
 * first one does not close the cluster. The price: whoever reads one voter's disk can make nodes.
 * That disk also holds the voter's own key and the registry, so little more is lost with it.
 */
record CertificateAuthority(PrivateKey key, X509Certificate certificate) {

  private static final Duration LIFETIME = Duration.ofDays(3650);
  // Clocks of machines differ; a join allows 30 s, and a day costs nothing.
  private static final Duration BACKDATED = Duration.ofDays(1);
  private static final SecureRandom RANDOM = new SecureRandom();
  private static final String URI_PREFIX = "flotilla:node:";

  static CertificateAuthority create(String clusterId, Instant now) {
    KeyPair pair = newKeyPair();
    X500Name name = new X500Name("CN=flotilla-" + clusterId);
    try {
      JcaX509v3CertificateBuilder builder =
          new JcaX509v3CertificateBuilder(
              name,
              serial(),
              Date.from(now.minus(BACKDATED)),
              Date.from(now.plus(LIFETIME)),
              name,
              pair.getPublic());
      builder.addExtension(Extension.basicConstraints, true, new BasicConstraints(0));
      builder.addExtension(
          Extension.keyUsage, true, new KeyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign));
      builder.addExtension(
          Extension.subjectKeyIdentifier,
          false,
          new JcaX509ExtensionUtils().createSubjectKeyIdentifier(pair.getPublic()));
      return new CertificateAuthority(pair.getPrivate(), sign(builder, pair.getPrivate()));
    } catch (IOException | GeneralSecurityException e) {
      throw new IllegalStateException("cannot make a certificate authority", e);
    }
  }

  static KeyPair newKeyPair() {
    try {
      KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
      generator.initialize(new ECGenParameterSpec("secp256r1"), RANDOM);
      return generator.generateKeyPair();
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("no EC P-256 in this JDK", e);
    }
  }

  /** A certificate that makes its holder the given node, from a day ago for ten years. */
  X509Certificate issue(String nodeId, PublicKey publicKey, Instant now) {
    return issue(nodeId, publicKey, now.minus(BACKDATED), now.plus(LIFETIME));
  }

  X509Certificate issue(String nodeId, PublicKey publicKey, Instant from, Instant until) {
    try {
      JcaX509v3CertificateBuilder builder =
          new JcaX509v3CertificateBuilder(
              new X500Name(certificate.getSubjectX500Principal().getName()),
              serial(),
              Date.from(from),
              Date.from(until),
              new X500Name("CN=" + nodeId),
              publicKey);
      builder.addExtension(Extension.basicConstraints, true, new BasicConstraints(false));
      builder.addExtension(Extension.keyUsage, true, new KeyUsage(KeyUsage.digitalSignature));
      builder.addExtension(
          Extension.extendedKeyUsage,
          false,
          new ExtendedKeyUsage(
              new KeyPurposeId[] {KeyPurposeId.id_kp_serverAuth, KeyPurposeId.id_kp_clientAuth}));
      builder.addExtension(
          Extension.subjectAlternativeName,
          false,
          new GeneralNames(
              new GeneralName[] {
                new GeneralName(GeneralName.dNSName, Tls.authorityOf(nodeId)),
                new GeneralName(GeneralName.uniformResourceIdentifier, URI_PREFIX + nodeId)
              }));
      return sign(builder, key);
    } catch (IOException | GeneralSecurityException e) {
      throw new IllegalStateException("cannot issue a certificate for " + nodeId, e);
    }
  }

  /** What a joining node sends: its public key, and proof that it holds the private one. */
  static byte[] request(KeyPair pair) {
    try {
      return new JcaPKCS10CertificationRequestBuilder(
              new X500Name("CN=flotilla-joining"), pair.getPublic())
          .build(new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate()))
          .getEncoded();
    } catch (IOException | OperatorCreationException e) {
      throw new IllegalStateException("cannot make a certificate request", e);
    }
  }

  /**
   * The public key of a request, once its proof of possession holds. The name in the request is
   * ignored: the cluster names its nodes.
   *
   * @throws FlotillaException {@code INVALID} if it is not such a request
   */
  static PublicKey requestedKey(byte[] request) {
    try {
      JcaPKCS10CertificationRequest parsed =
          new JcaPKCS10CertificationRequest(new PKCS10CertificationRequest(request));
      PublicKey publicKey = parsed.getPublicKey();
      if (!publicKey.getAlgorithm().equals("EC")
          || !parsed.isSignatureValid(new JcaContentVerifierProviderBuilder().build(publicKey))) {
        throw notARequest(null);
      }
      return publicKey;
    } catch (IOException
        | GeneralSecurityException
        | OperatorCreationException
        | PKCSException
        | IllegalArgumentException e) {
      throw notARequest(e);
    }
  }

  private static FlotillaException notARequest(@org.jspecify.annotations.Nullable Exception cause) {
    FlotillaException thrown =
        new FlotillaException(
            Code.INVALID,
            "the certificate request is malformed or its signature does not hold",
            "Join with a node of the same version.");
    if (cause != null) {
      thrown.initCause(cause);
    }
    return thrown;
  }

  /** The id of the node whom a certificate of this cluster names; empty if it names none. */
  static String nodeId(X509Certificate certificate) {
    try {
      var names = certificate.getSubjectAlternativeNames();
      if (names != null) {
        for (List<?> name : names) {
          if (name.get(0).equals(GeneralName.uniformResourceIdentifier)
              && name.get(1) instanceof String uri
              && uri.startsWith(URI_PREFIX)) {
            return uri.substring(URI_PREFIX.length());
          }
        }
      }
      return "";
    } catch (GeneralSecurityException e) {
      return "";
    }
  }

  /** SHA-256 of the encoded certificate. */
  static byte[] fingerprint(X509Certificate certificate) {
    try {
      return MessageDigest.getInstance("SHA-256").digest(certificate.getEncoded());
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("cannot hash a certificate", e);
    }
  }

  private static X509Certificate sign(X509v3CertificateBuilder builder, PrivateKey key)
      throws GeneralSecurityException {
    try {
      return new JcaX509CertificateConverter()
          .getCertificate(builder.build(new JcaContentSignerBuilder("SHA256withECDSA").build(key)));
    } catch (OperatorCreationException e) {
      throw new GeneralSecurityException(e);
    }
  }

  private static BigInteger serial() {
    return new BigInteger(127, RANDOM).add(BigInteger.ONE);
  }
}
