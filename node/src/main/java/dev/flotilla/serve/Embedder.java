package dev.flotilla.serve;

import dev.flotilla.FlotillaException;

/** Embeds token lists with a deployed model. */
public interface Embedder {

  /** Receives an embedding or an error, once. Must not block for long. */
  interface Sink {

    /** {@code [width]}, of length 1. */
    void embedded(float[] vector);

    /** It cannot be had. */
    void failed(FlotillaException error);
  }

  /**
   * Starts to compute an embedding, and sees to it when machines are lost. Returns at once; those
   * that run at the same time share the steps of a replica.
   *
   * @return stops it; its sink then hears nothing more
   * @throws FlotillaException {@code NOT_FOUND} for a model that is not deployed, {@code INVALID}
   *     if the tokens are not the model's or do not fit its context. The sink may hear {@code
   *     UNAVAILABLE} if no replica is ready, and {@code BUSY} if all queues are full
   */
  Runnable embed(EmbeddingRequest request, Sink sink);
}
