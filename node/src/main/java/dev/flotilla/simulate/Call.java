package dev.flotilla.simulate;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A gRPC call over the simulated network: both ends are what generated stubs and services see of
 * the real one. Each direction is a queue that keeps its order; where the way is cut, it waits. The
 * caller pings, and gives up after five to ten seconds of silence; the callee does not.
 */
final class Call<Q, R> extends ClientCall<Q, R> {

  private static final long RETRANSMIT_NS = 200 * World.MS;
  private static final long PATIENCE_LOW_NS = 5 * World.S;
  private static final long PATIENCE_HIGH_NS = 10 * World.S;

  /** One direction: tasks that arrive one after the other. */
  private final class Pipe {
    private final String from;
    private final String to;
    private final Deque<Runnable> waiting = new ArrayDeque<>();
    private boolean moving;

    Pipe(String from, String to) {
      this.from = from;
      this.to = to;
    }

    void send(Runnable arrival) {
      waiting.add(arrival);
      if (!moving) {
        moving = true;
        move(network.delayNs(from, to));
      }
    }

    private void move(long delayNs) {
      world.after(
          delayNs,
          null,
          () -> {
            if (!network.open(from, to) || !network.machine(to).on) {
              move(RETRANSMIT_NS);
              return;
            }
            Runnable next = waiting.remove();
            next.run();
            if (waiting.isEmpty()) {
              moving = false;
            } else {
              move(world.between(0, 50_000));
            }
          });
    }
  }

  private final World world;
  private final Network network;
  private final MethodDescriptor<Q, R> method;
  private final SimulatedNode client;
  private final String serverName;
  private final Pipe there;
  private final Pipe back;
  private final long patienceNs;
  private @Nullable SimulatedNode server;
  private @Nullable Listener<R> listener;
  private ServerCall.@Nullable Listener<Q> serverListener;
  private long heardNs;
  private boolean clientClosed;
  private boolean serverClosed;

  Call(
      World world,
      Network network,
      MethodDescriptor<Q, R> method,
      SimulatedNode client,
      String serverName) {
    this.world = world;
    this.network = network;
    this.method = method;
    this.client = client;
    this.serverName = serverName;
    this.there = new Pipe(client.name(), serverName);
    this.back = new Pipe(serverName, client.name());
    this.patienceNs = world.between(PATIENCE_LOW_NS, PATIENCE_HIGH_NS);
  }

  // The caller's end.

  @Override
  public void start(Listener<R> responses, Metadata headers) {
    listener = responses;
    heardNs = world.nowNs();
    network.add(this);
    there.send(this::arrive);
  }

  private void arrive() {
    SimulatedNode process = network.machine(serverName).running();
    if (process == null) {
      back.send(() -> closeClient(Status.UNAVAILABLE.withDescription("connection refused")));
      return;
    }
    server = process;
    world.after(
        0,
        process,
        () -> {
          @SuppressWarnings("unchecked") // the name decides both types
          ServerCallHandler<Q, R> handler =
              (ServerCallHandler<Q, R>) process.handler(method.getFullMethodName());
          if (handler == null) {
            back.send(() -> closeClient(Status.UNIMPLEMENTED));
          } else {
            serverListener = handler.startCall(new ServerEnd(), new Metadata());
          }
        });
  }

  /** Has the server hear something, if it is still that process and wants it. */
  private void toServer(Consumer<ServerCall.Listener<Q>> event) {
    there.send(
        () -> {
          SimulatedNode process = server;
          if (process == null || process.down) {
            return;
          }
          world.after(
              0,
              process,
              () -> {
                if (serverListener != null && !serverClosed) {
                  event.accept(serverListener);
                }
              });
        });
  }

  @Override
  public void request(int messages) {
    // Nobody here is held up by who reads slowly.
  }

  @Override
  public void cancel(@Nullable String message, @Nullable Throwable cause) {
    if (clientClosed) {
      return;
    }
    toServer(this::cancelServer);
    world.after(1_000, client, () -> closeClient(Status.CANCELLED.withDescription(message)));
  }

  private void cancelServer(ServerCall.Listener<Q> end) {
    serverClosed = true;
    end.onCancel();
  }

  @Override
  public void halfClose() {
    toServer(ServerCall.Listener::onHalfClose);
  }

  @Override
  public void sendMessage(Q message) {
    if (!clientClosed) {
      toServer(end -> end.onMessage(message));
    }
  }

  /** Has the client hear something, if it lives. */
  private void toClient(Runnable event) {
    back.send(
        () ->
            world.after(
                0,
                client,
                () -> {
                  heardNs = world.nowNs();
                  if (!clientClosed) {
                    event.run();
                  }
                }));
  }

  private void closeClient(Status status) {
    if (!clientClosed && !client.down && listener != null) {
      clientClosed = true;
      Listener<R> end = listener;
      world.after(0, client, () -> end.onClose(status, new Metadata()));
    }
  }

  // The callee's end.

  private final class ServerEnd extends ServerCall<Q, R> {

    @Override
    public void request(int messages) {
      // As above.
    }

    @Override
    public void sendHeaders(Metadata headers) {
      // They say nothing that anybody here reads.
    }

    @Override
    public void sendMessage(R message) {
      toClient(
          () -> {
            if (listener != null) {
              listener.onMessage(message);
            }
          });
    }

    @Override
    public void close(Status status, Metadata trailers) {
      if (!serverClosed) {
        serverClosed = true;
        toClient(() -> closeClient(status));
      }
    }

    @Override
    public boolean isCancelled() {
      return serverClosed;
    }

    @Override
    public MethodDescriptor<Q, R> getMethodDescriptor() {
      return method;
    }
  }

  // What becomes of it when something breaks.

  /** Nobody is there any more who would hear of it. */
  boolean over() {
    SimulatedNode callee = server;
    boolean nobodyThere = callee == null || callee.down || serverClosed;
    return (client.down || clientClosed) && nobodyThere;
  }

  /** A process at one end has ended. */
  void ended(SimulatedNode process) {
    if (process == server) {
      serverClosed = true;
      if (network.machine(serverName).on) {
        toClient(() -> closeClient(Status.UNAVAILABLE.withDescription("connection reset")));
      }
    }
    if (process == client) {
      clientClosed = true;
      if (network.machine(client.name()).on) {
        toServer(this::cancelServer);
      }
    }
  }

  /** Looks whether the caller still hears anything; a reset reaches the callee when it can. */
  void watch() {
    Network.Machine callee = network.machine(serverName);
    boolean reached =
        network.open(client.name(), serverName) && network.open(serverName, client.name());
    if (reached && callee.on && server != null && !server.down) {
      heardNs = world.nowNs();
    }
    if (reached && callee.on && server != null && server.down) {
      // The machine came back, without the connection.
      closeClient(Status.UNAVAILABLE.withDescription("connection reset"));
    }
    if (!clientClosed && world.nowNs() - heardNs > patienceNs) {
      Status silent = Network.silent(serverName);
      clientClosed = true;
      toServer(this::cancelServer);
      if (!client.down && listener != null) {
        Listener<R> end = listener;
        world.after(0, client, () -> end.onClose(silent, new Metadata()));
      }
    }
    if (client.down && !serverClosed && server != null && !server.down) {
      Network.Machine machine = network.machine(client.name());
      if (machine.on && reached) {
        SimulatedNode there = server;
        ServerCall.Listener<Q> end = serverListener;
        serverClosed = true;
        if (end != null) {
          world.after(0, there, end::onCancel);
        }
      }
    }
  }
}
