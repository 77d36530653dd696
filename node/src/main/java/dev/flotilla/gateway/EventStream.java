package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;

/** Server-sent events: gathers them, and writes them out together. */
final class EventStream {

  private final Exchange exchange;
  private final ByteArrayOutputStream gathered = new ByteArrayOutputStream();

  private boolean started;

  /** Sends nothing yet, so that an error can still have its own status. */
  EventStream(Exchange exchange) {
    this.exchange = exchange;
  }

  /**
   * An event.
   *
   * @param lines before its data, such as {@code id: …} or {@code event: …}
   */
  void event(JsonNode data, String... lines) {
    for (String line : lines) {
      put(line + "\n");
    }
    put("data: ");
    gathered.writeBytes(Json.write(data));
    put("\n\n");
  }

  /** A line that clients ignore, which shows both sides that the other is still there. */
  void keepAlive() {
    put(": waiting for the next token\n\n");
  }

  void done() {
    put("data: [DONE]\n\n");
  }

  /** Whether there is nothing to be written. */
  boolean isEmpty() {
    return gathered.size() == 0;
  }

  void flush() {
    write(false);
  }

  void end() {
    write(true);
  }

  private void put(String text) {
    gathered.writeBytes(text.getBytes(StandardCharsets.UTF_8));
  }

  private void write(boolean last) {
    byte[] bytes = gathered.toByteArray();
    gathered.reset();
    if (last || bytes.length > 0) {
      if (!started) {
        started = true;
        exchange.startStream("text/event-stream; charset=utf-8");
      }
      exchange.write(last, bytes);
    }
  }
}
