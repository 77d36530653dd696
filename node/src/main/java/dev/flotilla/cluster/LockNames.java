package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.regex.Pattern;

/** What names of locks and holders may look like. */
final class LockNames {

  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");
  private static final int HOLDER_CHARACTERS_MAX = 256;

  private LockNames() {}

  static void check(String what, String name) {
    if (!NAME.matcher(name).matches()) {
      throw new FlotillaException(
          Code.INVALID,
          what
              + " must be 1 to 128 letters, digits, dots, dashes or underscores, and begin with a"
              + " letter or digit",
          "Choose another name.");
    }
  }

  static void checkHolder(String holder) {
    if (holder.isBlank()
        || holder.length() > HOLDER_CHARACTERS_MAX
        || holder.chars().anyMatch(Character::isISOControl)) {
      throw new FlotillaException(
          Code.INVALID,
          "a lock's holder must be 1 to " + HOLDER_CHARACTERS_MAX + " printable characters",
          "Name the process and thread that holds it, such as host-1/4711/1.");
    }
  }
}
