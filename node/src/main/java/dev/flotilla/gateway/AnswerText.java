package dev.flotilla.gateway;

import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.text.StreamDecoder;
import java.util.List;

/** One choice's text, from its tokens: decoded, and ended at a stop string. */
final class AnswerText {

  private final StreamDecoder decoder;
  private final StopFilter filter;
  private int tokens;
  private String finishReason = "";

  AnswerText(StreamDecoder decoder, List<String> stops) {
    this.decoder = decoder;
    this.filter = new StopFilter(stops);
  }

  /** Takes a token; returns the text that can be delivered now. Ends the text at a stop string. */
  String token(int token) {
    if (ended()) {
      return "";
    }
    tokens++;
    String text = filter.push(decoder.next(token));
    if (filter.matched()) {
      finishReason = "stop";
    }
    return text;
  }

  /** The generation has ended; returns the text that was held back. */
  String finish(FinishReason reason) {
    String text = filter.push(decoder.end());
    if (filter.matched()) {
      finishReason = "stop";
      return text;
    }
    finishReason = reason == FinishReason.LENGTH ? "length" : "stop";
    return text + filter.end();
  }

  boolean ended() {
    return !finishReason.isEmpty();
  }

  /** OpenAI's {@code finish_reason}; empty while it goes on. */
  String finishReason() {
    return finishReason;
  }

  /** Tokens generated so far, those of a stop string included. */
  int tokens() {
    return tokens;
  }
}
