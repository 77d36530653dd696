package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * One step of a schema's history.
 *
 * @param version grows from one to the next
 * @param script statements parted by semicolons; the engine has no transactions over DDL, so a
 *     failed one goes on from the statement that failed
 */
public record Migration(long version, String name, String script) {

  /**
   * One that has run.
   *
   * @param checksum SHA-256 of its script, line ends aside
   */
  public record Applied(long version, String name, String checksum, long appliedAtMs) {}

  private static final Pattern FILE = Pattern.compile("V([0-9]{1,18})__([A-Za-z0-9._-]+)\\.sql");

  /**
   * Those in files named {@code V1__name.sql}, by version.
   *
   * @param files text by name; others than these are refused
   */
  public static List<Migration> of(Map<String, String> files) {
    List<Migration> migrations = new ArrayList<>();
    files.forEach(
        (file, text) -> {
          Matcher matcher = FILE.matcher(file);
          if (!matcher.matches()) {
            throw new FlotillaException(
                Code.INVALID,
                "the file " + file + " is not named like a migration",
                "Name it V1__what_it_does.sql, with its own number.");
          }
          migrations.add(new Migration(Long.parseLong(matcher.group(1)), matcher.group(2), text));
        });
    migrations.sort(Comparator.comparingLong(Migration::version));
    return migrations;
  }

  /** SHA-256 of the script in hexadecimal; the same whatever its line ends are. */
  public String checksum() {
    try {
      byte[] text = script.replace("\r\n", "\n").strip().getBytes(StandardCharsets.UTF_8);
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(text));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
