package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.JsonSchema;
import java.util.List;
import java.util.Optional;
import java.util.function.Supplier;

/**
 * The grammar that a client wants its answers held to: {@code response_format} as OpenAI has it, or
 * {@code grammar} or {@code json_schema} as llama.cpp's server has them.
 */
final class AnswerGrammar {

  private static final List<String> FIELDS = List.of("response_format", "grammar", "json_schema");

  private AnswerGrammar() {}

  /**
   * The GBNF, if the request wants one.
   *
   * @throws ApiError 400 naming the field that is wrong
   */
  static Optional<String> read(Fields fields) {
    List<String> wanted =
        FIELDS.stream()
            .filter(name -> fields.node(name).filter(v -> !isNone(name, v)).isPresent())
            .toList();
    if (wanted.size() > 1) {
      throw ApiError.invalid(
          wanted.get(1), "An answer is held to one thing: send only one of " + wanted + ".");
    }
    return switch (wanted.isEmpty() ? "" : wanted.getFirst()) {
      case "response_format" -> {
        Fields format = fields.object("response_format").orElseThrow();
        yield ofFormat(format, format.object("json_schema"));
      }
      case "grammar" -> {
        String gbnf = fields.requiredText("grammar");
        yield Optional.of(source("grammar", () -> Grammar.parse(gbnf)));
      }
      case "json_schema" -> Optional.of(ofSchema(fields, "json_schema"));
      default -> Optional.empty();
    };
  }

  private static boolean isNone(String name, JsonNode value) {
    return switch (name) {
      case "response_format" -> value.path("type").asText().equals("text");
      case "grammar" -> value.isTextual() && value.textValue().isBlank();
      default -> false;
    };
  }

  /**
   * The GBNF of a format, if it is not plain text.
   *
   * @param described what says the schema, and is within the format or the format itself
   * @throws ApiError 400 naming the field that is wrong
   */
  static Optional<String> ofFormat(Fields format, Optional<Fields> described) {
    return switch (format.requiredText("type")) {
      case "text" -> Optional.empty();
      case "json_object" ->
          Optional.of(
              format.node("schema").isPresent()
                  ? ofSchema(format, "schema")
                  : JsonSchema.anyObject().source());
      case "json_schema" ->
          Optional.of(
              ofSchema(
                  described.orElseThrow(() -> ApiError.missing(format.path("json_schema"))),
                  "schema"));
      default ->
          throw ApiError.unsupported(
              format.path("type"),
              format.path("type") + " must be text, json_object or json_schema.");
    };
  }

  private static String ofSchema(Fields holder, String name) {
    JsonNode schema =
        holder
            .node(name)
            .orElseThrow(() -> ApiError.missing(holder.path(name), ", as a JSON schema"));
    return source(holder.path(name), () -> JsonSchema.grammar(schema));
  }

  /** One at a time, for this is long work on threads that answer others, too. */
  private static synchronized String source(String field, Supplier<Grammar> grammar) {
    try {
      return grammar.get().source();
    } catch (FlotillaException e) {
      throw ApiError.invalid(field, e.explanation());
    }
  }
}
