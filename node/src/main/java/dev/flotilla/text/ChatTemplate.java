package dev.flotilla.text;

import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.Sequence;
import java.time.ZonedDateTime;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A model's chat template: Jinja2 as Hugging Face sets it up, interpreted without reflection and
 * within bounds on steps, characters and depth, for templates come from anywhere.
 *
 * <p>What it renders remembers which characters came from the caller's strings, through every
 * operation of the template, so that a special token that a user types stays text.
 *
 * <p>Immutable and safe on all threads.
 */
public final class ChatTemplate {

  /** Written into the tokens that a template builds from them, as in {@code '<|' + role + '|>'}. */
  private static final Set<String> ROLES =
      Set.of(
          "system",
          "user",
          "assistant",
          "tool",
          "developer",
          "function",
          "model",
          "ipython",
          "documents",
          "context",
          "tool_response",
          "observation");

  private final List<JinjaNode.Statement> body;

  private ChatTemplate(List<JinjaNode.Statement> body) {
    this.body = body;
  }

  /**
   * Parses a template.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if it is malformed
   */
  public static ChatTemplate parse(String source) {
    return new ChatTemplate(JinjaParser.parse(source));
  }

  /**
   * Renders a conversation.
   *
   * @param variables from the caller, such as {@code messages} and {@code tools}: strings, numbers,
   *     booleans, lists, maps and null
   * @param trusted from the model, such as {@code bos_token}
   * @param now what {@code strftime_now} tells
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the template raises an error or
   *     exceeds its bounds
   */
  public List<Segment> render(
      Map<String, ?> variables, Map<String, String> trusted, ZonedDateTime now) {
    return renderMarked(variables, trusted, now).segments();
  }

  MarkedText renderMarked(
      Map<String, ?> variables, Map<String, String> trusted, ZonedDateTime now) {
    Map<String, Object> values = new HashMap<>();
    variables.forEach((name, value) -> values.put(name, PythonValue.fromJava(value)));
    trusted.forEach((name, value) -> values.put(name, MarkedText.trusted(value)));
    if (values.get("messages") instanceof Sequence messages) {
      messages.items().forEach(ChatTemplate::trustRole);
    }
    return JinjaInterpreter.render(body, values, now);
  }

  private static void trustRole(Object message) {
    if (message instanceof Dict dict
        && dict.items().get(MarkedText.trusted("role")) instanceof MarkedText role
        && ROLES.contains(role.value())) {
      dict.items().put(MarkedText.trusted("role"), MarkedText.trusted(role.value()));
    }
  }
}
