package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.data.usage.UsageEvent;
import dev.flotilla.serve.AnswerValue;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Kept;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Answers requests with models, for each endpoint in its own form: begins answers, goes on with
 * those that were begun, and books what is complete.
 */
final class AnswerService {

  private static final Logger log = LoggerFactory.getLogger(AnswerService.class);

  private final GatewayServices services;
  private final ServedModels models;
  private final Traffic traffic;
  private final ResponseCache repeated;

  AnswerService(GatewayServices services, ServedModels models, Traffic traffic) {
    this.services = services;
    this.models = models;
    this.traffic = traffic;
    this.repeated = new ResponseCache(services.data().caches(), services.metrics());
  }

  /** The models that can be asked. */
  ServedModels models() {
    return models;
  }

  GenerationOptions options(Fields fields, ServedModel model) {
    return GenerationOptions.read(fields, model, services.random()::nextLong);
  }

  AnswerFormat.Head head(String id, ServedModel model) {
    return new AnswerFormat.Head(id, services.clock().millis() / 1000, model.name());
  }

  /** For the names of things that clients see. */
  String randomId() {
    return Long.toHexString(services.random().nextLong());
  }

  /**
   * Everything about one request that is known before the first token: one prompt per choice.
   *
   * @param id of the answer in the cluster
   * @param repeatable whether the same answer may be taken from the cache, and kept there
   */
  record Plan(
      String id,
      ServedModel model,
      GenerationOptions options,
      List<int[]> prompts,
      int maxTokens,
      Rendering rendering,
      boolean repeatable) {

    List<GenerationRequest> requests(Claim claim) {
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
                options.grammar(),
                claim));
      }
      return requests;
    }
  }

  /** Makes the writer of an answer's events. */
  @FunctionalInterface
  interface Writers {
    AnswerWriter of(EventStream out, Rendering rendering);
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

  /**
   * Answers a request, as a stream or at once.
   *
   * @param writers used for a stream
   */
  void answer(Exchange exchange, Plan plan, Writers writers) throws InterruptedException {
    whileThere(
        exchange,
        plan.rendering().promptTokens(),
        answers -> answer(exchange, plan, writers, answers));
  }

  private void answer(Exchange exchange, Plan plan, Writers writers, Answers answers)
      throws InterruptedException {
    Claim claim = new Claim(exchange.keyName(), plan.options().priority());
    List<GenerationRequest> requests = plan.requests(claim);
    String key =
        plan.repeatable()
            ? ResponseCache.key(plan.model().form(), requests, plan.options().stops())
            : "";
    Optional<Recording> found = key.isEmpty() ? Optional.empty() : repeated.find(key);
    if (!key.isEmpty()) {
      exchange.putHeader(ResponseCache.HEADER, found.isPresent() ? "hit" : "miss");
    }
    Rendering rendering = plan.rendering().cached(key, found.isPresent());
    Answering answering =
        new Answering(
            exchange, plan.id(), plan.model(), rendering, requests, answers, this::complete);
    Runnable start =
        () ->
            found.ifPresentOrElse(
                answers::replay, () -> answers.start(services.generator(), requests));
    if (!plan.options().stream()) {
      start.run();
      answering.collect();
      return;
    }
    Kept kept =
        services
            .answers()
            .open(AnswerValue.of(plan.id(), Json.write(rendering), requests), answers::taken);
    boolean begun = false;
    try {
      answers.keep(kept);
      start.run();
      begun = true;
      answering.stream(writers, kept);
    } finally {
      if (begun) {
        kept.close();
      } else {
        kept.forget();
      }
    }
  }

  /**
   * Goes on with a stream that was begun, here or elsewhere.
   *
   * @param check of what is known of it, before it is taken from who gives it now
   * @throws FlotillaException {@code NOT_FOUND} if there is no such stream
   */
  void resume(
      Exchange exchange, String id, ServedModel model, Consumer<AnswerValue> check, Writers writers)
      throws InterruptedException {
    whileThere(
        exchange,
        0,
        answers -> {
          try (Kept kept = services.answers().take(id, exchange.keyName(), check, answers::taken)) {
            AnswerValue value = kept.value();
            Rendering rendering = Json.read(value.rendering(), Rendering.class);
            answers.keep(kept);
            new Answering(exchange, id, model, rendering, value.requests(), answers, this::complete)
                .resume(services.generator(), value.progress(), writers, kept);
          }
        });
  }

  /** The whole answer is there, and its end not yet sent. */
  private void complete(Answering.Complete answer) {
    Rendering rendering = answer.rendering();
    if (!rendering.repeated() && !rendering.cacheKey().isEmpty()) {
      repeated.keep(rendering.cacheKey(), answer.recording());
    }
    rendering
        .response()
        .filter(ResponseForm::store)
        .ifPresent(
            form ->
                services
                    .responses()
                    .put(
                        form.id(),
                        new StoredResponse(
                                answer.tenant(),
                                form,
                                rendering.head(),
                                answer.pieces(),
                                answer.choices().getFirst().finishReason(),
                                rendering.promptTokens(),
                                answer.tokens())
                            .write()));
    // Last: where storing fails, the client gets no answer, and asks again.
    services
        .data()
        .usage()
        .append(
            new UsageEvent(
                answer.id(),
                services.clock().millis(),
                answer.tenant(),
                rendering.head().model(),
                rendering.promptTokens(),
                answer.tokens(),
                rendering.repeated()));
  }
}
