package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.data.usage.UsageEvent;
import dev.flotilla.gateway.AnswerFormat.Head;
import dev.flotilla.gateway.Rendering.Endpoint;
import dev.flotilla.serve.AnswerValue;
import dev.flotilla.serve.AnswerValue.Progress;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.Deployments.ModelView;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Kept;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The OpenAI endpoints: models, chat completions, completions. */
final class OpenAiApi {

  private static final Logger log = LoggerFactory.getLogger(OpenAiApi.class);
  private static final int COMPLETION_TOKENS_DEFAULT = 16;
  private static final int PROMPTS_MAX = 16;

  private final GatewayServices services;
  private final ServedModels models;
  private final Traffic traffic;
  private final ResponseCache responses;

  OpenAiApi(GatewayServices services, ServedModels models, Traffic traffic) {
    this.services = services;
    this.models = models;
    this.traffic = traffic;
    this.responses = new ResponseCache(services.data().caches(), services.metrics());
  }

  void models(Exchange exchange) {
    ObjectNode list = Json.MAPPER.createObjectNode().put("object", "list");
    ArrayNode data = list.putArray("data");
    models.list().forEach(model -> data.add(modelNode(model)));
    exchange.send(200, list);
  }

  void model(Exchange exchange, String name) {
    exchange.send(200, modelNode(models.find(name)));
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
    try (ServedModel model = models.open(fields.requiredText("model"))) {
      List<Map<String, String>> messages = ChatMessages.read(fields);
      GenerationOptions options = options(fields, model);
      int[] prompt = model.text().render(messages, List.of(), true, Map.of());
      int room = model.roomAfter(prompt.length, "messages");
      List<int[]> prompts = Collections.nCopies(options.choices(), prompt);
      int maxTokens = Math.min(room, options.maxTokens().orElse(room));
      Rendering rendering =
          new Rendering(
              Endpoint.CHAT,
              head("chatcmpl-", model),
              model.form(),
              prompt.length,
              options.stops(),
              List.of(),
              options.includeUsage(),
              "",
              false);
      boolean repeatable = ResponseCache.wanted(exchange, fields, options);
      answer(exchange, new Plan(model, options, prompts, maxTokens, rendering, repeatable));
    }
  }

  void completions(Exchange exchange) throws InterruptedException {
    Fields fields = exchange.json();
    if (resumes(exchange, fields, Endpoint.COMPLETIONS)) {
      return;
    }
    try (ServedModel model = models.open(fields.requiredText("model"))) {
      GenerationOptions options = options(fields, model);
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
              head("cmpl-", model),
              model.form(),
              promptTokens,
              options.stops(),
              echoes,
              options.includeUsage(),
              "",
              false);
      boolean repeatable = ResponseCache.wanted(exchange, fields, options);
      answer(exchange, new Plan(model, options, prompts, maxTokens, rendering, repeatable));
    }
  }

  private GenerationOptions options(Fields fields, ServedModel model) {
    return GenerationOptions.read(fields, model, services.random()::nextLong);
  }

  private Head head(String prefix, ServedModel model) {
    return new Head(
        prefix + Long.toHexString(services.random().nextLong()),
        services.clock().millis() / 1000,
        model.name());
  }

  /**
   * Everything about one request that is known before the first token: one prompt per choice.
   *
   * @param repeatable whether the same answer may be taken from the cache, and kept there
   */
  private record Plan(
      ServedModel model,
      GenerationOptions options,
      List<int[]> prompts,
      int maxTokens,
      Rendering rendering,
      boolean repeatable) {

    List<GenerationRequest> requests(String id, Claim claim) {
      List<GenerationRequest> requests = new ArrayList<>();
      for (int choice = 0; choice < prompts.size(); choice++) {
        requests.add(
            new GenerationRequest(
                id + "-" + choice,
                model.name(),
                prompts.get(choice),
                options.samplingOf(choice % options.choices()),
                maxTokens,
                options.ignoreEnd() ? new int[0] : model.text().endIds(),
                claim));
      }
      return requests;
    }
  }

  /** What answers a request, while its client is there. */
  @FunctionalInterface
  private interface Answerer {
    void answer(Answers answers) throws InterruptedException;
  }

  private void whileThere(Exchange exchange, int promptTokens, Answerer answerer)
      throws InterruptedException {
    Traffic.Request measured = traffic.request(promptTokens);
    try (Answers answers = new Answers(exchange.limits().tokensBehind(), measured::token);
        DisconnectWatch _ =
            DisconnectWatch.open(
                exchange.request(),
                () -> {
                  answers.abandon("the client left");
                  exchange.giveUp("the client left");
                })) {
      answerer.answer(answers);
    } catch (Exchange.ClientGone e) {
      log.info("a request of {} was dropped: {}", exchange.keyName(), e.getMessage());
      throw e;
    } finally {
      measured.end();
    }
  }

  private void answer(Exchange exchange, Plan plan) throws InterruptedException {
    whileThere(
        exchange, plan.rendering().promptTokens(), answers -> answer(exchange, plan, answers));
  }

  private void answer(Exchange exchange, Plan plan, Answers answers) throws InterruptedException {
    String id = services.newRequestId();
    Claim claim = new Claim(exchange.keyName(), plan.options().priority());
    List<GenerationRequest> requests = plan.requests(id, claim);
    String key =
        plan.repeatable()
            ? ResponseCache.key(plan.model().form(), requests, plan.options().stops())
            : "";
    Optional<Recording> found = key.isEmpty() ? Optional.empty() : responses.find(key);
    if (!key.isEmpty()) {
      exchange.putHeader(ResponseCache.HEADER, found.isPresent() ? "hit" : "miss");
    }
    Rendering rendering = plan.rendering().cached(key, found.isPresent());
    Answering answering =
        new Answering(exchange, plan.model(), rendering, requests, answers, this::complete);
    Runnable start =
        () ->
            found.ifPresentOrElse(
                answers::replay, () -> answers.start(services.generator(), requests));
    if (!plan.options().stream()) {
      start.run();
      answering.collect(id);
      return;
    }
    Kept kept =
        services
            .answers()
            .open(AnswerValue.of(id, Json.write(rendering), requests), answers::taken);
    boolean begun = false;
    try {
      answers.keep(kept);
      start.run();
      begun = true;
      answering.stream(StreamPosition.start(id, requests.size()), kept);
    } finally {
      if (begun) {
        kept.close();
      } else {
        kept.forget();
      }
    }
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
    String model = fields.requiredText("model");
    whileThere(exchange, 0, answers -> resume(exchange, endpoint, model, position, answers));
    return true;
  }

  private void resume(
      Exchange exchange, Endpoint endpoint, String named, StreamPosition had, Answers answers)
      throws InterruptedException {
    // Whatever is wrong is found before the answer is taken from who gives it now.
    try (ServedModel model = models.open(named);
        Kept kept =
            take(had, exchange.keyName(), value -> check(value, endpoint, model, had), answers)) {
      AnswerValue value = kept.value();
      Rendering rendering = Json.read(value.rendering(), Rendering.class);
      answers.keep(kept);
      new Answering(exchange, model, rendering, value.requests(), answers, this::complete)
          .resume(services.generator(), value.progress(), had, kept);
    }
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

  private Kept take(
      StreamPosition position, String tenant, Consumer<AnswerValue> check, Answers answers)
      throws InterruptedException {
    try {
      return services.answers().take(position.answer(), tenant, check, answers::taken);
    } catch (FlotillaException e) {
      if (e.code() != FlotillaException.Code.NOT_FOUND) {
        throw e;
      }
      throw new ApiError(
          404, "stream_not_found", Optional.of(StreamPosition.HEADER), e.explanation());
    }
  }

  /** The whole answer is there, and its end not yet sent. */
  private void complete(
      String id, String tenant, Rendering rendering, int tokens, Recording recording) {
    services
        .data()
        .usage()
        .append(
            new UsageEvent(
                id,
                services.clock().millis(),
                tenant,
                rendering.head().model(),
                rendering.promptTokens(),
                tokens,
                rendering.repeated()));
    if (!rendering.repeated() && !rendering.cacheKey().isEmpty()) {
      responses.keep(rendering.cacheKey(), recording);
    }
  }
}
