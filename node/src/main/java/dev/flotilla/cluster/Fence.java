package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Names;

/**
 * Proof of having been given a lock, for a resource to check: of two holders, the later one has the
 * greater token. A resource refuses a token below the highest that it has seen for that lock, so a
 * holder that was paused past its lease can do no harm.
 *
 * @param token the Raft index of the commit that gave the lock, at least 1
 */
public record Fence(String lock, long token) {

  /** Checks what a caller sent. */
  public Fence {
    Names.check("a lock", lock);
    if (token < 1) {
      throw new FlotillaException(
          Code.INVALID,
          "token " + token + " of lock " + lock + " is out of range",
          "It is the number that the lock's acquire gave, at least 1.");
    }
  }

  /** The refusal of a token that is not good any more. */
  public static FlotillaException stale(String resource, Fence fence) {
    return new FlotillaException(
        Code.CONFLICT,
        resource + ": stale token " + fence.token() + " of lock " + fence.lock(),
        "The lock was lost to another holder or expired, and nothing was written; acquire it"
            + " again.");
  }
}
