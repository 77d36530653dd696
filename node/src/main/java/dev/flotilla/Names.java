package dev.flotilla;

import dev.flotilla.FlotillaException.Code;
import java.util.regex.Pattern;

/** What people may call things: one rule for all that the cluster keeps by name. */
public final class Names {

  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");
  private static final int SHOWN_MAX = 64;

  private Names() {}

  /** What {@link #check} lets pass. */
  public static boolean fits(String name) {
    return NAME.matcher(name).matches();
  }

  /**
   * Lets a name pass that is 1 to 128 letters, digits, dots, dashes or underscores, the first a
   * letter or digit.
   *
   * @param what of what it is the name, for the error, such as {@code "a queue"}
   * @return the name
   * @throws FlotillaException {@code INVALID} for any other
   */
  public static String check(String what, String name) {
    if (!fits(name)) {
      throw new FlotillaException(
          Code.INVALID,
          what
              + " cannot be called '"
              + (name.length() > SHOWN_MAX ? name.substring(0, SHOWN_MAX) + "…" : name)
              + "'",
          "Use 1 to 128 letters, digits, dots, dashes or underscores, the first a letter or"
              + " digit.");
    }
    return name;
  }
}
