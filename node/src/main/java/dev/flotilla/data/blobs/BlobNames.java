package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Names;

/** Which names buckets, and blobs in them, may have. */
final class BlobNames {

  private static final int NAME_MAX = 512;

  private BlobNames() {}

  static void bucket(String bucket) {
    Names.check("a bucket", bucket);
  }

  static void name(String name) {
    if (name.length() > NAME_MAX) {
      throw new FlotillaException(
          Code.INVALID,
          "a blob's name has " + name.length() + " characters",
          "It may have " + NAME_MAX + ".");
    }
    for (String part : name.split("/", -1)) {
      Names.check("a part between the slashes of a blob's name", part);
    }
  }

  static void nameOrDigest(String name) {
    if (name.startsWith(BlobManifest.PREFIX)) {
      var _ = BlobManifest.hex(name);
    } else {
      name(name);
    }
  }
}
