package dev.flotilla.app;

import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.classic.spi.ThrowableProxyUtil;
import ch.qos.logback.core.AppenderBase;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.log.Log;
import java.util.HashMap;
import java.util.Map;
import org.slf4j.LoggerFactory;
import org.slf4j.event.KeyValuePair;

/** Hands what is logged in this process to a node's log; never waits for it. */
final class LogFeed extends AppenderBase<ILoggingEvent> implements AutoCloseable {

  private static final int EXCEPTION_CHARS_MAX = 16_384;

  private final DataPlane data;

  private LogFeed(DataPlane data) {
    this.data = data;
  }

  /** Attached until it is closed. */
  static LogFeed to(DataPlane data) {
    LogFeed feed = new LogFeed(data);
    Logger root = root();
    feed.setContext(root.getLoggerContext());
    feed.start();
    root.addAppender(feed);
    return feed;
  }

  private static Logger root() {
    return ((LoggerContext) LoggerFactory.getILoggerFactory())
        .getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
  }

  @Override
  protected void append(ILoggingEvent event) {
    Map<String, String> fields = new HashMap<>(event.getMDCPropertyMap());
    fields.put("thread", event.getThreadName());
    if (event.getKeyValuePairs() != null) {
      for (KeyValuePair pair : event.getKeyValuePairs()) {
        fields.put(pair.key, String.valueOf(pair.value));
      }
    }
    if (event.getThrowableProxy() != null) {
      String trace = ThrowableProxyUtil.asString(event.getThrowableProxy());
      fields.put("exception", trace.substring(0, Math.min(trace.length(), EXCEPTION_CHARS_MAX)));
    }
    data.logged(
        event.getTimeStamp(),
        Log.Level.valueOf(event.getLevel().toString()),
        event.getLoggerName(),
        event.getFormattedMessage(),
        fields);
  }

  @Override
  public void close() {
    root().detachAppender(this);
    stop();
  }
}
