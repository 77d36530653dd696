package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;

/**
 * Long work with its progress as server-sent events: {@code {"doing","bytes","total_bytes"}} as it
 * goes, then the result, or {@code {"error":{…,"status"}}}, then {@code [DONE]}. A client that
 * leaves ends the work.
 */
final class ImportStream {

  private static final int PERIOD_MS = 250;
  private static final int KEEP_ALIVE_PERIODS = 20;

  private record At(String doing, long bytes, long totalBytes) {}

  private ImportStream() {}

  static void send(Exchange exchange, Function<ModelImports.Progress, ObjectNode> work) {
    AtomicReference<At> at = new AtomicReference<>(new At("starting", 0, 0));
    FutureTask<ObjectNode> task =
        new FutureTask<>(
            () -> work.apply((doing, bytes, total) -> at.set(new At(doing, bytes, total))));
    Thread worker = Thread.ofVirtual().name("import").start(task);
    try {
      follow(new EventStream(exchange), task, at);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      worker.interrupt();
    }
  }

  private static void follow(EventStream out, FutureTask<ObjectNode> task, AtomicReference<At> at)
      throws InterruptedException {
    At told = new At("", 0, 0);
    int silent = 0;
    while (true) {
      try {
        out.event(task.get(PERIOD_MS, TimeUnit.MILLISECONDS));
        break;
      } catch (TimeoutException goesOn) {
        At now = Objects.requireNonNull(at.get());
        if (!now.equals(told)) {
          told = now;
          silent = 0;
          out.event(
              Json.MAPPER
                  .createObjectNode()
                  .put("doing", now.doing())
                  .put("bytes", now.bytes())
                  .put("total_bytes", now.totalBytes()));
        } else if (++silent % KEEP_ALIVE_PERIODS == 0) {
          out.keepAlive();
        }
        out.flush();
      } catch (ExecutionException e) {
        out.event(error(e.getCause() == null ? e : e.getCause()));
        break;
      }
    }
    out.done();
    out.end();
  }

  private static ObjectNode error(Throwable cause) {
    ApiError error =
        switch (cause) {
          case ApiError known -> known;
          case FlotillaException known -> ApiError.of(known);
          default ->
              ApiError.of(
                  500, "internal_error", "This is a fault of the server; its log says more.");
        };
    ObjectNode body = error.body();
    ((ObjectNode) body.get("error")).put("status", error.status());
    return body;
  }
}
