package dev.flotilla.serve;

import dev.flotilla.serve.Generator.FinishReason;

/**
 * An answer that runs on this node, and of which another node has a copy. What comes of its
 * generations is told here, by one thread at a time for each choice.
 */
public interface Kept extends AutoCloseable {

  /** All that there is of it now. */
  AnswerValue value();

  /** The next token of a choice. */
  void token(int choice, int token);

  /** A choice has ended. */
  void ended(int choice, FinishReason reason);

  /**
   * Waits until another node knows of it, or nobody is there to keep a copy.
   *
   * @return whether that was in time
   */
  boolean awaitCopy(long timeoutNs) throws InterruptedException;

  /** It will not be gone on with: forgets it, and so does whoever has a copy. */
  void forget();

  /**
   * Nobody reads it any more. It stays for {@link KeptAnswers#RETENTION_NS}, so that it can be
   * taken.
   */
  @Override
  void close();
}
