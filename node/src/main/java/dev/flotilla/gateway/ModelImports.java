package dev.flotilla.gateway;

/** Adds models to the cluster and takes them away. */
public interface ModelImports {

  /**
   * Adds a model; returns when it is in the registry.
   *
   * @param source a path on this node
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, {@code BAD_FILE}, {@code CONFLICT} if
   *     another model has the name, {@code STORAGE}
   */
  void add(String name, String source);

  /**
   * Takes a model away.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}, {@code CONFLICT} while it is deployed
   */
  void remove(String name);
}
