package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import java.util.Locale;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** Follows a training job until it ends: a bar on a terminal, a line now and then otherwise. */
final class TrainingProgress {

  private static final int POLL_MS = 250;
  private static final int LINE_EVERY_MS = 10_000;

  private TrainingProgress() {}

  /**
   * Returns the job once it has succeeded.
   *
   * @throws FlotillaException {@code FAILED} if it failed or was cancelled, with its reason
   */
  static JsonNode follow(Client client, String id) throws InterruptedException {
    boolean terminal = Terminal.attached();
    return terminal ? bar(client, id) : lines(client, id);
  }

  private static JsonNode bar(Client client, String id) throws InterruptedException {
    JsonNode job = client.get("/api/training/" + id);
    try (ProgressBar bar =
        new ProgressBarBuilder()
            .setTaskName("training")
            .setInitialMax(Math.max(1, job.path("steps").asLong()))
            .setStyle(ProgressBarStyle.UNICODE_BLOCK)
            .setUpdateIntervalMillis(POLL_MS)
            .setUnit(" steps", 1)
            .build()) {
      while (!ended(job)) {
        bar.maxHint(Math.max(1, job.path("steps").asLong()));
        JsonNode last = last(job);
        bar.stepTo(last.path("step").asLong());
        bar.setExtraMessage(last.isMissingNode() ? job.path("state").asText() : describe(last));
        Thread.sleep(POLL_MS);
        job = client.get("/api/training/" + id);
      }
      bar.stepTo(last(job).path("step").asLong());
    }
    return succeeded(job);
  }

  private static JsonNode lines(Client client, String id) throws InterruptedException {
    long printedAt = System.nanoTime() - LINE_EVERY_MS * 1_000_000L;
    int printedStep = -1;
    while (true) {
      JsonNode job = client.get("/api/training/" + id);
      JsonNode last = last(job);
      int step = last.path("step").asInt(-1);
      boolean due = System.nanoTime() - printedAt >= LINE_EVERY_MS * 1_000_000L;
      if (step > printedStep && (due || ended(job))) {
        System.err.printf(
            "  training: step %d of %d, %s%n", step, job.path("steps").asInt(), describe(last));
        printedAt = System.nanoTime();
        printedStep = step;
      }
      if (ended(job)) {
        return succeeded(job);
      }
      Thread.sleep(POLL_MS);
    }
  }

  private static boolean ended(JsonNode job) {
    return switch (job.path("state").asText()) {
      case "succeeded", "failed", "cancelled" -> true;
      default -> false;
    };
  }

  private static JsonNode succeeded(JsonNode job) {
    if (!job.path("state").asText().equals("succeeded")) {
      throw new FlotillaException(
          FlotillaException.Code.FAILED,
          "training " + job.path("state").asText() + ": " + job.path("reason").asText(),
          "");
    }
    return job;
  }

  private static JsonNode last(JsonNode job) {
    JsonNode curve = job.path("curve");
    return curve.path(curve.size() - 1);
  }

  private static String describe(JsonNode point) {
    return String.format(
        Locale.ROOT,
        "loss %.3f, %,.0f tokens/s",
        point.path("loss").asDouble(),
        point.path("tokens_per_second").asDouble());
  }
}
