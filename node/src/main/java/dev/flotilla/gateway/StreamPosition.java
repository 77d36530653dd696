package dev.flotilla.gateway;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Where a client is in a stream, as the {@code id} of each event says. Choices come interleaved as
 * they are computed, another time otherwise; so it says of each choice how far the client is.
 *
 * <p>A choice is steps: its opening, each of its tokens, what its text held back till the end, and
 * its closing. Steps without anything to show count, too, so that they follow from the tokens
 * alone.
 *
 * @param answer its id
 * @param steps of each choice, those that the client has
 * @param usage whether it has the figures that come after the last choice
 */
record StreamPosition(String answer, List<Integer> steps, boolean usage) {

  /** The event's header, by which a client says where it is. */
  static final String HEADER = "Last-Event-ID";

  /** A choice's steps beside its tokens. */
  static final int STEPS_BESIDE_TOKENS = 3;

  private static final Pattern TEXT =
      Pattern.compile("([A-Za-z0-9_-]{1,100}):([0-9]{1,9}(?:\\.[0-9]{1,9}){0,255})(\\+?)");

  /** Before its first event. */
  static StreamPosition start(String answer, int choices) {
    return new StreamPosition(answer, Collections.nCopies(choices, 0), false);
  }

  /**
   * What a client sends back.
   *
   * @throws ApiError 400 if it is nothing that we sent
   */
  static StreamPosition parse(String text) {
    Matcher matcher = TEXT.matcher(text);
    if (!matcher.matches()) {
      throw invalid("it is not the id of an event of ours");
    }
    return new StreamPosition(
        matcher.group(1),
        Arrays.stream(matcher.group(2).split("\\.")).map(Integer::valueOf).toList(),
        !matcher.group(3).isEmpty());
  }

  /** 400: it cannot be. */
  static ApiError invalid(String why) {
    return new ApiError(
        400,
        "invalid_last_event_id",
        Optional.of(HEADER),
        HEADER
            + " does not fit: "
            + why
            + ". Send the id of the last event that came, or none to begin anew.");
  }

  /** As in an event's {@code id}. */
  String text() {
    return answer
        + ":"
        + steps.stream().map(String::valueOf).collect(Collectors.joining("."))
        + (usage ? "+" : "");
  }
}
