package dev.flotilla.simulate;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.MethodDescriptor;

/** A process's channel to another machine. */
final class SimulatedChannel extends OpenChannel {

  private final World world;
  private final Network network;
  private final SimulatedNode from;
  private final String to;

  SimulatedChannel(World world, Network network, SimulatedNode from, String to) {
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
}
