package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jspecify.annotations.Nullable;

/**
 * Shows how far a model is on its way: a bar for each file on a terminal, plain lines otherwise.
 */
final class PullProgress implements AutoCloseable {

  private static final long LINE_EVERY_NS = 10_000_000_000L;
  private static final long MEBI = 1L << 20;

  private final boolean terminal;
  private String doing = "";
  private long printedNs;
  private @Nullable ProgressBar bar;
  private JsonNode last = MissingNode.getInstance();

  private PullProgress(boolean terminal) {
    this.terminal = terminal;
  }

  static PullProgress start() {
    return new PullProgress(Terminal.attached());
  }

  /** The last event, which is what came of it. */
  JsonNode result() {
    return last;
  }

  void take(JsonNode event) {
    last = event;
    if (!event.has("doing")) {
      return;
    }
    String now = event.path("doing").asText();
    long bytes = event.path("bytes").asLong();
    long total = event.path("total_bytes").asLong();
    boolean changed = !now.equals(doing);
    doing = now;
    if (terminal) {
      draw(changed, bytes, total);
    } else if (changed || System.nanoTime() - printedNs > LINE_EVERY_NS) {
      printedNs = System.nanoTime();
      System.err.println(
          "  "
              + doing
              + (bytes == 0
                  ? ""
                  : ": " + bytes / MEBI + (total == 0 ? "" : " of " + total / MEBI) + " MiB"));
    }
  }

  private void draw(boolean changed, long bytes, long total) {
    if (changed) {
      close();
      bar =
          new ProgressBarBuilder()
              .setTaskName(doing)
              .setInitialMax(total == 0 ? -1 : total)
              .setStyle(ProgressBarStyle.UNICODE_BLOCK)
              .setUnit(" MiB", MEBI)
              .showSpeed()
              .build();
    }
    ProgressBar drawn = bar;
    if (drawn != null) {
      drawn.maxHint(total == 0 ? -1 : total);
      drawn.stepTo(bytes);
    }
  }

  @Override
  public void close() {
    if (bar != null) {
      bar.close();
      bar = null;
    }
  }
}
