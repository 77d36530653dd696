package dev.flotilla.gateway;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.WeakHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.eclipse.jetty.http2.server.internal.HTTP2ServerConnection;
import org.eclipse.jetty.io.EndPoint;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.internal.HttpConnection;
import org.eclipse.jetty.util.BufferUtil;
import org.eclipse.jetty.util.Callback;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Ends connections on which a request's header drips in. Jetty's idle time-out starts anew with
 * every byte, so one byte a second would keep a connection for hours.
 *
 * <p>A connection that stays between the first byte of a header and its end, or an HTTP/2
 * connection that stays without any stream, is seen as such at every look, and closed when that has
 * lasted too long.
 */
final class SlowHeaders implements Runnable {

  private static final Logger log = LoggerFactory.getLogger(SlowHeaders.class);

  private final ServerConnector connector;
  private final long headerNs;
  private final long idleNs;
  private final LongSupplier nanoTime;
  private final Map<EndPoint, Long> waitingSinceNs = new WeakHashMap<>();

  SlowHeaders(ServerConnector connector, GatewayConfig.Limits limits, LongSupplier nanoTime) {
    this.connector = connector;
    this.headerNs = limits.header().toNanos();
    this.idleNs = limits.idle().toNanos();
    this.nanoTime = nanoTime;
  }

  /** One look at all connections. */
  @Override
  public void run() {
    long now = nanoTime.getAsLong();
    for (EndPoint endPoint : connector.getConnectedEndPoints()) {
      if (inHeader(endPoint)) {
        long since = waitingSinceNs.computeIfAbsent(endPoint, e -> now);
        if (now - since > headerNs) {
          refuse(endPoint);
        }
      } else if (withoutStreams(endPoint)) {
        long since = waitingSinceNs.computeIfAbsent(endPoint, e -> now);
        if (now - since > idleNs) {
          endPoint.close();
        }
      } else {
        waitingSinceNs.remove(endPoint);
      }
    }
  }

  private static boolean inHeader(EndPoint endPoint) {
    return endPoint.getConnection() instanceof HttpConnection http
        && http.getParser().inHeaderState()
        && !http.getParser().isStart();
  }

  private static boolean withoutStreams(EndPoint endPoint) {
    return endPoint.getConnection() instanceof HTTP2ServerConnection http2
        && http2.getSession().getStreams().isEmpty();
  }

  private void refuse(EndPoint endPoint) {
    log.info("a header from {} took too long", endPoint.getRemoteSocketAddress());
    byte[] body =
        JsonErrors.body(
            408,
            "The request's header was not complete after "
                + TimeUnit.NANOSECONDS.toMillis(headerNs)
                + " ms.");
    String head =
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
            + "Content-Length: "
            + body.length
            + "\r\n\r\n";
    endPoint.write(
        Callback.from(endPoint::close),
        BufferUtil.toBuffer(head, StandardCharsets.US_ASCII),
        ByteBuffer.wrap(body));
  }
}
