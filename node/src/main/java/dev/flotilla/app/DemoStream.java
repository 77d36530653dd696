package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** One streamed answer as its client saw it: the text, and when each piece came. */
final class DemoStream {

  private final StringBuilder text = new StringBuilder();
  private final List<Long> arrivalsNs = new ArrayList<>();
  private final long begunNs = System.nanoTime();
  private long tokens;

  /**
   * Reads a stream to its end.
   *
   * @param onPiece told of each piece of text
   */
  static DemoStream read(
      Client client, String endpoint, Map<String, Object> body, Runnable onPiece) {
    Map<String, Object> streaming = new HashMap<>(body);
    streaming.put("stream", true);
    streaming.put("stream_options", Map.of("include_usage", true));
    DemoStream stream = new DemoStream();
    client.stream(endpoint, streaming, event -> stream.take(event, onPiece));
    return stream;
  }

  private void take(JsonNode event, Runnable onPiece) {
    if (event.path("usage").has("completion_tokens")) {
      tokens = event.path("usage").path("completion_tokens").asLong();
    }
    JsonNode choice = event.path("choices").path(0);
    String piece =
        choice.has("delta")
            ? choice.path("delta").path("content").asText()
            : choice.path("text").asText();
    if (!piece.isEmpty()) {
      text.append(piece);
      arrivalsNs.add(System.nanoTime());
      onPiece.run();
    }
  }

  String text() {
    return text.toString();
  }

  long tokens() {
    return tokens;
  }

  double firstTokenMs() {
    return (arrivalsNs.getFirst() - begunNs) / 1e6;
  }

  /** After the first token. */
  double tokensPerSecond() {
    return (tokens - 1) / ((arrivalsNs.getLast() - arrivalsNs.getFirst()) / 1e9);
  }

  /** The longest time between two pieces. */
  double longestGapMs() {
    long longest = 0;
    for (int i = 1; i < arrivalsNs.size(); i++) {
      longest = Math.max(longest, arrivalsNs.get(i) - arrivalsNs.get(i - 1));
    }
    return longest / 1e6;
  }
}
