package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.gateway.AnswerService.Plan;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import dev.flotilla.gateway.Rendering.Endpoint;
import dev.flotilla.serve.AnswerValue;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/**
 * OpenAI's Responses API. A response that is being made is an answer like others, kept by two
 * nodes; a complete one is stored in the grid. So both are found on any node, and events that were
 * sent can be had again from any number on.
 */
final class ResponsesApi {

  private static final String PATH = "/v1/responses";

  private final GatewayServices services;
  private final AnswerService answers;

  ResponsesApi(GatewayServices services, AnswerService answers) {
    this.services = services;
    this.answers = answers;
  }

  List<Route> routes() {
    return List.of(
        Route.of("POST", PATH, Access.WORK, this::create).lenient(),
        Route.named("GET", PATH + "/*", Access.KEY, this::get).lenient(),
        Route.named("DELETE", PATH + "/*", Access.WORK, this::delete).lenient(),
        Route.named("POST", PATH + "/*/cancel", Access.WORK, this::cancel).lenient());
  }

  private void create(Exchange exchange) throws InterruptedException {
    if (exchange.header(StreamPosition.HEADER).filter(h -> !h.isBlank()).isPresent()) {
      throw new ApiError(
          400,
          "invalid_last_event_id",
          Optional.of(StreamPosition.HEADER),
          "To go on with a response, GET "
              + PATH
              + "/{id}?stream=true&starting_after=N with the sequence_number of the last event.");
    }
    ResponseRequest request = ResponseRequest.read(exchange.json());
    try (ServedModel model = answers.models().open(request.model())) {
      GenerationOptions options = answers.options(request.sampling(), model);
      List<Map<String, String>> messages = new ArrayList<>();
      request.previous().ifPresent(id -> messages.addAll(conversation(id, exchange.keyName())));
      messages.addAll(request.messages());
      List<Map<String, String>> said = new ArrayList<>(messages);
      request
          .instructions()
          .ifPresent(text -> said.addFirst(Map.of("role", "system", "content", text)));
      int[] prompt = model.text().render(said, List.of(), true, Map.of());
      int room = model.roomAfter(prompt.length, "input");
      int maxTokens = Math.min(room, request.maxTokens().orElse(room));
      String id = ResponseForm.PREFIX + answers.randomId() + answers.randomId();
      ResponseForm form = new ResponseForm(id, request.asked(options), messages, request.store());
      Rendering rendering =
          new Rendering(
              Endpoint.RESPONSES,
              answers.head(id, model),
              model.form(),
              prompt.length,
              options.stops(),
              List.of(),
              false,
              "",
              false,
              Optional.of(form));
      answers.answer(
          exchange,
          new Plan(id, model, options, List.of(prompt), maxTokens, rendering, false),
          (out, mine) -> new ResponseWriter(out, form, mine.head(), -1));
    }
  }

  /** The messages of an earlier response, its answer included. */
  private List<Map<String, String>> conversation(String id, String tenant) {
    StoredResponse response =
        stored(id, tenant)
            .orElseThrow(
                () ->
                    new ApiError(
                        400,
                        "previous_response_not_found",
                        Optional.of("previous_response_id"),
                        "There is no complete response "
                            + abbreviated(id)
                            + ". It must have been stored, within "
                            + StoredResponses.DAYS
                            + " days, by the same key."));
    List<Map<String, String>> messages = new ArrayList<>(response.form().messages());
    messages.add(Map.of("role", "assistant", "content", response.text()));
    return messages;
  }

  private Optional<StoredResponse> stored(String id, String tenant) {
    return wellFormed(id)
        ? services
            .responses()
            .find(id)
            .map(StoredResponse::read)
            .filter(response -> response.tenant().equals(tenant))
        : Optional.empty();
  }

  private static boolean wellFormed(String id) {
    return id.startsWith(ResponseForm.PREFIX) && id.length() <= 64;
  }

  private static String abbreviated(String id) {
    return id.length() <= 64 ? id : id.substring(0, 64) + "…";
  }

  private static Supplier<ApiError> notFound(String id) {
    return () ->
        new ApiError(
            404,
            "response_not_found",
            Optional.of("response_id"),
            "There is no response "
                + abbreviated(id)
                + ". Complete ones are kept for "
                + StoredResponses.DAYS
                + " days if they are stored, others for some minutes after their reader left; nobody"
                + " but the key that asked for them finds them.");
  }

  private void get(Exchange exchange, String id) throws InterruptedException {
    boolean stream = exchange.query("stream").map(v -> flag("stream", v)).orElse(false);
    Optional<Integer> after = exchange.query("starting_after").map(ResponsesApi::number);
    if (after.isPresent() && !stream) {
      throw ApiError.invalid("starting_after", "starting_after needs stream=true.");
    }
    if (stream) {
      stream(exchange, id, after.orElse(-1));
      return;
    }
    Optional<StoredResponse> complete = stored(id, exchange.keyName());
    if (complete.isPresent()) {
      exchange.send(200, complete.get().object());
    } else {
      Rendering rendering =
          running(id, exchange.keyName())
              .map(ResponsesApi::rendering)
              .filter(kept -> form(kept).store()) // others are there for their stream alone
              .orElseThrow(notFound(id));
      exchange.send(200, form(rendering).inProgress(rendering.head()));
    }
  }

  private static Rendering rendering(AnswerValue value) {
    return Json.read(value.rendering(), Rendering.class);
  }

  private static boolean flag(String name, String value) {
    return switch (value) {
      case "true" -> true;
      case "false" -> false;
      default -> throw ApiError.invalid(name, name + " must be true or false.");
    };
  }

  private static int number(String value) {
    try {
      int number = Integer.parseInt(value);
      if (number >= 0) {
        return number;
      }
    } catch (NumberFormatException e) {
      // Said below.
    }
    throw ApiError.invalid(
        "starting_after", "starting_after must be the sequence_number of an event.");
  }

  private static ResponseForm form(Rendering rendering) {
    return rendering.response().orElseThrow();
  }

  /** A response that is not stored, or not yet; or that has just been. */
  private Optional<AnswerValue> running(String id, String tenant) throws InterruptedException {
    return wellFormed(id)
        ? services
            .answers()
            .find(id, tenant)
            .filter(value -> rendering(value).endpoint() == Endpoint.RESPONSES)
        : Optional.empty();
  }

  private void stream(Exchange exchange, String id, int after) throws InterruptedException {
    // A lost node may have had both: what runs is asked for first, for it waits for nobody else.
    Optional<AnswerValue> known = Optional.empty();
    Optional<FlotillaException> unknown = Optional.empty();
    try {
      known = running(id, exchange.keyName());
    } catch (FlotillaException e) {
      unknown = Optional.of(e);
    }
    Optional<StoredResponse> complete = Optional.empty();
    if (known.isPresent()) {
      Rendering rendering = rendering(known.get());
      if (!isServed(rendering)) {
        complete = stored(id, exchange.keyName());
      }
      if (complete.isEmpty()) {
        resume(exchange, id, rendering, after);
        return;
      }
    } else {
      complete = stored(id, exchange.keyName());
    }
    if (complete.isEmpty()) {
      throw unknown.<RuntimeException>map(e -> e).orElseGet(notFound(id));
    }
    EventStream out = new EventStream(exchange);
    StoredResponse response = complete.get();
    response.write(new ResponseWriter(out, response.form(), response.head(), after));
    out.end();
  }

  /** Whether the model that began a response is there, and the same. */
  private boolean isServed(Rendering rendering) {
    try (ServedModel model = answers.models().open(rendering.head().model())) {
      return model.form().equals(rendering.form());
    } catch (FlotillaException e) {
      return false;
    }
  }

  private void resume(Exchange exchange, String id, Rendering rendering, int after)
      throws InterruptedException {
    try (ServedModel model = answers.models().open(rendering.head().model())) {
      answers.resume(
          exchange,
          id,
          model,
          value -> check(value, rendering, model, after),
          (out, mine) -> new ResponseWriter(out, form(mine), mine.head(), after));
    } catch (FlotillaException e) {
      throw e.code() == FlotillaException.Code.NOT_FOUND ? notFound(id).get() : e;
    }
  }

  private static void check(AnswerValue value, Rendering rendering, ServedModel model, int after) {
    AnswerValue.Progress progress = value.progress().getFirst();
    int tokensMax =
        progress.end().isPresent()
            ? progress.tokens().length
            : value.requests().getFirst().maxTokens();
    if (after > tokensMax + ResponseWriter.EVENTS_BESIDE_TEXT) {
      throw ResponseWriter.noSuchEvent(after);
    }
    if (!model.form().equals(rendering.form())) {
      throw ApiError.of(
          409,
          "model_changed",
          "Model "
              + model.name()
              + " is not the one any more that began this response. Ask for another one.");
    }
  }

  private void delete(Exchange exchange, String id) throws InterruptedException {
    String tenant = exchange.keyName();
    boolean found = stored(id, tenant).isPresent() && services.responses().remove(id);
    found |= wellFormed(id) && services.answers().forget(id, tenant);
    if (!found) {
      throw notFound(id).get();
    }
    ObjectNode deleted = Json.MAPPER.createObjectNode();
    exchange.send(200, deleted.put("id", id).put("object", "response").put("deleted", true));
  }

  /** Nothing runs without a reader; so who wants it to end, closes the connection. */
  private void cancel(Exchange exchange, String id) throws InterruptedException {
    if (stored(id, exchange.keyName()).isEmpty()) {
      AnswerValue _ = running(id, exchange.keyName()).orElseThrow(notFound(id));
    }
    throw new ApiError(
        400,
        "unsupported_parameter",
        Optional.of("background"),
        "Only responses with background=true can be cancelled, and those are not supported. Close"
            + " the connection, or DELETE the response.");
  }
}
