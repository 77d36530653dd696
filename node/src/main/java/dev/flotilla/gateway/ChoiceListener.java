package dev.flotilla.gateway;

/** Hears how the choices of an answer go on. */
interface ChoiceListener {

  /** A token came, and this text can be delivered now; it may be empty. */
  void text(int choice, String piece);

  /**
   * A choice has ended.
   *
   * @param rest its text that was held back
   * @param finishReason OpenAI's
   */
  void end(int choice, String rest, String finishReason);
}
