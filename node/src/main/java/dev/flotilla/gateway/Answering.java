package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.gateway.AnswerFormat.Choice;
import dev.flotilla.gateway.AnswerService.Writers;
import dev.flotilla.serve.AnswerValue.Progress;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Generator;
import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.serve.Kept;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** A request being answered: makes text of tokens, and sends it at once, or as it comes. */
final class Answering {

  /** Hears of answers that are complete, before their end is sent. */
  @FunctionalInterface
  interface Completion {
    void complete(Complete answer);
  }

  /**
   * An answer that is complete.
   *
   * @param id by which it is paid for
   * @param tokens of all choices
   * @param pieces the first choice's text, as it was cut into events
   */
  record Complete(
      String id,
      String tenant,
      Rendering rendering,
      int tokens,
      List<Choice> choices,
      List<String> pieces,
      Recording recording) {}

  private static final Logger log = LoggerFactory.getLogger(Answering.class);

  /** How long the first word of a stream waits for a second node to know of it. */
  private static final long COPY_PATIENCE_NS = TimeUnit.MILLISECONDS.toNanos(500);

  private final Exchange exchange;
  private final String id;
  private final ServedModel model;
  private final Rendering rendering;
  private final List<GenerationRequest> requests;
  private final Answers answers;
  private final Completion completion;
  private final List<AnswerText> texts;
  private final List<List<String>> pieces;
  private final Recorder recorder;

  Answering(
      Exchange exchange,
      String id,
      ServedModel model,
      Rendering rendering,
      List<GenerationRequest> requests,
      Answers answers,
      Completion completion) {
    this.exchange = exchange;
    this.id = id;
    this.model = model;
    this.rendering = rendering;
    this.requests = requests;
    this.answers = answers;
    this.completion = completion;
    this.texts =
        requests.stream()
            .map(request -> model.text().tokenizer().streamDecoder(request.prompt()))
            .map(decoder -> new AnswerText(decoder, rendering.stops()))
            .toList();
    this.pieces = requests.stream().<List<String>>map(request -> new ArrayList<>()).toList();
    this.recorder = new Recorder(requests.size());
  }

  private int tokens() {
    return texts.stream().mapToInt(AnswerText::tokens).sum();
  }

  private boolean ended() {
    return texts.stream().allMatch(AnswerText::ended);
  }

  private List<Choice> choices() {
    return IntStream.range(0, texts.size())
        .mapToObj(i -> new Choice(String.join("", pieces.get(i)), texts.get(i).finishReason()))
        .toList();
  }

  private void complete() {
    completion.complete(
        new Complete(
            id,
            exchange.keyName(),
            rendering,
            tokens(),
            choices(),
            pieces.getFirst(),
            recorder.recording()));
  }

  private String piece(int choice, String piece) {
    if (!piece.isEmpty()) {
      pieces.get(choice).add(piece);
    }
    return piece;
  }

  private void take(Answers.Event event, ChoiceListener listener) {
    switch (event) {
      case Answers.Token(int choice, int token) -> {
        AnswerText text = texts.get(choice);
        if (!text.ended()) {
          recorder.token(choice, token);
          listener.text(choice, piece(choice, text.token(token)));
          if (text.ended()) {
            listener.end(choice, "", text.finishReason());
            answers.cancel(choice);
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
          recorder.finished(choice, reason);
          String rest = piece(choice, text.finish(reason));
          listener.end(choice, rest, text.finishReason());
        }
      }
      case Answers.Failed(int choice, FlotillaException error) -> {
        if (!texts.get(choice).ended()) {
          throw error;
        }
      }
      case Answers.Abandoned(String why) -> throw new Exchange.ClientGone(why);
      case Answers.Taken() ->
          throw new FlotillaException(
              FlotillaException.Code.CONFLICT,
              "another connection goes on with this stream",
              "Read on there.");
    }
  }

  /** Sends the answer when all of it is there. */
  void collect() throws InterruptedException {
    ChoiceListener nobody =
        new ChoiceListener() {
          @Override
          public void text(int choice, String piece) {}

          @Override
          public void end(int choice, String rest, String finishReason) {}
        };
    while (!ended()) {
      Optional<Answers.Event> event = answers.next(exchange.limits().keepAlive());
      if (event.isPresent()) {
        take(event.get(), nobody);
      }
    }
    complete();
    exchange.send(200, rendering.whole(choices(), tokens()));
  }

  /** Sends the answer as it comes. */
  void stream(Writers writers, Kept kept) throws InterruptedException {
    EventStream out = new EventStream(exchange);
    AnswerWriter writer = writers.of(out, rendering);
    IntStream.range(0, texts.size()).forEach(writer::open);
    stream(out, writer, kept, true);
  }

  /**
   * Sends what a client does not have of an answer that was begun before, as it comes.
   *
   * @param progress what there is of each choice
   * @param writers of what the client does not have
   * @throws ApiError 400 if the client cannot have so much
   */
  void resume(Generator generator, List<Progress> progress, Writers writers, Kept kept)
      throws InterruptedException {
    EventStream out = new EventStream(exchange);
    AnswerWriter writer = writers.of(out, rendering);
    IntStream.range(0, texts.size()).forEach(writer::open);
    for (int choice = 0; choice < texts.size(); choice++) {
      for (int token : progress.get(choice).tokens()) {
        take(new Answers.Token(choice, token), writer);
      }
      Optional<FinishReason> end = progress.get(choice).end();
      if (end.isPresent()) {
        take(new Answers.Finished(choice, end.get()), writer);
      }
    }
    int[] open =
        IntStream.range(0, texts.size()).filter(choice -> !texts.get(choice).ended()).toArray();
    log.info(
        "stream {} goes on here, with {} tokens in {} choices, {} of which have not ended",
        id,
        tokens(),
        texts.size(),
        open.length);
    // A replica may take a while to be ready; the client hears meanwhile that we are there.
    Thread.startVirtualThread(
        () -> {
          try {
            answers.resume(generator, requests, progress, open);
          } catch (RuntimeException e) {
            FlotillaException error = e instanceof FlotillaException known ? known : fault(e);
            for (int choice : open) {
              answers.fail(choice, error);
            }
          }
        });
    stream(out, writer, kept, out.isEmpty());
  }

  private static FlotillaException fault(RuntimeException e) {
    log.error("a stream could not be gone on with", e);
    return new FlotillaException(
        FlotillaException.Code.UNAVAILABLE,
        "the stream could not be gone on with",
        "Try again.",
        e);
  }

  /**
   * @param patient whether what there is to send can wait for what comes
   */
  private void stream(EventStream out, AnswerWriter writer, Kept kept, boolean patient)
      throws InterruptedException {
    Optional<Answers.Event> event = answers.nextNow();
    if (event.isEmpty() && patient && !ended()) {
      // Until something is sent, an error can still have its own HTTP status: so wait a little.
      event = answers.next(exchange.limits().keepAlive());
      if (event.isEmpty()) {
        out.keepAlive();
      }
    }
    if (event.isPresent() && event.get() instanceof Answers.Failed failed) {
      throw failed.error();
    }
    if (!kept.awaitCopy(COPY_PATIENCE_NS)) {
      log.info("stream {} begins before a second node knows of it", id);
    }
    try {
      while (!ended()) {
        while (event.isPresent()) {
          take(event.get(), writer);
          event = answers.nextNow();
        }
        if (!ended()) {
          out.flush();
          event = answers.next(exchange.limits().keepAlive());
          if (event.isEmpty()) {
            out.keepAlive();
          }
        }
      }
      complete();
      writer.close(rendering.promptTokens(), tokens());
    } catch (FlotillaException e) {
      log.warn("a stream of {} ended with an error: {}", model.name(), e.explanation());
      writer.failed(ApiError.of(e));
    } catch (ApiError e) {
      writer.failed(e);
    }
    out.end();
  }
}
