package dev.flotilla.gateway;

import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Which bytes of a content a request's {@code Range} asks for (RFC 9110, section 14). One range is
 * served; several, or what is not understood, may be ignored by a server, and is.
 */
record ByteRange(long first, long length) {

  private static final Pattern ONE = Pattern.compile("bytes=\\s*(\\d{0,18})-(\\d{0,18})\\s*");

  /** No byte asked for is there. */
  static final ByteRange NONE = new ByteRange(0, 0);

  /** Empty if the whole is to be sent, {@link #NONE} if nothing can be. */
  static Optional<ByteRange> of(String header, long size) {
    Matcher range = ONE.matcher(header);
    if (!range.matches() || (range.group(1).isEmpty() && range.group(2).isEmpty())) {
      return Optional.empty();
    }
    if (range.group(1).isEmpty()) {
      long last = Math.min(size, Long.parseLong(range.group(2)));
      return Optional.of(last == 0 ? NONE : new ByteRange(size - last, last));
    }
    long first = Long.parseLong(range.group(1));
    long end = range.group(2).isEmpty() ? Long.MAX_VALUE - 1 : Long.parseLong(range.group(2));
    if (end < first) {
      return Optional.empty();
    }
    return Optional.of(
        first >= size ? NONE : new ByteRange(first, Math.min(end + 1, size) - first));
  }
}
