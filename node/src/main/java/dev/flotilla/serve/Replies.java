package dev.flotilla.serve;

import io.grpc.Status;
import io.grpc.stub.StreamObserver;

/** An answering stream that several threads may use, and that ends once. */
final class Replies<T> {

  private final StreamObserver<T> stream;
  private boolean ended;

  Replies(StreamObserver<T> stream) {
    this.stream = stream;
  }

  /** Hands a message to the transport, which queues it. */
  synchronized void send(T message) {
    if (!ended) {
      try {
        stream.onNext(message);
      } catch (RuntimeException e) {
        ended = true; // the caller is gone; it is told of by the transport as well
      }
    }
  }

  synchronized void complete() {
    if (!ended) {
      ended = true;
      stream.onCompleted();
    }
  }

  synchronized void fail(Status status) {
    if (!ended) {
      ended = true;
      try {
        stream.onError(status.asRuntimeException());
      } catch (IllegalStateException e) {
        // The caller cancelled it meanwhile; nobody listens.
      }
    }
  }
}
