package dev.flotilla.gateway;

import java.util.Optional;

/** Adds models to the cluster and takes them away. */
public interface ModelImports {

  /**
   * Adds a model; returns when it is in the registry.
   *
   * @param source a path on this node
   * @param quantize the weight type to store it in; without one a folder becomes Q8_0, and a GGUF
   *     file stays as it is
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, {@code BAD_FILE}, {@code INVALID} for
   *     a type that is unknown, {@code CONFLICT} if another model has the name, {@code STORAGE}
   */
  void add(String name, String source, Optional<String> quantize);

  /**
   * Takes a model away.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, {@code CONFLICT} while it is deployed
   */
  void remove(String name);
}
