package dev.flotilla.data.search;

import java.util.List;

/** The search indexes of a cluster. */
public interface SearchIndexes {

  /**
   * The index of this name, which need not exist yet.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} for a name that is none
   */
  SearchIndex index(String name);

  /** Those that exist, by name. */
  List<String> names();
}
