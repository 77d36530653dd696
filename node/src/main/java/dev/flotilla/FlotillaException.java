package dev.flotilla;

/**
 * An error that the world caused, not a bug of ours: what was wrong and where, a code for programs,
 * and what to do about it. Bugs of ours are assertions and {@link IllegalStateException}.
 */
public class FlotillaException extends RuntimeException {

  private static final long serialVersionUID = 1L;

  /**
   * What kind of error it is; each maps to one HTTP status in the gateway and one exit code in the
   * commands.
   */
  public enum Code {
    /** The caller asked for something malformed or out of range. HTTP 400. */
    INVALID,
    /** No such key, or not one that may do this. HTTP 401. */
    UNAUTHENTICATED,
    /** What was named does not exist. HTTP 404. */
    NOT_FOUND,
    /** It exists already, or changed meanwhile. HTTP 409. */
    CONFLICT,
    /** More than is allowed. HTTP 413. */
    TOO_LARGE,
    /** No room now; try again later. HTTP 429. */
    BUSY,
    /** Starting, loading, draining, or a machine was lost; try again later. HTTP 503. */
    UNAVAILABLE,
    /** A majority of the cluster cannot be reached, so nothing was decided. HTTP 503. */
    NO_MAJORITY,
    /** It cannot be told whether it was done. HTTP 503. */
    OUTCOME_UNKNOWN,
    /** A file is not what it should be: cut short, damaged, or of an unknown kind. HTTP 400. */
    BAD_FILE,
    /** The disk is full or failed. HTTP 507. */
    STORAGE,
    /** Anything else. HTTP 500. */
    FAILED
  }

  private final Code code;
  private final String remedy;

  /**
   * @param message what was wrong, and where
   * @param remedy what to do about it, as one sentence; empty if the message says so already
   */
  public FlotillaException(Code code, String message, String remedy) {
    super(message);
    this.code = code;
    this.remedy = remedy;
  }

  /** As above, with the cause for the log. */
  public FlotillaException(Code code, String message, String remedy, Throwable cause) {
    super(message, cause);
    this.code = code;
    this.remedy = remedy;
  }

  /** What kind of error it is. */
  public Code code() {
    return code;
  }

  /** What to do about it; may be empty. */
  public String remedy() {
    return remedy;
  }

  /** Message and remedy as one line, for people. */
  public String explanation() {
    String message = String.valueOf(getMessage());
    boolean ended = message.endsWith(".") || message.endsWith("?") || message.endsWith("!");
    return remedy.isEmpty() ? message : message + (ended ? " " : ". ") + remedy;
  }
}
