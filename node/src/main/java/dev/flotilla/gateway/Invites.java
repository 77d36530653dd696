package dev.flotilla.gateway;

/** Makes one-time join tokens. */
@FunctionalInterface
public interface Invites {

  /**
   * An invitation.
   *
   * @param token the one-time token
   * @param command what to type on the new machine
   */
  record Invite(String token, String command) {}

  /** A new token, valid once. */
  Invite invite();
}
