package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Inbox;
import dev.flotilla.Threads;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Rows;
import dev.flotilla.serve.proto.CopyBegin;
import dev.flotilla.serve.proto.CopyMessage;
import dev.flotilla.serve.proto.StepResult;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The head of a replica under one placement: its thread owns the scheduler and the first stage.
 * Everything else reaches it through its inbox. When the chain to the other stages breaks, their
 * caches are gone: every request is handed back as {@code UNAVAILABLE}, for its router to continue
 * it, and the chain is opened anew.
 */
final class Head implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Head.class);
  private static final long REOPEN_NS = TimeUnit.MILLISECONDS.toNanos(50);
  private static final long IDLE_NS = TimeUnit.SECONDS.toNanos(1);
  private static final long CLOSED_NS = TimeUnit.MILLISECONDS.toNanos(10);
  private static final int DECODE_ROWS = 64;
  private static final int GUESS_ROWS = 8;
  private static final int MAX_RUNNING = 32;
  private static final int MAX_WAITING = 256;

  /** Chunks of prompts in one step, and bytes of hidden states. */
  private static final int CHUNKS = 4;

  private static final int MESSAGE_BYTES = 16 << 20;

  private final String replica;
  private final Stage stage;
  private final WireType wire;
  private final Function<Chain.Listener, Chain> onward;
  private final Optional<Followers> followers;
  private final BiConsumer<String, String> status;
  private final ServingMetrics metrics;
  private final LongSupplier nanoTime;
  private final Scheduler scheduler;
  private final Copier.Form form;
  private final Copier copier;
  private final Inbox<Runnable> inbox;
  private final Threads.Started thread;
  private boolean closed;

  /** Written by the head's thread. */
  private volatile boolean open;

  // Of the head's thread:
  private boolean stopped;
  private boolean keepsCopies;
  private final List<CopyReceiver> receivers = new ArrayList<>();
  private @Nullable Chain chain;
  private @Nullable ChainEvents events;
  private long reopenAtNs;

  /**
   * @param wire how hidden states go to the second stage
   * @param onward opens the chain to the second stage; not used if the first is also the last
   * @param followers the other ranks, where they share out the layers with this node
   * @param form of its cache, for copies of it
   * @param channels to other nodes
   * @param status hears the replica's state and the reason for it, in the terms of {@link
   *     ReplicaStatus}
   */
  Head(
      String replica,
      Stage stage,
      int stages,
      WireType wire,
      Drafter drafter,
      Function<Chain.Listener, Chain> onward,
      Optional<Followers> followers,
      Copier.Form form,
      Function<String, ManagedChannel> channels,
      BiConsumer<String, String> status,
      ServingMetrics metrics,
      LongSupplier nanoTime,
      Threads threads) {
    this.replica = replica;
    this.stage = stage;
    this.wire = wire;
    this.onward = onward;
    this.followers = followers;
    this.status = status;
    this.metrics = metrics;
    this.nanoTime = nanoTime;
    this.scheduler = new Scheduler(limits(stage, stages), drafter, form.layers());
    this.form = form;
    this.copier =
        new Copier(
            replica,
            form,
            scheduler.copies(),
            channels,
            this::post,
            bytes -> metrics.copied(replica, bytes),
            nanoTime);
    this.reopenAtNs = nanoTime.getAsLong();
    this.inbox = new Inbox<>(threads);
    this.thread = threads.start("head-" + replica, this::loop);
  }

  private static Scheduler.Limits limits(Stage stage, int stages) {
    ModelConfig config = stage.slice().config();
    int blocks = stage.slice().blocks();
    long chunkBytes = 4L * config.width() * Rows.CHUNK;
    // Where there are several stages, one works on a chunk while the next one has that before it.
    int chunks = stages > 1 ? 1 : CHUNKS;
    return new Scheduler.Limits(
        DECODE_ROWS,
        GUESS_ROWS,
        Rows.CHUNK * Math.clamp(MESSAGE_BYTES / chunkBytes, 1, chunks),
        Rows.CHUNK,
        MAX_RUNNING,
        MAX_WAITING,
        blocks,
        Math.min(config.contextLength(), blocks * Scheduler.BLOCK),
        stages);
  }

  /**
   * Spares a request the work of getting ready for a head that would not take it.
   *
   * @throws FlotillaException {@code UNAVAILABLE} if it takes none now
   */
  void checkOpen() {
    if (!open) {
      throw unavailable("replica " + replica + " is loading");
    }
  }

  /** Takes a request; what becomes of it, its listener hears. */
  void submit(Scheduler.Submission submission, Scheduler.Listener listener) {
    boolean taken =
        post(
            () -> {
              try {
                checkOpen();
              } catch (FlotillaException e) {
                listener.failed(e);
                return;
              }
              scheduler.submit(submission, listener);
            });
    if (!taken) {
      listener.failed(unavailable("replica " + replica + " was moved"));
    }
  }

  /** Stops a request within one step; unknown ids are ignored. */
  void cancel(String id) {
    post(() -> scheduler.cancel(id));
  }

  /** Where copies of the requests' part of the cache are to go. */
  void copyTo(Optional<Copier.Target> target) {
    post(() -> copier.want(target));
  }

  /** Another replica's head wants to have copies kept here. */
  void receive(CopyReceiver receiver, CopyBegin begin) {
    boolean taken =
        post(
            () -> {
              if (!form.fits(begin)) {
                receiver.fail(
                    Status.FAILED_PRECONDITION.withDescription(
                        "the KV cache of " + replica + " has another form"));
              } else if (open && keepsCopies) {
                receivers.add(receiver);
                receiver.open(scheduler.kept());
              } else {
                receiver.fail(
                    Status.UNAVAILABLE.withDescription("replica " + replica + " takes no copies"));
              }
            });
    if (!taken) {
      receiver.fail(Status.UNAVAILABLE.withDescription("replica " + replica + " was moved"));
    }
  }

  /** What comes of such a stream. */
  void receive(CopyReceiver receiver, CopyMessage message) {
    post(() -> receiver.message(message, form));
  }

  /** Such a stream ends. */
  void ended(CopyReceiver receiver) {
    post(
        () -> {
          receivers.remove(receiver);
          receiver.end();
        });
  }

  private synchronized boolean post(Runnable event) {
    if (closed) {
      return false;
    }
    inbox.add(event);
    return true;
  }

  private void loop() {
    while (!stopped) {
      try {
        step();
      } catch (InterruptedException e) {
        stopped = true; // nobody else interrupts: the process ends
      } catch (RuntimeException | Error e) {
        if (e instanceof FlotillaException lost
            && lost.code() == FlotillaException.Code.UNAVAILABLE) {
          broken(Status.UNAVAILABLE.withDescription(lost.getMessage()));
          continue;
        }
        log.error("replica {}: a step failed; its requests are handed back", replica, e);
        broken(Status.INTERNAL.withDescription(e.toString()));
        reopenAtNs = nanoTime.getAsLong() + TimeUnit.SECONDS.toNanos(1);
      }
    }
  }

  /** One turn: schedule, run, deliver. */
  private void step() throws InterruptedException {
    Optional<Batch> batch = open ? scheduler.schedule() : reopen();
    if (batch.isPresent()) {
      run(batch.get());
    }
    deliver(batch.isPresent());
  }

  private void run(Batch batch) {
    long startNs = nanoTime.getAsLong();
    stage.write(batch.imports());
    float[] hidden = stage.embed(batch.tokens());
    if (followers.isPresent()) {
      // Always whole: all ranks must begin with the same bits. They draw nothing.
      followers.get().send(Wire.step(batch.rowsOnly(), hidden, List.of(), WireType.F32));
    }
    stage.forward(hidden, batch.rows());
    if (chain != null) {
      chain.send(Wire.step(batch, hidden, stage.behind(batch.imports()), wire));
    } else {
      scheduler.deliver(
          batch.number(),
          stage.draw(hidden, batch.draws()),
          stage.pool(hidden, batch.pools(), batch.releases()));
    }
    stage.read(batch.exports()).forEach(copier::exported);
    if (batch.rows().count() > 0) {
      metrics.step(replica, nanoTime.getAsLong() - startNs, batch.rows().count());
    }
  }

  private void deliver(boolean busy) throws InterruptedException {
    Optional<Runnable> event = busy ? inbox.poll() : inbox.poll(open ? IDLE_NS : CLOSED_NS);
    for (; event.isPresent(); event = inbox.poll()) {
      event.get().run();
    }
    if (open && keepsCopies) {
      copier.turn();
    }
    metrics.queue(replica, scheduler);
  }

  /** Opens the chain when it is time to; schedules nothing. */
  private Optional<Batch> reopen() {
    if (events == null && nanoTime.getAsLong() - reopenAtNs >= 0) {
      stage.reset(); // also what an earlier placement left in a slice that stayed
      ChainEvents opening = new ChainEvents();
      events = opening;
      if (followers.isPresent()) {
        followers.get().open(opening);
      } else if (stage.last()) {
        opened(true);
      } else {
        chain = onward.apply(opening);
      }
    }
    return Optional.empty();
  }

  private void opened(boolean copies) {
    open = true;
    keepsCopies = copies;
    status.accept(ReplicaStatus.READY, "");
    log.info("replica {} is ready", replica);
  }

  private void broken(Status cause) {
    events = null;
    closeChains();
    stage.reset();
    reopenAtNs = nanoTime.getAsLong() + REOPEN_NS;
    String reason = String.valueOf(cause.getDescription());
    if (open) {
      log.warn("replica {} lost its chain: {}", replica, cause);
    }
    open = false;
    status.accept(
        cause.getCode() == Status.Code.FAILED_PRECONDITION
            ? ReplicaStatus.FAILED
            : ReplicaStatus.LOADING,
        reason);
    lose(unavailable("replica " + replica + " lost a stage: " + reason));
  }

  /** The caches are gone: this one's requests go on elsewhere, and so do others' copies. */
  private void lose(FlotillaException error) {
    copier.close();
    receivers.forEach(
        receiver -> receiver.fail(Status.UNAVAILABLE.withDescription(error.getMessage())));
    receivers.clear();
    scheduler.fail(error);
  }

  private void closeChains() {
    if (chain != null) {
      chain.close();
      chain = null;
    }
    followers.ifPresent(Followers::close);
  }

  private static FlotillaException unavailable(String what) {
    return new FlotillaException(
        FlotillaException.Code.UNAVAILABLE, what, "It continues elsewhere or later.");
  }

  /** Hands back every request and stops; the slice stays, for another placement to take over. */
  @Override
  public void close() {
    synchronized (this) {
      closed = true;
      inbox.add(() -> stopped = true);
    }
    followers.ifPresent(Followers::lose); // the thread may wait for them
    Closing.join(thread);
    for (Optional<Runnable> event = inbox.poll(); event.isPresent(); event = inbox.poll()) {
      event.get().run();
    }
    closeChains();
    open = false;
    lose(unavailable("replica " + replica + " was moved"));
    metrics.gone(replica);
  }

  /** Carries what a chain says to the head's thread; an earlier chain's words count no more. */
  private final class ChainEvents implements Chain.Listener {

    @Override
    public void opened(boolean copies) {
      post(
          () -> {
            if (this == events) {
              Head.this.opened(copies);
            }
          });
    }

    @Override
    public void exported(BlockPart part) {
      post(
          () -> {
            if (this == events) {
              copier.exported(part);
            }
          });
    }

    @Override
    public void result(StepResult result) {
      int[] tokens = Wire.ints(result.getTokensList());
      List<float[]> vectors = Wire.vectors(result);
      post(
          () -> {
            if (this == events) {
              scheduler.deliver(result.getNumber(), tokens, vectors);
            }
          });
    }

    @Override
    public void broken(Status status) {
      post(
          () -> {
            if (this == events) {
              Head.this.broken(status);
            }
          });
    }
  }
}
