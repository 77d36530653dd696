package dev.flotilla.serve;

import dev.flotilla.FlotillaException;

/** Continues token lists with a deployed model. */
public interface Generator {

  /** Why a generation ended. */
  enum FinishReason {
    /** An end token was drawn. */
    STOP,
    /** {@code maxTokens} or the context's end was reached. */
    LENGTH,
    /** The caller cancelled it. */
    CANCELLED
  }

  /**
   * Receives one generation's tokens, in order, each once, on one thread at a time. Must not block
   * for long.
   */
  interface Sink {

    /** The next token. */
    void token(int token);

    /** The end; nothing follows. */
    void finished(FinishReason reason);

    /** The end, because it cannot go on; nothing follows. */
    void failed(FlotillaException error);
  }

  /** A running generation. */
  interface Generation {

    /**
     * Stops it within one step and frees what it held; the sink then hears {@link
     * FinishReason#CANCELLED}.
     */
    void cancel();
  }

  /**
   * Starts a generation, and keeps it going when machines are lost.
   *
   * @throws FlotillaException {@code NOT_FOUND} for an unknown model, {@code INVALID} if the prompt
   *     does not fit the context, {@code UNAVAILABLE} if no replica is ready, {@code BUSY} if the
   *     queue is full
   */
  default Generation start(GenerationRequest request, Sink sink) {
    return resume(request, new int[0], sink);
  }

  /**
   * Goes on with a generation that was begun elsewhere; the sink hears what follows.
   *
   * @param generated what there is of it: the same tokens follow as if it had never stopped
   * @throws FlotillaException as {@link #start}
   */
  Generation resume(GenerationRequest request, int[] generated, Sink sink);
}
