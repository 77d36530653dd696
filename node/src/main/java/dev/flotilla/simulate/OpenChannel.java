package dev.flotilla.simulate;

import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** A channel with nothing behind it that would have to be closed. */
abstract class OpenChannel extends ManagedChannel {

  @Override
  public ManagedChannel shutdown() {
    return this;
  }

  @Override
  public boolean isShutdown() {
    return false;
  }

  @Override
  public boolean isTerminated() {
    return false;
  }

  @Override
  public ManagedChannel shutdownNow() {
    return this;
  }

  @Override
  public boolean awaitTermination(long timeout, TimeUnit unit) {
    return true;
  }
}
