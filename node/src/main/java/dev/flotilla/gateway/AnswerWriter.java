package dev.flotilla.gateway;

/** Writes the events of one answer, in the form that its endpoint has for them. */
interface AnswerWriter extends ChoiceListener {

  /** A choice begins. */
  void open(int choice);

  /** All choices have ended; the last thing to be written. */
  void close(int promptTokens, int completionTokens);

  /** It cannot go on here; the last thing to be written. Who comes back can go on with it. */
  void failed(ApiError error);
}
