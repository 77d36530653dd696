package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Inbox;
import dev.flotilla.Threads;
import dev.flotilla.model.Rows;
import dev.flotilla.serve.proto.ChainReply;
import dev.flotilla.serve.proto.Opened;
import dev.flotilla.serve.proto.Partial;
import dev.flotilla.serve.proto.Step;
import dev.flotilla.serve.proto.StepResult;
import io.grpc.Status;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A stage behind the head: one thread that runs the steps of the newest chain through the slice and
 * hands them on. Results of the stages behind pass by on the transport's thread, so that they do
 * not wait for this stage's arithmetic.
 */
final class Worker implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Worker.class);

  private static final long IDLE_NS = 10_000_000_000L;

  /** A chain that came in, and where it goes on. */
  static final class Session {
    private final Replies<ChainReply> upstream;
    private final RankSums.Peer root;
    private @Nullable Chain downstream;

    Session(Replies<ChainReply> upstream) {
      this.upstream = upstream;
      this.root =
          new RankSums.Peer(
              values ->
                  upstream.send(
                      ChainReply.newBuilder()
                          .setPartial(Partial.newBuilder().setValues(Wire.bytes(values)))
                          .build()));
    }

    /** A part of a sum came, or the sum. */
    void partial(float[] values) {
      root.arrived(values);
    }

    private void end(Status status) {
      root.lose();
      upstream.fail(status);
      if (downstream != null) {
        downstream.close();
      }
    }
  }

  private final String name;
  private final Stage stage;
  private final WireType wire;
  private final Optional<RankSums> sums;
  private final Function<Chain.Listener, Chain> onward;
  private final Inbox<Runnable> inbox;
  private final Threads.Started thread;
  private volatile boolean closed;
  private @Nullable Session current;

  /**
   * @param wire how hidden states come and go
   * @param sums of a rank that makes the steps of rank 0 with it, and answers nothing
   * @param onward opens the chain to the next stage; not used by the last one
   */
  Worker(
      String name,
      Stage stage,
      WireType wire,
      Optional<RankSums> sums,
      Function<Chain.Listener, Chain> onward,
      Threads threads) {
    this.name = name;
    this.stage = stage;
    this.wire = wire;
    this.sums = sums;
    this.onward = onward;
    this.inbox = new Inbox<>(threads);
    this.thread = threads.start("stage-" + name, this::loop);
  }

  void open(Session session) {
    inbox.add(() -> begin(session));
  }

  void step(Session session, Step step) {
    inbox.add(() -> run(session, step));
  }

  void end(Session session) {
    session.root.lose(); // the thread may wait for it
    inbox.add(
        () -> {
          if (session == current) {
            current = null;
            session.end(Status.CANCELLED);
            stage.reset();
          }
        });
  }

  private void loop() {
    while (!closed) {
      try {
        inbox.poll(IDLE_NS).ifPresent(Runnable::run);
      } catch (InterruptedException e) {
        return; // only close() interrupts
      } catch (RuntimeException | Error e) {
        if (e instanceof FlotillaException lost
            && lost.code() == FlotillaException.Code.UNAVAILABLE) {
          log.warn("stage {} drops its chain: {}", name, lost.getMessage());
        } else {
          log.error("stage {} failed and drops its chain", name, e);
        }
        if (current != null) {
          current.end(Status.UNAVAILABLE.withDescription("stage " + name + " failed: " + e));
          current = null;
        }
        stage.reset();
      }
    }
  }

  private void begin(Session session) {
    if (current != null) {
      current.end(Status.ABORTED.withDescription("a newer chain took over"));
    }
    stage.reset();
    current = session;
    sums.ifPresent(all -> all.connect(List.of(session.root)));
    if (stage.last()) {
      session.upstream.send(opened(true));
      return;
    }
    session.downstream =
        onward.apply(
            new Chain.Listener() {
              @Override
              public void opened(boolean copies) {
                session.upstream.send(Worker.opened(copies));
              }

              @Override
              public void result(StepResult result) {
                session.upstream.send(ChainReply.newBuilder().setResult(result).build());
              }

              @Override
              public void exported(BlockPart part) {
                send(session, part);
              }

              @Override
              public void broken(Status status) {
                session.upstream.fail(status);
                end(session);
              }
            });
  }

  private static ChainReply opened(boolean copies) {
    return ChainReply.newBuilder().setOpened(Opened.newBuilder().setCopies(copies)).build();
  }

  private static void send(Session session, BlockPart part) {
    session.upstream.send(ChainReply.newBuilder().setExported(Wire.part(part)).build());
  }

  private void run(Session session, Step step) {
    if (session != current) {
      return; // of a chain that ended
    }
    Rows rows = Wire.rows(step);
    float[] hidden = Wire.hidden(step.getHidden(), wire);
    List<BlockPart> imports = Wire.imports(step);
    stage.write(imports);
    stage.forward(hidden, rows);
    if (sums.isPresent()) {
      return;
    }
    if (session.downstream != null) {
      session.downstream.send(
          step.toBuilder()
              .setHidden(Wire.hidden(hidden, wire))
              .clearImports()
              .addAllImports(Wire.parts(stage.behind(imports)))
              .build());
      export(session, step);
      return;
    }
    StepResult.Builder result = StepResult.newBuilder().setNumber(step.getNumber());
    for (int token : stage.draw(hidden, Wire.draws(step))) {
      result.addTokens(token);
    }
    for (float[] vector :
        stage.pool(hidden, Wire.pools(step), Wire.longs(step.getReleasesList()))) {
      result.addVectors(Wire.bytes(vector));
    }
    session.upstream.send(ChainReply.newBuilder().setResult(result).build());
    export(session, step);
  }

  private void export(Session session, Step step) {
    stage.read(Wire.exports(step)).forEach(part -> send(session, part));
  }

  /** Stops the thread and ends the chain; the slice stays, for another placement to take over. */
  @Override
  public void close() {
    closed = true;
    sums.ifPresent(RankSums::lose);
    inbox.add(() -> {});
    Closing.join(thread);
    if (current != null) {
      current.end(Status.UNAVAILABLE.withDescription("stage " + name + " was moved"));
      current = null;
    }
  }
}
