package dev.flotilla.data.search;

/**
 * What a field of an index holds. Only {@link Type#TEXT} is analysed; all others are compared as
 * they are.
 *
 * @param analyzer of a text field; empty means the index's
 */
public record IndexField(Type type, String analyzer) {

  /** A field's type. In JSON in lower case. */
  public enum Type {
    /** Words, found by analysed words and ranked. */
    TEXT,
    /** A string compared as a whole, of at most 8,191 characters. */
    KEYWORD,
    /** A whole number of 64 bits. */
    LONG,
    /** A finite number. */
    DOUBLE,
    BOOLEAN,
    /** An instant in ISO 8601, such as {@code 2026-01-31T12:00:00Z}, or a day. */
    DATE
  }

  /** A field that is not analysed. */
  public IndexField(Type type) {
    this(type, "");
  }
}
