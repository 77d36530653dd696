package dev.flotilla.cluster;

import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.MetadataUtils;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The handshake of versions: each call between nodes says the caller's, and is refused if need be.
 */
final class VersionCheck {

  private static final Logger LOG = LoggerFactory.getLogger(VersionCheck.class);
  private static final Metadata.Key<String> HEADER =
      Metadata.Key.of("flotilla-version", Metadata.ASCII_STRING_MARSHALLER);

  private final String self;
  private final String version;
  private final RateLimitedLog refusals = new RateLimitedLog(LOG, System::nanoTime);

  VersionCheck(String self, String version) {
    this.self = self;
    this.version = version;
  }

  /** Says this node's version with every call. */
  ClientInterceptor saying() {
    Metadata headers = new Metadata();
    headers.put(HEADER, version);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** Why a call is refused, if it is. */
  Optional<Status> refusal(String caller, Metadata headers) {
    String theirs = Optional.ofNullable(headers.get(HEADER)).orElse("unknown");
    if (Versions.adjacent(version, theirs)) {
      return Optional.empty();
    }
    String why =
        "node "
            + caller
            + " runs version "
            + theirs
            + ", and node "
            + self
            + " runs "
            + version
            + ". "
            + Versions.rule(version);
    refusals.warn("a call is refused: " + why);
    return Optional.of(Status.FAILED_PRECONDITION.withDescription(why));
  }
}
