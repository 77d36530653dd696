package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.serve.AnswerValue.Progress;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Generator;
import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.serve.Generator.Generation;
import dev.flotilla.serve.Kept;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;

/**
 * The generations that answer one HTTP request, as one bounded queue of what happens in them.
 *
 * <p>The serving threads put in and never wait; the request's own thread takes out, as fast as its
 * client reads. If it falls too far behind, all its generations are stopped.
 */
final class Answers implements AutoCloseable {

  /** What happened in one generation; {@code choice} is its index. */
  sealed interface Event {}

  record Token(int choice, int token) implements Event {}

  record Finished(int choice, FinishReason reason) implements Event {}

  record Failed(int choice, FlotillaException error) implements Event {}

  /** The client is away, or fell too far behind. */
  record Abandoned(String why) implements Event {}

  /** The client, or another of the same key, reads on through another connection. */
  record Taken() implements Event {}

  private final int tokensBehind;
  private final Runnable onToken;
  private final LinkedBlockingQueue<Event> events = new LinkedBlockingQueue<>();
  private final Map<Integer, Generation> generations = new TreeMap<>();
  private volatile Optional<Kept> kept = Optional.empty();
  private volatile boolean abandoned;

  /**
   * @param tokensBehind how many tokens may wait
   * @param onToken hears of each token, on the serving thread
   */
  Answers(int tokensBehind, Runnable onToken) {
    this.tokensBehind = tokensBehind;
    this.onToken = onToken;
  }

  /**
   * What comes is told to this, too, as soon as it comes.
   *
   * @param value before the start
   */
  void keep(Kept value) {
    kept = Optional.of(value);
  }

  /**
   * Starts one generation per request; choices are numbered in their order.
   *
   * @throws FlotillaException as {@link Generator#start}; then none of them runs
   */
  void start(Generator generator, List<GenerationRequest> requests) {
    List<Progress> none = Collections.nCopies(requests.size(), Progress.NONE);
    resume(generator, requests, none, IntStream.range(0, requests.size()).toArray());
  }

  /**
   * Goes on with some of the choices.
   *
   * @param progress what there is of each; it is not told again
   * @throws FlotillaException as {@link Generator#resume}; then none of them runs
   */
  void resume(
      Generator generator,
      List<GenerationRequest> requests,
      List<Progress> progress,
      int... choices) {
    try {
      for (int choice : choices) {
        Generation generation =
            generator.resume(
                requests.get(choice), progress.get(choice).tokens(), new ChoiceSink(choice));
        synchronized (generations) {
          generations.put(choice, generation);
        }
        if (abandoned) {
          generation.cancel();
        }
      }
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  /** Repeats what was recorded of an earlier answer, instead of {@link #start}. */
  void replay(Recording recording) {
    for (int choice = 0; choice < recording.choices().size(); choice++) {
      for (int token : recording.choices().get(choice).tokens()) {
        keepToken(choice, token);
        events.add(new Token(choice, token));
      }
      keepEnd(choice, recording.choices().get(choice).reason());
      events.add(new Finished(choice, recording.choices().get(choice).reason()));
    }
  }

  private void keepToken(int choice, int token) {
    kept.ifPresent(value -> value.token(choice, token));
  }

  private void keepEnd(int choice, FinishReason reason) {
    kept.ifPresent(value -> value.ended(choice, reason));
  }

  /** The next event, or empty if there was none for so long. */
  Optional<Event> next(Duration patience) throws InterruptedException {
    return Optional.ofNullable(events.poll(patience.toNanos(), TimeUnit.NANOSECONDS));
  }

  /** The next event, if it is there already. */
  Optional<Event> nextNow() {
    return Optional.ofNullable(events.poll());
  }

  /** Stops one generation, if it is one; the rest of its events mean nothing. */
  void cancel(int choice) {
    Optional<Generation> generation;
    synchronized (generations) {
      generation = Optional.ofNullable(generations.get(choice));
    }
    generation.ifPresent(Generation::cancel);
  }

  /** Stops everything, and wakes the thread that waits for events. */
  void abandon(String why) {
    abandoned = true;
    events.add(new Abandoned(why));
    close();
  }

  /** Stops everything: another connection goes on with it. */
  void taken() {
    abandoned = true;
    events.add(new Taken());
    close();
  }

  /** As if a generation had failed: it could not be gone on with. */
  void fail(int choice, FlotillaException error) {
    events.add(new Failed(choice, error));
  }

  /** Stops everything that still runs. */
  @Override
  public void close() {
    abandoned = true;
    List<Generation> running;
    synchronized (generations) {
      running = List.copyOf(generations.values());
    }
    running.forEach(Generation::cancel);
  }

  private final class ChoiceSink implements Generator.Sink {
    private final int choice;

    ChoiceSink(int choice) {
      this.choice = choice;
    }

    @Override
    public void token(int token) {
      onToken.run();
      keepToken(choice, token);
      if (abandoned) {
        return;
      }
      if (events.size() >= tokensBehind) {
        abandoned = true;
        // Cancelling may take locks that this serving thread's caller holds.
        Thread.startVirtualThread(
            () -> abandon("the client is " + tokensBehind + " tokens behind"));
        return;
      }
      events.add(new Token(choice, token));
    }

    @Override
    public void finished(FinishReason reason) {
      keepEnd(choice, reason);
      events.add(new Finished(choice, reason));
    }

    @Override
    public void failed(FlotillaException error) {
      events.add(new Failed(choice, error));
    }
  }
}
