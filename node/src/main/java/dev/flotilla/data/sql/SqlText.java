package dev.flotilla.data.sql;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.function.IntUnaryOperator;

/**
 * A statement as the engine gets it, which remembers what the caller wrote, so that an error can
 * say where it is.
 *
 * @param text for the engine
 * @param origin where a character of the text came from, as an offset in what was written
 */
record SqlText(String text, String written, IntUnaryOperator origin) {

  /** Puts a text in the place of what stands from start to end. */
  record Edit(int start, int end, String with) {}

  static SqlText of(String statement) {
    return new SqlText(statement, statement, offset -> offset);
  }

  /** With these changes of places that do not overlap. */
  SqlText edited(List<Edit> edits) {
    if (edits.isEmpty()) {
      return this;
    }
    List<Edit> ordered = new ArrayList<>(edits);
    ordered.sort(Comparator.comparingInt(Edit::start));
    StringBuilder result = new StringBuilder();
    int at = 0;
    for (Edit edit : ordered) {
      result.append(text, at, edit.start()).append(edit.with());
      at = edit.end();
    }
    result.append(text, at, text.length());
    return new SqlText(
        result.toString(), written, offset -> origin.applyAsInt(before(ordered, offset)));
  }

  /** Where an offset behind the changes was before them; inside of one, its start. */
  private static int before(List<Edit> ordered, int offset) {
    int shift = 0;
    for (Edit edit : ordered) {
      int start = edit.start() + shift;
      if (offset < start) {
        break;
      }
      if (offset < start + edit.with().length()) {
        return edit.start();
      }
      shift += edit.with().length() - (edit.end() - edit.start());
    }
    return offset - shift;
  }

  /** {@code line 2, column 7} of what was written, for such a place of the text. */
  String place(int line, int column) {
    int offset = Math.min(written.length(), origin.applyAsInt(offset(text, line, column)));
    int lines = 1;
    int begin = 0;
    for (int i = 0; i < offset; i++) {
      if (written.charAt(i) == '\n') {
        lines++;
        begin = i + 1;
      }
    }
    return "line " + lines + ", column " + (offset - begin + 1);
  }

  /** The offset of a place that the engine's parser names; it counts from 1. */
  static int offset(String text, int line, int column) {
    int at = 0;
    for (int i = 1; i < line; i++) {
      at = text.indexOf('\n', at) + 1;
    }
    return at + column - 1;
  }
}
