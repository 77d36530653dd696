package dev.flotilla.text;

import dev.flotilla.FlotillaException;

/** A chat template that cannot be parsed or rendered; kinds and messages are those of Jinja2. */
final class TemplateException extends FlotillaException {

  private static final long serialVersionUID = 1L;

  /**
   * @param kind the name of Jinja2's or Python's exception
   */
  TemplateException(String kind, String message) {
    this(kind, message, "The model's chat template does not take this request.");
  }

  private TemplateException(String kind, String message, String remedy) {
    super(Code.INVALID, kind + ": " + message, remedy);
  }

  static TemplateException syntax(String message, int line) {
    return new TemplateException(
        "TemplateSyntaxError", message, "See line " + line + " of the chat template.");
  }

  static TemplateException type(String message) {
    return new TemplateException("TypeError", message);
  }

  static TemplateException limit(String what) {
    return new TemplateException("LimitError", "the template exceeds its bound on " + what);
  }
}
