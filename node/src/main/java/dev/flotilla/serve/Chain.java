package dev.flotilla.serve;

import dev.flotilla.serve.proto.ChainMessage;
import dev.flotilla.serve.proto.ChainReply;
import dev.flotilla.serve.proto.Open;
import dev.flotilla.serve.proto.Partial;
import dev.flotilla.serve.proto.StagesGrpc;
import dev.flotilla.serve.proto.Step;
import dev.flotilla.serve.proto.StepResult;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;

/** The way from one stage to the next: steps go out in order, results come back in order. */
final class Chain {

  /** Hears of the chain, one call at a time, on a thread of the transport. */
  interface Listener {

    /**
     * All stages behind are loaded and empty.
     *
     * @param copies whether all of them know imports and exports
     */
    void opened(boolean copies);

    /** A step came back from the last stage. */
    void result(StepResult result);

    /** A part of a block that was to be exported came back. */
    default void exported(BlockPart part) {}

    /** A rank's part of a sum came back. */
    default void partial(float[] values) {}

    /** The chain is gone, and with it every cache on it; comes once. */
    void broken(Status status);
  }

  private final Listener listener;
  private final AtomicBoolean ended = new AtomicBoolean();
  private @Nullable ClientCallStreamObserver<ChainMessage> requests;

  private Chain(Listener listener) {
    this.listener = listener;
  }

  /** Opens the chain to stage number {@code stage} of a replica. */
  static Chain open(
      ManagedChannel channel, String replica, long epoch, int stage, Listener listener) {
    Chain chain = new Chain(listener);
    StagesGrpc.newStub(channel).chain(chain.new Replies());
    chain.next(
        ChainMessage.newBuilder()
            .setOpen(Open.newBuilder().setReplica(replica).setEpoch(epoch).setStage(stage))
            .build());
    return chain;
  }

  void send(Step step) {
    next(ChainMessage.newBuilder().setStep(step).build());
  }

  void sendPartial(float[] values) {
    next(
        ChainMessage.newBuilder()
            .setPartial(Partial.newBuilder().setValues(Wire.bytes(values)))
            .build());
  }

  private void next(ChainMessage message) {
    try {
      requests().onNext(message);
    } catch (IllegalStateException e) {
      // Cancelled or closed meanwhile: the listener hears it, or does not want to any more.
      end(Status.UNAVAILABLE.withDescription("the chain is closed"));
    }
  }

  private ClientCallStreamObserver<ChainMessage> requests() {
    if (requests == null) {
      throw new IllegalStateException("not started");
    }
    return requests;
  }

  /** Closes it; the listener hears nothing more. */
  void close() {
    if (ended.compareAndSet(false, true)) {
      requests().cancel("the chain is closed", null);
    }
  }

  private void end(Status status) {
    if (ended.compareAndSet(false, true)) {
      listener.broken(status);
    }
  }

  private final class Replies implements ClientResponseObserver<ChainMessage, ChainReply> {

    @Override
    public void beforeStart(ClientCallStreamObserver<ChainMessage> stream) {
      requests = stream;
    }

    @Override
    public void onNext(ChainReply reply) {
      if (ended.get()) {
        return;
      }
      switch (reply.getKindCase()) {
        case OPENED -> listener.opened(reply.getOpened().getCopies());
        case RESULT -> listener.result(reply.getResult());
        case EXPORTED -> listener.exported(Wire.part(reply.getExported()));
        case PARTIAL -> listener.partial(Wire.floats(reply.getPartial().getValues()));
        case KIND_NOT_SET -> {} // a newer version's
      }
    }

    @Override
    public void onError(Throwable error) {
      end(Status.fromThrowable(error));
    }

    @Override
    public void onCompleted() {
      end(Status.UNAVAILABLE.withDescription("the next stage ended the chain"));
    }
  }
}
