package dev.flotilla.serve;

import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import java.nio.file.Path;

/** to be filled in when model lands. */
final class GgufFormat implements ModelFormat {
  @Override
  public Layout read(Path file, long fileBytes) {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean needed(Layout layout, String tensor, LayerRange layers) {
    throw new UnsupportedOperationException();
  }

  @Override
  public LayerSlice load(Path header, Locations locations, LayerRange layers, int cachePositions) {
    throw new UnsupportedOperationException();
  }
}
