package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.UnknownFieldException;
import java.util.List;
import java.util.Optional;

/** An error as a client sees it: an HTTP status and OpenAI's error object. */
final class ApiError extends RuntimeException {

  private static final long serialVersionUID = 1L;

  private final int status;
  private final String code;
  private final transient Optional<String> param;

  ApiError(int status, String code, Optional<String> param, String message) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }

  /** 400: a field that is missing, of the wrong type or out of range. */
  static ApiError invalid(String param, String message) {
    return new ApiError(400, "invalid_value", Optional.of(param), message);
  }

  /**
   * 400: a field or parameter without which nothing can be done.
   *
   * @param what it is, if that is not plain, such as {@code ", as an offset"}
   */
  static ApiError missing(String param, String what) {
    return new ApiError(
        400, "missing_required_parameter", Optional.of(param), param + " is required" + what + ".");
  }

  /** As above. */
  static ApiError missing(String param) {
    return missing(param, "");
  }

  /** 400: a field that would change the answer, and that is not implemented. */
  static ApiError unsupported(String param, String message) {
    return new ApiError(400, "unsupported_parameter", Optional.of(param), message);
  }

  /**
   * 400: something that nobody would read.
   *
   * @param kind of it, such as {@code "field"}
   * @param known those that there are
   */
  static ApiError unknown(String kind, String name, List<String> known) {
    String shown = name.length() <= 64 ? name : name.substring(0, 64) + "…";
    return new ApiError(
        400,
        "unknown_parameter",
        Optional.of(shown),
        "There is no "
            + kind
            + " '"
            + shown
            + "' here: "
            + (known.isEmpty()
                ? "this takes no " + kind + "s."
                : "this takes " + String.join(", ", known) + "."));
  }

  static ApiError of(int status, String code, String message) {
    return new ApiError(status, code, Optional.empty(), message);
  }

  static ApiError of(FlotillaException error) {
    if (error instanceof UnknownFieldException unknown) {
      return unknown("field", unknown.field(), unknown.known());
    }
    return switch (error.code()) {
      case INVALID -> of(400, "invalid_value", error.explanation());
      case BAD_FILE -> of(400, "bad_file", error.explanation());
      case UNAUTHENTICATED -> of(401, "invalid_api_key", error.explanation());
      case NOT_FOUND -> of(404, "not_found", error.explanation());
      case CONFLICT -> of(409, "conflict", error.explanation());
      case TOO_LARGE -> of(413, "request_too_large", error.explanation());
      case BUSY -> of(429, "busy", error.explanation());
      case UNAVAILABLE -> of(503, "unavailable", error.explanation());
      case NO_MAJORITY -> of(503, "no_majority", error.explanation());
      case OUTCOME_UNKNOWN -> of(503, "outcome_unknown", error.explanation());
      case STORAGE -> of(507, "storage", error.explanation());
      case FAILED -> of(500, "internal_error", error.explanation());
    };
  }

  int status() {
    return status;
  }

  String code() {
    return code;
  }

  /** When to try again, where that makes sense. */
  Optional<Integer> retryAfterSeconds() {
    return switch (status) {
      case 429 -> Optional.of(code.equals("too_many_wrong_keys") ? 10 : 1);
      case 503 -> Optional.of(2);
      default -> Optional.empty();
    };
  }

  /** {@code {"error":{"message","type","param","code"}}}. */
  ObjectNode body() {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ObjectNode error = body.putObject("error");
    error.put("message", getMessage());
    error.put("type", type());
    param.ifPresentOrElse(p -> error.put("param", p), () -> error.putNull("param"));
    error.put("code", code);
    return body;
  }

  private String type() {
    return switch (status) {
      case 401 -> "authentication_error";
      case 429 -> "rate_limit_error";
      case 503 -> "unavailable_error";
      default -> status >= 500 ? "server_error" : "invalid_request_error";
    };
  }
}
