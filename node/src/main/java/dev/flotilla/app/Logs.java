package dev.flotilla.app;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.encoder.PatternLayoutEncoder;
import ch.qos.logback.classic.spi.Configurator;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.rolling.FixedWindowRollingPolicy;
import ch.qos.logback.core.rolling.RollingFileAppender;
import ch.qos.logback.core.rolling.SizeBasedTriggeringPolicy;
import ch.qos.logback.core.spi.ContextAwareBase;
import ch.qos.logback.core.util.FileSize;
import java.util.Map;

/**
 * Where log lines go: a node's to {@code DIR/logs/node.log}, which rolls over by size; any other
 * command's nowhere, for what it has to say it prints. Logback finds this class through its service
 * file; a configuration named by its own property, {@code logback.configurationFile}, such as the
 * tests' {@code logback-test.xml} to look into one that fails, goes before.
 */
public final class Logs extends ContextAwareBase implements Configurator {

  /** The system property that names the folder. */
  static final String FOLDER = "flotilla.logs";

  private static final String FILE_SIZE = "20MB";
  private static final int FILES_KEPT = 5;

  /** The libraries that log more than an operator wants to read. */
  private static final Map<String, Level> QUIETER =
      Map.of(
          "org.apache.ratis", Level.ERROR,
          "org.apache.ignite", Level.ERROR,
          // What a change of the topology waits for, when it waits for long.
          "org.apache.ignite.internal.diagnostic", Level.WARN,
          "org.apache.lucene", Level.WARN,
          "io.grpc", Level.WARN,
          "io.netty", Level.WARN,
          "org.eclipse.jetty", Level.WARN,
          "ai.djl", Level.WARN);

  @Override
  public ExecutionStatus configure(LoggerContext context) {
    if (System.getProperty("logback.configurationFile") != null) {
      return ExecutionStatus.INVOKE_NEXT_IF_ANY;
    }
    var root = context.getLogger(org.slf4j.Logger.ROOT_LOGGER_NAME);
    String folder = System.getProperty(FOLDER);
    if (folder == null) {
      root.setLevel(Level.OFF);
      return ExecutionStatus.DO_NOT_INVOKE_NEXT_IF_ANY;
    }
    PatternLayoutEncoder encoder = new PatternLayoutEncoder();
    encoder.setContext(context);
    encoder.setPattern("%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %-5level %logger{0} %msg%n");
    encoder.start();

    RollingFileAppender<ILoggingEvent> file = new RollingFileAppender<>();
    file.setContext(context);
    file.setFile(folder + "/node.log");
    file.setEncoder(encoder);

    FixedWindowRollingPolicy rolling = new FixedWindowRollingPolicy();
    rolling.setContext(context);
    rolling.setParent(file);
    rolling.setFileNamePattern(folder + "/node.%i.log.gz");
    rolling.setMinIndex(1);
    rolling.setMaxIndex(FILES_KEPT);
    rolling.start();
    SizeBasedTriggeringPolicy<ILoggingEvent> trigger = new SizeBasedTriggeringPolicy<>();
    trigger.setContext(context);
    trigger.setMaxFileSize(FileSize.valueOf(FILE_SIZE));
    trigger.start();

    file.setRollingPolicy(rolling);
    file.setTriggeringPolicy(trigger);
    file.start();
    root.setLevel(Level.INFO);
    root.addAppender(file);
    QUIETER.forEach((name, level) -> context.getLogger(name).setLevel(level));
    return ExecutionStatus.DO_NOT_INVOKE_NEXT_IF_ANY;
  }
}
