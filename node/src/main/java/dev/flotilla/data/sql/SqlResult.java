package dev.flotilla.data.sql;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What a statement brought.
 *
 * @param rows of a query, each with one value per column: Boolean, Byte, Short, Integer, Long,
 *     Float, Double, BigDecimal, String, byte[], java.util.UUID, java.time.LocalDate, LocalTime,
 *     LocalDateTime, Duration, Period, or null
 * @param updated rows written; 0 for a query
 * @param truncated whether there were more rows than were asked for
 */
public record SqlResult(
    List<Column> columns, List<List<@Nullable Object>> rows, long updated, boolean truncated) {

  /**
   * A column.
   *
   * @param type in SQL, such as {@code BIGINT}
   */
  public record Column(String name, String type) {}
}
