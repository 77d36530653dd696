package dev.flotilla.gateway;

import java.time.DateTimeException;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;

/** Times as requests give them. */
final class Times {

  private Times() {}

  /** Milliseconds since 1970, of such a number, a time, or a day (its beginning, UTC). */
  static long parse(String name, String text) {
    try {
      if (text.matches("\\d{1,15}")) {
        return Long.parseLong(text);
      }
      return text.contains("T")
          ? Instant.parse(text).toEpochMilli()
          : LocalDate.parse(text).atStartOfDay(ZoneOffset.UTC).toInstant().toEpochMilli();
    } catch (DateTimeException | ArithmeticException e) {
      throw ApiError.invalid(
          name,
          name + " must be milliseconds since 1970, or like 2026-11-24 or 2026-11-24T10:00:00Z.");
    }
  }
}
