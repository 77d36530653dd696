package dev.flotilla.cluster;

import java.util.List;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import javax.net.ssl.SSLException;
import org.slf4j.LoggerFactory;

/**
 * Brings refused connections on the mutual-TLS ports into the log. gRPC mentions a failed handshake
 * (no certificate, another cluster's, an expired one, plaintext) only to java.util.logging, at a
 * level that nobody sees: one logger in our copy of it, and one in Ratis's. This listens to both.
 */
final class RefusedHandshakes extends Handler {

  // Held, or the loggers would be collected, and this handler with them.
  private static final List<Logger> LOGGERS =
      List.of(
          Logger.getLogger("io.grpc.netty.shaded.io.grpc.netty.WriteBufferingAndExceptionHandler"),
          Logger.getLogger(
              "org.apache.ratis.thirdparty.io.grpc.netty.WriteBufferingAndExceptionHandler"));

  private static final RefusedHandshakes HANDLER =
      new RefusedHandshakes(
          new RateLimitedLog(LoggerFactory.getLogger(RefusedHandshakes.class), System::nanoTime));

  private final RateLimitedLog log;

  private RefusedHandshakes(RateLimitedLog log) {
    this.log = log;
  }

  /** Safe to repeat. */
  static synchronized void report() {
    for (Logger logger : LOGGERS) {
      logger.removeHandler(HANDLER);
      logger.addHandler(HANDLER);
      logger.setLevel(Level.FINE);
      logger.setUseParentHandlers(false);
    }
  }

  @Override
  public void publish(LogRecord record) {
    int depth = 0;
    for (Throwable t = record.getThrown(); t != null && depth < 20; t = t.getCause(), depth++) {
      if (t instanceof SSLException) {
        log.warn("refused a TLS connection: " + RaftRegistry.rootCause(record.getThrown()));
        return;
      }
    }
  }

  @Override
  public void flush() {}

  @Override
  public void close() {}
}
