package dev.flotilla.model;

/** A run of consecutive layers, both ends included. */
public record LayerRange(int first, int last) {

  public LayerRange {
    if (first < 0 || last < first) {
      throw new IllegalArgumentException("layers " + first + " to " + last);
    }
  }

  /** How many layers it has. */
  public int count() {
    return last - first + 1;
  }
}
