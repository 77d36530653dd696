package dev.flotilla.gateway;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import org.eclipse.jetty.io.AbstractEndPoint;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.internal.HttpConnection;
import org.eclipse.jetty.util.BufferUtil;
import org.eclipse.jetty.util.Callback;

/**
 * Notices that a client has gone while its request is being worked on.
 *
 * <p>Over HTTP/2 Jetty says so itself. Over HTTP/1.1 it reads nothing while a request is handled,
 * so a client that leaves would be noticed only by a failing write, and without streaming never:
 * here we ask for the next byte. None comes from a patient client, an end from one that left. A
 * byte of a pipelined request is handed back to the connection.
 *
 * <p>Open one only after the whole body has been read, and close it before the response completes.
 */
final class DisconnectWatch implements Callback, AutoCloseable {

  private record Http1(HttpConnection connection, AbstractEndPoint endPoint) {}

  private final Optional<Http1> http1;
  private final Runnable gone;
  private boolean closed;

  private DisconnectWatch(Optional<Http1> http1, Runnable gone) {
    this.http1 = http1;
    this.gone = gone;
  }

  /** Calls {@code gone}, maybe more than once, when the client leaves before this is closed. */
  static DisconnectWatch open(Request request, Runnable gone) {
    DisconnectWatch watch =
        new DisconnectWatch(
            request.getConnectionMetaData().getConnection() instanceof HttpConnection connection
                    && connection.getEndPoint() instanceof AbstractEndPoint endPoint
                ? Optional.of(new Http1(connection, endPoint))
                : Optional.empty(),
            gone);
    request.addFailureListener(watch::failed);
    watch
        .http1
        .filter(h -> h.connection().isRequestBufferEmpty())
        .ifPresent(h -> h.endPoint().tryFillInterested(watch));
    return watch;
  }

  @Override
  public synchronized void succeeded() {
    if (closed) {
      return;
    }
    Http1 h = http1.orElseThrow();
    ByteBuffer next = BufferUtil.allocate(1);
    try {
      int filled = h.endPoint().fill(next);
      if (filled < 0) {
        gone.run();
      } else if (filled == 0) {
        h.endPoint().tryFillInterested(this);
      } else {
        h.connection().onUpgradeTo(next);
      }
    } catch (IOException e) {
      gone.run();
    }
  }

  @Override
  public synchronized void failed(Throwable failure) {
    if (!closed) {
      gone.run();
    }
  }

  @Override
  public synchronized void close() {
    closed = true;
    http1.ifPresent(
        h -> h.endPoint().getFillInterest().onFail(new CancellationException("all written")));
  }
}
