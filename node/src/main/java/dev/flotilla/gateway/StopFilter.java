package dev.flotilla.gateway;

import java.util.List;

/**
 * Ends a text at the first stop string, wherever the pieces in which it arrives are cut.
 *
 * <p>Text that may yet turn out to be the beginning of a stop string is held back until more text
 * decides it, so nothing of a stop string is ever delivered.
 */
final class StopFilter {

  private final List<String> stops;
  private final StringBuilder held = new StringBuilder();
  private boolean matched;

  /**
   * @param stops none of them empty
   */
  StopFilter(List<String> stops) {
    this.stops = stops;
  }

  /** Takes the next piece; returns what can be delivered now. */
  String push(String piece) {
    if (matched) {
      return "";
    }
    held.append(piece);
    int start = startOfFirstStop();
    if (start >= 0) {
      matched = true;
      String before = held.substring(0, start);
      held.setLength(0);
      return before;
    }
    int keep = longestPossibleBeginning();
    String ready = held.substring(0, held.length() - keep);
    held.delete(0, held.length() - keep);
    return ready;
  }

  /** The text ends here: returns what was held back. */
  String end() {
    String rest = held.toString();
    held.setLength(0);
    return rest;
  }

  /** Whether a stop string was found. */
  boolean matched() {
    return matched;
  }

  /**
   * Where the stop string begins that is complete first, of several the longest: as if the text had
   * come one character at a time, so that the pieces make no difference. Negative if there is none.
   */
  private int startOfFirstStop() {
    int start = -1;
    int end = Integer.MAX_VALUE;
    for (String stop : stops) {
      int at = held.indexOf(stop);
      if (at >= 0 && (at + stop.length() < end || (at + stop.length() == end && at < start))) {
        start = at;
        end = at + stop.length();
      }
    }
    return start;
  }

  /** The length of the longest end of the held text that begins some stop string. */
  private int longestPossibleBeginning() {
    int longest = 0;
    for (String stop : stops) {
      for (int length = Math.min(stop.length() - 1, held.length()); length > longest; length--) {
        if (stop.startsWith(held.substring(held.length() - length))) {
          longest = length;
        }
      }
    }
    return longest;
  }
}
