package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.regex.Pattern;

/** Which names buckets, and blobs in them, may have. */
final class BlobNames {

  private static final int NAME_MAX = 512;
  private static final Pattern PART = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");

  private BlobNames() {}

  static void bucket(String bucket) {
    if (!PART.matcher(bucket).matches()) {
      throw invalid("bucket", bucket);
    }
  }

  static void name(String name) {
    if (name.length() > NAME_MAX) {
      throw invalid("name", name);
    }
    for (String part : name.split("/", -1)) {
      if (!PART.matcher(part).matches()) {
        throw invalid("name", name);
      }
    }
  }

  static void nameOrDigest(String name) {
    if (name.startsWith(BlobManifest.PREFIX)) {
      var _ = BlobManifest.hex(name);
    } else {
      name(name);
    }
  }

  private static FlotillaException invalid(String what, String name) {
    String shown = name.length() > 100 ? name.substring(0, 100) + "…" : name;
    return new FlotillaException(
        Code.INVALID,
        what + " '" + shown + "' is malformed",
        "It begins with a letter or digit, and goes on with up to 127 letters, digits, '.', '_' or"
            + " '-'"
            + (what.equals("name") ? "; a name may have several such parts, joined by '/'." : "."));
  }
}
