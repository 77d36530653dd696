package dev.flotilla.gateway;

import java.util.Optional;

/** Adds models to the cluster and takes them away. */
public interface ModelImports {

  /** Hears how far it is. */
  interface Progress {

    /**
     * @param what is being done, such as {@code "downloading model.gguf"}
     * @param bytes done, of {@code totalBytes}; both 0 where that is not known
     */
    void at(String what, long bytes, long totalBytes);
  }

  /**
   * Adds a model; returns when it is in the registry. Ends early when its thread is interrupted;
   * what was fetched is gone on with next time.
   *
   * @param source a path on this node, an http(s) address of a GGUF file, or {@code
   *     OWNER/NAME[:VARIANT][@REVISION]} on the Hugging Face hub
   * @param quantize the weight type to store it in; without one a folder becomes Q8_0, and a GGUF
   *     file stays as it is
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, {@code BAD_FILE}, {@code INVALID} for
   *     a type that is unknown, {@code CONFLICT} if another model has the name, {@code UNAVAILABLE}
   *     if the source does not deliver, {@code UNAUTHENTICATED} if it wants a token, {@code
   *     STORAGE}
   */
  void add(String name, String source, Optional<String> quantize, Progress progress);

  /**
   * Takes a model away.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, {@code CONFLICT} while it is deployed
   */
  void remove(String name);
}
