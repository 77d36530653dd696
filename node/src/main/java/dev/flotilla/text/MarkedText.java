package dev.flotilla.text;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A string that remembers which of its characters came from a user. Equality is that of the
 * characters alone. Immutable.
 *
 * <p>The provenance is kept as the ascending positions where it changes, beginning with trusted:
 * {@code []} is trusted throughout, {@code [0]} is a user's throughout, {@code [3, 5]} holds two
 * characters of a user's.
 */
final class MarkedText implements Comparable<MarkedText> {

  private static final int[] NONE = {};
  private static final int[] ALL = {0};

  static final MarkedText EMPTY = new MarkedText("", NONE);

  private final String value;
  private final int[] changes;

  private MarkedText(String value, int[] changes) {
    this.value = value;
    this.changes = changes;
  }

  static MarkedText trusted(String value) {
    return value.isEmpty() ? EMPTY : new MarkedText(value, NONE);
  }

  static MarkedText fromUser(String value) {
    return value.isEmpty() ? EMPTY : new MarkedText(value, ALL);
  }

  static MarkedText of(List<Segment> segments) {
    Builder builder = new Builder();
    for (Segment segment : segments) {
      builder.append(segment.text(), segment.trusted());
    }
    return builder.build();
  }

  String value() {
    return value;
  }

  int length() {
    return value.length();
  }

  char charAt(int index) {
    return value.charAt(index);
  }

  boolean isEmpty() {
    return value.isEmpty();
  }

  boolean isTrusted() {
    return changes.length == 0;
  }

  /** Whether no character in {@code [from, to)} is a user's. */
  boolean isTrusted(int from, int to) {
    if (changes.length == 0 || from >= to) {
      return true;
    }
    int after = changesUpTo(from);
    return after % 2 == 0 && (after == changes.length || changes[after] >= to);
  }

  /** How many changes stand at or before the index. */
  private int changesUpTo(int index) {
    int found = Arrays.binarySearch(changes, index);
    return found >= 0 ? found + 1 : -found - 1;
  }

  MarkedText substring(int from, int to) {
    if (from >= to) {
      return EMPTY;
    }
    if (from == 0 && to == value.length()) {
      return this;
    }
    String part = value.substring(from, to);
    if (changes.length == 0) {
      return new MarkedText(part, NONE);
    }
    Builder builder = new Builder();
    builder.append(this, from, to);
    return builder.build();
  }

  /**
   * The same provenance for other characters, position by position if there are as many; otherwise
   * all are a user's if any was.
   */
  MarkedText withValue(String other) {
    if (changes.length == 0) {
      return trusted(other);
    }
    return other.length() == value.length() ? new MarkedText(other, changes) : fromUser(other);
  }

  /** The runs of one provenance each. */
  List<Segment> segments() {
    List<Segment> segments = new ArrayList<>();
    int from = 0;
    boolean trusted = true;
    for (int change : changes) {
      if (change > from) {
        segments.add(new Segment(value.substring(from, change), trusted));
      }
      from = change;
      trusted = !trusted;
    }
    if (from < value.length()) {
      segments.add(new Segment(value.substring(from), trusted));
    }
    return segments;
  }

  @Override
  public int compareTo(MarkedText other) {
    return value.compareTo(other.value);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof MarkedText text && text.value.equals(value);
  }

  @Override
  public int hashCode() {
    return value.hashCode();
  }

  @Override
  public String toString() {
    return value;
  }

  /** Puts marked text together. */
  static final class Builder {
    private final StringBuilder value = new StringBuilder();
    private int[] changes = new int[4];
    private int size;
    private final @Nullable JinjaBudget budget;

    Builder() {
      budget = null;
    }

    /** A builder that charges what it takes in. */
    Builder(JinjaBudget budget) {
      this.budget = budget;
    }

    private void charge(int length) {
      if (budget != null) {
        budget.append(value.length(), length);
      }
    }

    int length() {
      return value.length();
    }

    Builder append(String text, boolean trusted) {
      if (!text.isEmpty()) {
        charge(text.length());
        mark(trusted);
        value.append(text);
      }
      return this;
    }

    /** Trusted characters. */
    Builder append(String text) {
      return append(text, true);
    }

    Builder append(MarkedText text) {
      return append(text, 0, text.length());
    }

    Builder append(MarkedText text, int from, int to) {
      if (from >= to) {
        return this;
      }
      charge(to - from);
      int change = text.changesUpTo(from);
      int at = from;
      while (at < to) {
        mark(change % 2 == 0);
        int end = change < text.changes.length ? Math.min(text.changes[change], to) : to;
        value.append(text.value, at, end);
        at = end;
        change++;
      }
      return this;
    }

    private void mark(boolean trusted) {
      if ((size % 2 == 0) != trusted) {
        if (size == changes.length) {
          changes = Arrays.copyOf(changes, size * 2);
        }
        changes[size++] = value.length();
      }
    }

    MarkedText build() {
      return value.isEmpty()
          ? EMPTY
          : new MarkedText(value.toString(), size == 0 ? NONE : Arrays.copyOf(changes, size));
    }
  }
}
