package dev.flotilla;

import java.util.List;

/** Something that nobody would read: a slip of the pen that must not pass for a request. */
public final class UnknownFieldException extends FlotillaException {

  private static final long serialVersionUID = 1L;

  private final String field;
  private final transient List<String> known;

  /**
   * @param field with where it is, such as {@code steps[0].put.valeu}
   * @param known those that there are, with where they are
   */
  public UnknownFieldException(String field, List<String> known) {
    super(
        Code.INVALID,
        "there is no field '" + field + "' here",
        known.isEmpty() ? "This takes no fields." : "This takes " + String.join(", ", known) + ".");
    this.field = field;
    this.known = List.copyOf(known);
  }

  /** The same, seen from what it is in. */
  public UnknownFieldException in(String place) {
    return new UnknownFieldException(
        place + "." + field, known.stream().map(name -> place + "." + name).toList());
  }

  /** What it is called, and where. */
  public String field() {
    return field;
  }

  /** Those that there are. */
  public List<String> known() {
    return known;
  }
}
