package dev.flotilla.cluster;

import java.util.List;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.slf4j.LoggerFactory;

/**
 * Brings refused connections on the mutual-TLS ports into the log. gRPC reports a failed handshake
 * (no certificate, another cluster's, an expired one, plaintext) only to java.util.logging, one
 * logger in our copy of it and one in Ratis's; this listens to both.
 */
final class RefusedHandshakes extends Handler {

  // Held, or the loggers and this handler on them would be collected.
  private static final List<Logger> LOGGERS =
      List.of(
          Logger.getLogger("io.grpc.netty.shaded.io.grpc.netty.NettyServerTransport.connections"),
          Logger.getLogger("io.grpc.netty.shaded.io.grpc.netty.NettyServerTransport"),
          Logger.getLogger(
              "org.apache.ratis.thirdparty.io.grpc.netty.NettyServerTransport.connections"),
          Logger.getLogger("org.apache.ratis.thirdparty.io.grpc.netty.NettyServerTransport"));

  private static final RefusedHandshakes HANDLER = new RefusedHandshakes();

  private final RateLimitedLog log =
      new RateLimitedLog(LoggerFactory.getLogger(RefusedHandshakes.class), System::nanoTime);

  private RefusedHandshakes() {}

  /** Safe to repeat. */
  static synchronized void report() {
    for (Logger logger : LOGGERS) {
      logger.removeHandler(HANDLER);
      logger.addHandler(HANDLER);
      logger.setUseParentHandlers(false);
    }
  }

  @Override
  public void publish(LogRecord record) {
    Throwable thrown = record.getThrown();
    if (record.getLevel().intValue() < Level.INFO.intValue() || thrown == null) {
      return;
    }
    log.warn("refused a connection from outside the cluster: " + RaftRegistry.rootCause(thrown));
  }

  @Override
  public void flush() {}

  @Override
  public void close() {}
}
