package dev.flotilla.cluster;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Which versions of the program form a cluster: those of one major version whose minor versions are
 * at most one apart, so that a cluster can be upgraded node by node.
 */
public final class Versions {

  private static final Pattern FORM = Pattern.compile("([0-9]{1,6})\\.([0-9]{1,6})\\.[0-9]{1,6}");

  private Versions() {}

  /**
   * Whether nodes of the two talk to each other.
   *
   * @param a {@code MAJOR.MINOR.PATCH}; what is not so is only itself's
   */
  public static boolean adjacent(String a, String b) {
    Matcher first = FORM.matcher(a);
    Matcher second = FORM.matcher(b);
    if (!first.matches() || !second.matches()) {
      return a.equals(b);
    }
    return first.group(1).equals(second.group(1))
        && Math.abs(Integer.parseInt(first.group(2)) - Integer.parseInt(second.group(2))) <= 1;
  }

  /** The rule, for people. */
  static String rule(String mine) {
    return "Nodes of one cluster are of one major version, and at most one minor version apart;"
        + " install one that fits version "
        + mine
        + ".";
  }
}
