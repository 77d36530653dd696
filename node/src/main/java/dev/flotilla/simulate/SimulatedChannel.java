package dev.flotilla.simulate;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import java.util.concurrent.TimeUnit;

/** A process's channel to another machine. */
final class SimulatedChannel extends ManagedChannel {

  private final World world;
  private final Network network;
  private final NodeProcess from;
  private final String to;

  SimulatedChannel(World world, Network network, NodeProcess from, String to) {
    this.world = world;
    this.network = network;
    this.from = from;
    this.to = to;
  }

  @Override
  public <Q, R> ClientCall<Q, R> newCall(MethodDescriptor<Q, R> method, CallOptions options) {
    return new Call<>(world, network, method, from, to);
  }

  @Override
  public String authority() {
    return to;
  }

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
