package dev.flotilla.serve;

import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** What the store needs to know of a model file's format. */
interface ModelFormat {

  /**
   * A file's header.
   *
   * @param headerBytes everything before the first tensor's data
   * @param tensors in the order of the file
   */
  record Layout(
      ModelConfig config, Map<String, Object> metadata, long headerBytes, List<Tensor> tensors) {}

  /**
   * Where a tensor's data lies.
   *
   * @param offset from the start of the file
   */
  record Tensor(String name, long offset, long bytes) {}

  /** Where the data of a tensor can be read: a file, and an offset in it. */
  @FunctionalInterface
  interface Locations {
    Location of(String tensor);
  }

  record Location(Path file, long offset, long bytes) {}

  /**
   * Reads and checks a header completely.
   *
   * @param file the whole file, or at least its header
   * @param fileBytes size of the whole file
   * @throws dev.flotilla.FlotillaException {@code BAD_FILE} if it is no such file or is cut
   */
  Layout read(Path file, long fileBytes);

  /** Whether a stage with these layers needs a tensor. */
  boolean needed(Layout layout, String tensor, LayerRange layers);

  /** Loads the layers, from the tensors that {@link #needed} names. */
  LayerSlice load(Path header, Locations locations, LayerRange layers, int cachePositions);
}
