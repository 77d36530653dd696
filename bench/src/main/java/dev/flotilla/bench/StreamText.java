package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.Map;
import java.util.TreeMap;

/** What a client has of one stream of completions, and how it differs from what it should have. */
final class StreamText {

  /** How one text stands to another that it should equal. */
  enum Verdict {
    EQUAL,
    LOST,
    DOUBLED,
    DIFFERS
  }

  private final Map<Integer, StringBuilder> texts = new TreeMap<>();
  private final StringBuilder usage = new StringBuilder();

  /** Takes the next event. */
  void add(JsonNode event) {
    for (JsonNode choice : event.path("choices")) {
      StringBuilder text =
          texts.computeIfAbsent(choice.path("index").asInt(), index -> new StringBuilder());
      text.append(choice.path("text").asText());
      if (choice.path("finish_reason").isTextual()) {
        text.append('|').append(choice.path("finish_reason").asText());
      }
    }
    if (event.path("usage").isObject()) {
      usage.append(event.path("usage"));
    }
  }

  /** What this is beside what was to be; the worst of its choices. */
  Verdict beside(StreamText wanted) {
    Verdict worst =
        texts.keySet().equals(wanted.texts.keySet()) && usage.compareTo(wanted.usage) == 0
            ? Verdict.EQUAL
            : Verdict.DIFFERS;
    for (Map.Entry<Integer, StringBuilder> each : wanted.texts.entrySet()) {
      String text = texts.getOrDefault(each.getKey(), new StringBuilder()).toString();
      Verdict one = beside(text, each.getValue().toString());
      if (one != Verdict.EQUAL && (worst == Verdict.EQUAL || worst == Verdict.DIFFERS)) {
        worst = one;
      }
    }
    return worst;
  }

  /** A text with a gap, or with a piece twice, goes on as it should after it. */
  private static Verdict beside(String text, String wanted) {
    if (text.equals(wanted)) {
      return Verdict.EQUAL;
    }
    int same = 0;
    while (same < Math.min(text.length(), wanted.length())
        && text.charAt(same) == wanted.charAt(same)) {
      same++;
    }
    boolean goesOn =
        text.length() < wanted.length()
            ? wanted.endsWith(text.substring(same))
            : text.endsWith(wanted.substring(same));
    if (!goesOn) {
      return Verdict.DIFFERS;
    }
    return text.length() < wanted.length() ? Verdict.LOST : Verdict.DOUBLED;
  }

  @Override
  public String toString() {
    return texts + usage.toString();
  }
}
