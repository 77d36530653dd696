package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.gateway.AnswerService.Plan;
import dev.flotilla.gateway.Rendering.Endpoint;
import dev.flotilla.serve.AnswerValue;
import dev.flotilla.serve.AnswerValue.Progress;
import dev.flotilla.serve.Deployments.ModelView;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The OpenAI endpoints: models, chat completions, completions. */
final class OpenAiApi {

  private static final int COMPLETION_TOKENS_DEFAULT = 16;
  private static final int PROMPTS_MAX = 16;

  private final GatewayServices services;
  private final AnswerService answers;

  OpenAiApi(GatewayServices services, AnswerService answers) {
    this.services = services;
    this.answers = answers;
  }

  void models(Exchange exchange) {
    ObjectNode list = Json.MAPPER.createObjectNode().put("object", "list");
    ArrayNode data = list.putArray("data");
    answers.models().list().forEach(model -> data.add(modelNode(model)));
    exchange.send(200, list);
  }

  void model(Exchange exchange, String name) {
    exchange.send(200, modelNode(answers.models().find(name)));
  }

  private static ObjectNode modelNode(ModelView model) {
    return Json.MAPPER
        .createObjectNode()
        .put("id", model.name())
        .put("object", "model")
        .put("created", model.createdAtMs() / 1000)
        .put("owned_by", "flotilla")
        .put("context_length", model.config().contextLength());
  }

  void chat(Exchange exchange) throws InterruptedException {
    Fields fields = exchange.json();
    if (resumes(exchange, fields, Endpoint.CHAT)) {
      return;
    }
    try (ServedModel model = answers.models().open(fields.requiredText("model"))) {
      List<Map<String, String>> messages = ChatMessages.read(fields);
      GenerationOptions options = answers.options(fields, model);
      int[] prompt = model.text().render(messages, List.of(), true, Map.of());
      int room = model.roomAfter(prompt.length, "messages");
      List<int[]> prompts = Collections.nCopies(options.choices(), prompt);
      int maxTokens = Math.min(room, options.maxTokens().orElse(room));
      Rendering rendering =
          new Rendering(
              Endpoint.CHAT,
              answers.head("chatcmpl-" + answers.randomId(), model),
              model.form(),
              prompt.length,
              options.stops(),
              List.of(),
              options.includeUsage(),
              "",
              false,
              Optional.empty());
      boolean repeatable = ResponseCache.wanted(exchange, fields, options);
      answer(
          exchange,
          new Plan(
              services.newRequestId(), model, options, prompts, maxTokens, rendering, repeatable));
    }
  }

  void completions(Exchange exchange) throws InterruptedException {
    Fields fields = exchange.json();
    if (resumes(exchange, fields, Endpoint.COMPLETIONS)) {
      return;
    }
    try (ServedModel model = answers.models().open(fields.requiredText("model"))) {
      GenerationOptions options = answers.options(fields, model);
      boolean echo = fields.flag("echo", false);
      int maxTokens = options.maxTokens().orElse(COMPLETION_TOKENS_DEFAULT);
      List<int[]> prompts = new ArrayList<>();
      List<String> echoes = new ArrayList<>();
      int promptTokens = 0;
      for (int[] prompt : TokenLists.read(fields, "prompt", PROMPTS_MAX, model)) {
        maxTokens = Math.min(maxTokens, model.roomAfter(prompt.length, "prompt"));
        promptTokens += prompt.length;
        String text = echo ? model.text().tokenizer().decode(prompt) : "";
        prompts.addAll(Collections.nCopies(options.choices(), prompt));
        echoes.addAll(Collections.nCopies(options.choices(), text));
      }
      Rendering rendering =
          new Rendering(
              Endpoint.COMPLETIONS,
              answers.head("cmpl-" + answers.randomId(), model),
              model.form(),
              promptTokens,
              options.stops(),
              echoes,
              options.includeUsage(),
              "",
              false,
              Optional.empty());
      boolean repeatable = ResponseCache.wanted(exchange, fields, options);
      answer(
          exchange,
          new Plan(
              services.newRequestId(), model, options, prompts, maxTokens, rendering, repeatable));
    }
  }

  private void answer(Exchange exchange, Plan plan) throws InterruptedException {
    StreamPosition start = StreamPosition.start(plan.id(), plan.prompts().size());
    answers.answer(exchange, plan, (out, rendering) -> new StreamWriter(out, rendering, start));
  }

  /**
   * Goes on with a stream, if that is what the request is for.
   *
   * @throws ApiError 400 if the request is not the one that began it, 404 if there is no such
   *     stream, 409 if the model is another by now
   */
  private boolean resumes(Exchange exchange, Fields fields, Endpoint endpoint)
      throws InterruptedException {
    Optional<String> last =
        exchange.header(StreamPosition.HEADER).map(String::strip).filter(h -> !h.isEmpty());
    if (last.isEmpty()) {
      return false;
    }
    StreamPosition position = StreamPosition.parse(last.get());
    if (!fields.flag("stream", false)) {
      throw ApiError.invalid(
          "stream",
          StreamPosition.HEADER
              + " goes on with a stream: send the request that began it, with stream true.");
    }
    try (ServedModel model = answers.models().open(fields.requiredText("model"))) {
      answers.resume(
          exchange,
          position.answer(),
          model,
          value -> check(value, endpoint, model, position),
          (out, rendering) -> new StreamWriter(out, rendering, position));
    } catch (FlotillaException e) {
      if (e.code() != FlotillaException.Code.NOT_FOUND) {
        throw e;
      }
      throw new ApiError(
          404, "stream_not_found", Optional.of(StreamPosition.HEADER), e.explanation());
    }
    return true;
  }

  private static void check(
      AnswerValue value, Endpoint endpoint, ServedModel model, StreamPosition had) {
    Rendering rendering = Json.read(value.rendering(), Rendering.class);
    if (rendering.endpoint() != endpoint || !rendering.head().model().equals(model.name())) {
      throw StreamPosition.invalid("another request began this stream");
    }
    if (had.steps().size() != value.requests().size() || (had.usage() && !rendering.usage())) {
      throw StreamPosition.invalid("the stream has no such place");
    }
    for (int choice = 0; choice < had.steps().size(); choice++) {
      Progress progress = value.progress().get(choice);
      int tokensMax =
          progress.end().isPresent()
              ? progress.tokens().length
              : value.requests().get(choice).maxTokens();
      if (had.steps().get(choice) > tokensMax + StreamPosition.STEPS_BESIDE_TOKENS) {
        throw StreamPosition.invalid("the stream has no such place");
      }
    }
    if (!model.form().equals(rendering.form())) {
      throw ApiError.of(
          409,
          "model_changed",
          "Model "
              + model.name()
              + " is not the one any more that began this stream. Send the request without "
              + StreamPosition.HEADER
              + " to begin anew.");
    }
  }
}
