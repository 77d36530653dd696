package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.data.usage.UsageEvent;
import dev.flotilla.gateway.AnswerFormat.Choice;
import dev.flotilla.gateway.AnswerFormat.Head;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.Deployments.ModelView;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Generator.FinishReason;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
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
    try (ServedModel model = models.open(fields.requiredText("model"))) {
      List<Map<String, String>> messages = ChatMessages.read(fields);
      GenerationOptions options = options(fields, model);
      int[] prompt = model.text().render(messages, List.of(), true, Map.of());
      int room = model.roomAfter(prompt.length, "messages");
      List<int[]> prompts = Collections.nCopies(options.choices(), prompt);
      int maxTokens = Math.min(room, options.maxTokens().orElse(room));
      AnswerFormat format = new AnswerFormat.Chat(head("chatcmpl-", model));
      boolean repeatable = ResponseCache.wanted(exchange, fields, options);
      answer(
          exchange,
          new Plan(model, options, prompts, prompt.length, maxTokens, format, repeatable));
    }
  }

  void completions(Exchange exchange) throws InterruptedException {
    Fields fields = exchange.json();
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
      AnswerFormat format = new AnswerFormat.Completion(head("cmpl-", model), echoes);
      boolean repeatable = ResponseCache.wanted(exchange, fields, options);
      answer(
          exchange, new Plan(model, options, prompts, promptTokens, maxTokens, format, repeatable));
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
      int promptTokens,
      int maxTokens,
      AnswerFormat format,
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

  /**
   * A request being answered.
   *
   * @param key where its answer is in the cache; empty if it is to be neither found nor kept there
   * @param repeated whether it was found
   */
  private record Answering(
      String id,
      Exchange exchange,
      Plan plan,
      Answers answers,
      Optional<String> key,
      boolean repeated,
      Recorder recorder) {}

  private void answer(Exchange exchange, Plan plan) throws InterruptedException {
    String id = services.newRequestId();
    Traffic.Request measured = traffic.request(plan.promptTokens());
    try (Answers answers = new Answers(exchange.limits().tokensBehind(), measured::token);
        DisconnectWatch _ =
            DisconnectWatch.open(
                exchange.request(),
                () -> {
                  answers.abandon("the client left");
                  exchange.giveUp("the client left");
                })) {
      Optional<String> key =
          plan.repeatable()
              ? Optional.of(
                  ResponseCache.key(
                      plan.model().form(), plan.requests("", Claim.NOBODY), plan.options().stops()))
              : Optional.empty();
      Optional<Recording> found = key.flatMap(responses::find);
      key.ifPresent(
          _ -> exchange.putHeader(ResponseCache.HEADER, found.isPresent() ? "hit" : "miss"));
      Answering answering =
          new Answering(
              id,
              exchange,
              plan,
              answers,
              key,
              found.isPresent(),
              new Recorder(plan.prompts().size()));
      if (found.isPresent()) {
        answers.replay(found.get());
      } else {
        Claim claim = new Claim(exchange.keyName(), plan.options().priority());
        answers.start(services.generator(), plan.requests(id, claim));
      }
      if (plan.options().stream()) {
        stream(answering);
      } else {
        collect(answering);
      }
    } catch (Exchange.ClientGone e) {
      log.info("request {} dropped: {}", id, e.getMessage());
      throw e;
    } finally {
      measured.end();
    }
  }

  /** The whole answer is there, and its end not yet sent. */
  private void complete(Answering answering, int completionTokens) {
    Plan plan = answering.plan();
    services
        .data()
        .usage()
        .append(
            new UsageEvent(
                answering.id(),
                services.clock().millis(),
                answering.exchange().keyName(),
                plan.model().name(),
                plan.promptTokens(),
                completionTokens,
                answering.repeated()));
    if (!answering.repeated()) {
      answering.key().ifPresent(key -> responses.keep(key, answering.recorder().recording()));
    }
  }

  private static List<AnswerText> texts(Plan plan) {
    return plan.prompts().stream()
        .map(plan.model().text().tokenizer()::streamDecoder)
        .map(decoder -> new AnswerText(decoder, plan.options().stops()))
        .toList();
  }

  private static int tokens(List<AnswerText> texts) {
    return texts.stream().mapToInt(AnswerText::tokens).sum();
  }

  /** Hears what comes of one choice: a piece of its text, or why it ended. */
  @FunctionalInterface
  private interface ChoiceListener {
    void accept(int choice, String value);
  }

  private static void take(
      Answers.Event event,
      List<AnswerText> texts,
      Answering answering,
      ChoiceListener onText,
      ChoiceListener onEnd) {
    switch (event) {
      case Answers.Token(int choice, int token) -> {
        AnswerText text = texts.get(choice);
        if (!text.ended()) {
          answering.recorder().token(choice, token);
          deliver(choice, text, text.token(token), onText, onEnd);
          if (text.ended()) {
            answering.answers().cancel(choice);
          }
        }
      }
      case Answers.Finished(int choice, FinishReason reason) -> {
        AnswerText text = texts.get(choice);
        if (!text.ended()) {
          if (reason == FinishReason.CANCELLED) {
            throw new FlotillaException(
                FlotillaException.Code.UNAVAILABLE, "the generation was stopped", "Try again.");
          }
          answering.recorder().finished(choice, reason);
          deliver(choice, text, text.finish(reason), onText, onEnd);
        }
      }
      case Answers.Failed(int choice, FlotillaException error) -> {
        if (!texts.get(choice).ended()) {
          throw error;
        }
      }
      case Answers.Abandoned(String why) -> throw new Exchange.ClientGone(why);
    }
  }

  private static void deliver(
      int choice, AnswerText text, String piece, ChoiceListener onText, ChoiceListener onEnd) {
    if (!piece.isEmpty()) {
      onText.accept(choice, piece);
    }
    if (text.ended()) {
      onEnd.accept(choice, text.finishReason());
    }
  }

  private void collect(Answering answering) throws InterruptedException {
    Exchange exchange = answering.exchange();
    Plan plan = answering.plan();
    List<AnswerText> texts = texts(plan);
    List<StringBuilder> whole = texts.stream().map(t -> new StringBuilder()).toList();
    while (!texts.stream().allMatch(AnswerText::ended)) {
      Optional<Answers.Event> event = answering.answers().next(exchange.limits().keepAlive());
      if (event.isPresent()) {
        take(
            event.get(),
            texts,
            answering,
            (choice, text) -> whole.get(choice).append(text),
            (choice, reason) -> {});
      }
    }
    List<Choice> choices = new ArrayList<>();
    for (int i = 0; i < texts.size(); i++) {
      choices.add(new Choice(whole.get(i).toString(), texts.get(i).finishReason()));
    }
    complete(answering, tokens(texts));
    exchange.send(200, plan.format().whole(choices, plan.promptTokens(), tokens(texts)));
  }

  private void stream(Answering answering) throws InterruptedException {
    Exchange exchange = answering.exchange();
    Plan plan = answering.plan();
    Answers answers = answering.answers();
    List<AnswerText> texts = texts(plan);
    AnswerFormat format = plan.format();
    // Until something is sent, an error can still have its own HTTP status: so wait a little.
    Optional<Answers.Event> event = answers.next(exchange.limits().keepAlive());
    if (event.isPresent() && event.get() instanceof Answers.Failed failed) {
      throw failed.error();
    }
    EventStream out = new EventStream(exchange);
    for (int choice = 0; choice < texts.size(); choice++) {
      out.event(format.opening(choice));
    }
    try {
      while (true) {
        if (event.isEmpty()) {
          out.keepAlive();
        }
        while (event.isPresent()) {
          take(
              event.get(),
              texts,
              answering,
              (choice, text) -> out.event(format.delta(choice, text)),
              (choice, reason) -> out.event(format.closing(choice, reason)));
          event = answers.nextNow();
        }
        if (texts.stream().allMatch(AnswerText::ended)) {
          break;
        }
        out.flush();
        event = answers.next(exchange.limits().keepAlive());
      }
      complete(answering, tokens(texts));
      if (plan.options().includeUsage()) {
        out.event(format.usageChunk(plan.promptTokens(), tokens(texts)));
      }
      out.done();
    } catch (FlotillaException e) {
      log.warn("a stream of {} ended with an error: {}", plan.model().name(), e.explanation());
      out.event(ApiError.of(e).body());
    }
    out.end();
  }
}
