package dev.flotilla.text;

/**
 * What one rendering may cost. Templates come with model files from anywhere, so a loop without end
 * or a string without bound must end here rather than take the node down.
 */
final class JinjaBudget {

  private static final long STEPS_MAX = 5_000_000;
  private static final long CHARACTERS_MAX = 128L << 20;
  private static final int TEXT_LENGTH_MAX = 16 << 20;
  private static final int DEPTH_MAX = 800;

  private long steps;
  private long characters;
  private int depth;

  /** Counts work that is not of characters: nodes evaluated, elements of lists. */
  void steps(long count) {
    steps += count;
    if (steps > STEPS_MAX) {
      throw TemplateException.limit("steps");
    }
  }

  /** Counts characters read or written. */
  void characters(long count) {
    characters += count;
    if (characters > CHARACTERS_MAX) {
      throw TemplateException.limit("characters");
    }
  }

  /** Counts characters about to be added to a text of the given length. */
  void append(int length, long added) {
    characters(added);
    if (length + added > TEXT_LENGTH_MAX) {
      throw TemplateException.limit("the length of a text");
    }
  }

  void enter() {
    if (++depth > DEPTH_MAX) {
      throw TemplateException.limit("depth");
    }
  }

  void leave() {
    depth--;
  }
}
