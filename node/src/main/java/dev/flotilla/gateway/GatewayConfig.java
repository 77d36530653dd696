package dev.flotilla.gateway;

import java.time.Duration;

/**
 * Where the HTTP side listens, and what it puts up with.
 *
 * @param host an address of this machine; anything but loopback needs {@code insecureHttp}
 * @param port the HTTP port; 0 takes a free one
 * @param insecureHttp whether keys and text may cross a network unencrypted
 */
public record GatewayConfig(String host, int port, boolean insecureHttp, Limits limits) {

  /**
   * Bounds on clients.
   *
   * @param idle a connection without any byte for so long is closed
   * @param header a request's header must be complete within this, however it drips
   * @param body a request's body must be complete within this, however it drips
   * @param writeStall a client that takes no byte of a response for so long is dropped
   * @param keepAlive a stream without a token for so long gets a comment
   * @param bodyBytes the largest request body
   * @param headerBytes the largest request header
   * @param tokensBehind a stream's reader may lag the model by so many tokens, then is dropped
   * @param requests how many requests are handled at once; more are answered 429
   */
  public record Limits(
      Duration idle,
      Duration header,
      Duration body,
      Duration writeStall,
      Duration keepAlive,
      int bodyBytes,
      int headerBytes,
      int tokensBehind,
      int requests) {

    /** For production. */
    public static final Limits DEFAULTS =
        new Limits(
            // Longer than clients keep unused connections (Java's: 30 s), or one would now and then
            // send a request into a connection that is just being closed.
            Duration.ofSeconds(75),
            Duration.ofSeconds(15),
            Duration.ofSeconds(60),
            Duration.ofSeconds(20),
            // A third of what clients take for a node that is not well.
            Duration.ofSeconds(2),
            8 << 20,
            16 << 10,
            4096,
            1024);
  }
}
