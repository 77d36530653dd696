package dev.flotilla.data.queue;

import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.QueueAwaitReply;
import dev.flotilla.data.proto.QueueAwaitRequest;
import dev.flotilla.data.proto.QueueBacklog;
import dev.flotilla.data.proto.QueueBacklogsReply;
import dev.flotilla.data.proto.QueueBacklogsRequest;
import dev.flotilla.data.proto.QueueBestReply;
import dev.flotilla.data.proto.QueueBestRequest;
import dev.flotilla.data.proto.QueueChanged;
import dev.flotilla.data.proto.QueueChangedReply;
import dev.flotilla.data.proto.QueueFailure;
import dev.flotilla.data.proto.QueueHandedOut;
import dev.flotilla.data.proto.QueueOwnersGrpc;
import dev.flotilla.data.proto.QueueReceiveReply;
import dev.flotilla.data.proto.QueueReceiveRequest;
import dev.flotilla.data.queue.Queue.Message;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Asks the other nodes for what they hand out, and answers them. */
final class QueuePeers extends QueueOwnersGrpc.QueueOwnersImplBase {

  private static final Logger log = LoggerFactory.getLogger(QueuePeers.class);
  private static final long RECEIVE_MS = 15_000;
  private static final long SHORT_MS = 2_000;
  private static final long AWAIT_MS_MAX = 10_000;
  private static final long POLL_MS = 100;
  private static final long SILENT_NS = 500_000_000L;

  /** A call to a node that need not be made twice at the same time. */
  private record Call(String node, String queue, String group) {}

  private final Cluster cluster;
  private final Function<String, Optional<GridQueue>> queues;
  private final Map<Call, Boolean> awaiting = new ConcurrentHashMap<>();
  private final Map<Call, Long> silentUntilNs = new ConcurrentHashMap<>();

  /** Calls on their way: true if there is news since. */
  private final Map<Call, Boolean> telling = new HashMap<>();

  /**
   * @param queues those that exist, by name
   */
  QueuePeers(Cluster cluster, Function<String, Optional<GridQueue>> queues) {
    this.cluster = cluster;
    this.queues = queues;
    cluster.addService(this);
  }

  // Asking.

  /**
   * @param least nothing of a lower priority
   */
  List<Message> receive(
      String node, String queue, String group, int max, Duration visibility, int least) {
    QueueReceiveReply reply;
    try {
      reply =
          QueueOwnersGrpc.newBlockingStub(cluster.channel(node))
              .withDeadlineAfter(RECEIVE_MS, TimeUnit.MILLISECONDS)
              .receive(
                  QueueReceiveRequest.newBuilder()
                      .setQueue(queue)
                      .setGroup(group)
                      .setMax(max)
                      .setVisibilityMs(visibility.toMillis())
                      .setPriorityMin(least)
                      .build());
    } catch (StatusRuntimeException e) {
      throw silent(node, queue, e);
    }
    if (reply.hasFailure()) {
      throw failure(reply.getFailure());
    }
    List<Message> messages = new ArrayList<>();
    for (QueueHandedOut each : reply.getMessagesList()) {
      messages.add(
          new Message(
              each.getId(),
              each.getReceipt(),
              each.getKey(),
              each.getBody().toByteArray(),
              each.getAttempt()));
    }
    return messages;
  }

  /** The highest priority of what can be handed out there; -1 if nothing can. */
  int best(String node, String queue, String group) {
    QueueBestReply reply;
    try {
      reply =
          QueueOwnersGrpc.newBlockingStub(cluster.channel(node))
              .withDeadlineAfter(RECEIVE_MS, TimeUnit.MILLISECONDS)
              .best(QueueBestRequest.newBuilder().setQueue(queue).setGroup(group).build());
    } catch (StatusRuntimeException e) {
      throw silent(node, queue, e);
    }
    if (reply.hasFailure()) {
      throw failure(reply.getFailure());
    }
    return reply.getPriority();
  }

  private static FlotillaException silent(String node, String queue, StatusRuntimeException e) {
    return new FlotillaException(
        Code.UNAVAILABLE,
        "node " + node + ", which hands out messages of queue " + queue + ", does not answer",
        "Try again soon.",
        e);
  }

  private static FlotillaException failure(QueueFailure failure) {
    return new FlotillaException(
        Code.valueOf(failure.getCode()), failure.getMessage(), failure.getRemedy());
  }

  private static QueueFailure failure(FlotillaException e) {
    return QueueFailure.newBuilder()
        .setCode(e.code().name())
        .setMessage(String.valueOf(e.getMessage()))
        .setRemedy(e.remedy())
        .build();
  }

  /** Calls back once something can be handed out there; one call at a time serves all. */
  void await(String node, String queue, String group, long waitMs, Runnable found) {
    Call call = new Call(node, queue, group);
    long silent = silentUntilNs.getOrDefault(call, Long.MIN_VALUE);
    if (silent != Long.MIN_VALUE && System.nanoTime() - silent < 0) {
      return;
    }
    if (awaiting.putIfAbsent(call, true) != null) {
      return;
    }
    try {
      QueueOwnersGrpc.newStub(cluster.channel(node))
          .withDeadlineAfter(waitMs + SHORT_MS, TimeUnit.MILLISECONDS)
          .await(
              QueueAwaitRequest.newBuilder()
                  .setQueue(queue)
                  .setGroup(group)
                  .setWaitMs(waitMs)
                  .build(),
              new StreamObserver<QueueAwaitReply>() {
                @Override
                public void onNext(QueueAwaitReply reply) {
                  silentUntilNs.remove(call);
                  awaiting.remove(call);
                  if (reply.getFound()) {
                    found.run();
                  }
                }

                @Override
                public void onError(Throwable failure) {
                  silentUntilNs.put(call, System.nanoTime() + SILENT_NS);
                  awaiting.remove(call);
                }

                @Override
                public void onCompleted() {
                  awaiting.remove(call);
                }
              });
    } catch (FlotillaException | IllegalStateException e) {
      silentUntilNs.put(call, System.nanoTime() + SILENT_NS);
      awaiting.remove(call);
    }
  }

  /** Tells the other nodes of a new queue, so that its owners know it from its first message on. */
  void made(String queue) {
    tellAll(QueueChanged.newBuilder().setQueue(queue).build());
  }

  /** Tells them that it has priorities from now on. */
  void hasPriorities(String queue) {
    tellAll(QueueChanged.newBuilder().setQueue(queue).setPriorities(true).build());
  }

  private void tellAll(QueueChanged news) {
    List<CompletableFuture<?>> all = new ArrayList<>();
    for (NodeInfo node : cluster.nodes()) {
      if (!node.id().equals(cluster.self())) {
        all.add(
            CompletableFuture.runAsync(
                () -> tell(node.id(), news), command -> Thread.ofVirtual().start(command)));
      }
    }
    CompletableFuture.allOf(all.toArray(CompletableFuture[]::new)).join();
  }

  private void tell(String node, QueueChanged news) {
    try {
      var _ =
          QueueOwnersGrpc.newBlockingStub(cluster.channel(node))
              .withDeadlineAfter(SHORT_MS, TimeUnit.MILLISECONDS)
              .changed(news);
    } catch (StatusRuntimeException | FlotillaException e) {
      log.debug("node {} gets to know of queue {} later", node, news.getQueue());
    }
  }

  /** Tells the node that something may be there to hand out; says it again for later news only. */
  void changed(String node, String queue) {
    Call call = new Call(node, queue, "");
    synchronized (telling) {
      if (telling.putIfAbsent(call, false) != null) {
        telling.put(call, true);
        return;
      }
    }
    tell(call);
  }

  private void tell(Call call) {
    try {
      QueueOwnersGrpc.newStub(cluster.channel(call.node()))
          .withDeadlineAfter(SHORT_MS, TimeUnit.MILLISECONDS)
          .changed(
              QueueChanged.newBuilder().setQueue(call.queue()).build(),
              new StreamObserver<QueueChangedReply>() {
                @Override
                public void onNext(QueueChangedReply reply) {
                  // The end says it.
                }

                @Override
                public void onError(Throwable failure) {
                  told(call, false);
                }

                @Override
                public void onCompleted() {
                  told(call, true);
                }
              });
    } catch (FlotillaException | IllegalStateException e) {
      told(call, false);
    }
  }

  private void told(Call call, boolean answered) {
    boolean again;
    synchronized (telling) {
      // Who does not answer looks for itself now and then.
      again = answered && Boolean.TRUE.equals(telling.get(call));
      if (again) {
        telling.put(call, false);
      } else {
        telling.remove(call);
      }
    }
    if (again) {
      tell(call);
    }
  }

  /** How much the node has handed out to each group; nothing if it does not answer. */
  Map<String, Long> held(String node, String queue) {
    Map<String, Long> held = new HashMap<>();
    try {
      QueueOwnersGrpc.newBlockingStub(cluster.channel(node))
          .withDeadlineAfter(SHORT_MS, TimeUnit.MILLISECONDS)
          .backlogs(QueueBacklogsRequest.newBuilder().setQueue(queue).build())
          .getGroupsList()
          .forEach(each -> held.put(each.getGroup(), each.getHeld()));
    } catch (StatusRuntimeException | FlotillaException e) {
      return Map.of();
    }
    return held;
  }

  // Answering.

  @Override
  public void receive(QueueReceiveRequest request, StreamObserver<QueueReceiveReply> observer) {
    QueueReceiveReply.Builder reply = QueueReceiveReply.newBuilder();
    try {
      queues
          .apply(request.getQueue())
          .ifPresent(
              queue ->
                  queue
                      .handOut(
                          request.getGroup(),
                          request.getMax(),
                          Duration.ofMillis(request.getVisibilityMs()),
                          request.getPriorityMin())
                      .forEach(message -> reply.addMessages(toMessage(message))));
    } catch (FlotillaException e) {
      reply.clear().setFailure(failure(e));
    }
    observer.onNext(reply.build());
    observer.onCompleted();
  }

  @Override
  public void best(QueueBestRequest request, StreamObserver<QueueBestReply> observer) {
    QueueBestReply.Builder reply = QueueBestReply.newBuilder();
    try {
      reply.setPriority(
          queues
              .apply(request.getQueue())
              .map(queue -> queue.owner().best(request.getGroup()))
              .orElse(-1));
    } catch (FlotillaException e) {
      reply.setFailure(failure(e));
    }
    observer.onNext(reply.build());
    observer.onCompleted();
  }

  private static QueueHandedOut toMessage(Message message) {
    return QueueHandedOut.newBuilder()
        .setId(message.id())
        .setReceipt(message.receipt())
        .setKey(message.key())
        .setBody(ByteString.copyFrom(message.body()))
        .setAttempt(message.attempt())
        .build();
  }

  @Override
  public void await(QueueAwaitRequest request, StreamObserver<QueueAwaitReply> observer) {
    // It waits: not on a thread of the transport's.
    Thread.ofVirtual()
        .name("queue-await-" + request.getQueue())
        .start(
            () -> {
              try {
                boolean found = await(request);
                observer.onNext(QueueAwaitReply.newBuilder().setFound(found).build());
                observer.onCompleted();
              } catch (FlotillaException | StatusRuntimeException e) {
                observer.onError(
                    Status.UNAVAILABLE.withDescription(e.getMessage()).asRuntimeException());
              } catch (InterruptedException e) {
                observer.onError(Status.CANCELLED.asRuntimeException());
              }
            });
  }

  private boolean await(QueueAwaitRequest request) throws InterruptedException {
    Optional<GridQueue> queue = queues.apply(request.getQueue());
    if (queue.isEmpty()) {
      return false;
    }
    long untilNs = System.nanoTime() + Math.min(request.getWaitMs(), AWAIT_MS_MAX) * 1_000_000L;
    while (true) {
      long seen = queue.get().arrivals().count();
      if (queue.get().owner().mayHave(request.getGroup())) {
        return true;
      }
      long leftMs = (untilNs - System.nanoTime()) / 1_000_000;
      if (leftMs <= 0) {
        return false;
      }
      queue.get().arrivals().await(seen, Math.min(leftMs, POLL_MS));
    }
  }

  @Override
  public void changed(QueueChanged request, StreamObserver<QueueChangedReply> observer) {
    try {
      queues
          .apply(request.getQueue())
          .ifPresent(
              queue -> {
                if (request.getPriorities()) {
                  queue.hasPriorities();
                }
                queue.owner().look();
                queue.arrivals().arrived();
              });
    } catch (FlotillaException e) {
      // It looks for itself soon.
    }
    observer.onNext(QueueChangedReply.getDefaultInstance());
    observer.onCompleted();
  }

  @Override
  public void backlogs(QueueBacklogsRequest request, StreamObserver<QueueBacklogsReply> observer) {
    QueueBacklogsReply.Builder reply = QueueBacklogsReply.newBuilder();
    try {
      queues
          .apply(request.getQueue())
          .ifPresent(
              queue ->
                  queue
                      .owner()
                      .backlogs()
                      .forEach(
                          (group, its) ->
                              reply.addGroups(
                                  QueueBacklog.newBuilder().setGroup(group).setHeld(its.held()))));
    } catch (FlotillaException e) {
      observer.onError(Status.UNAVAILABLE.withDescription(e.getMessage()).asRuntimeException());
      return;
    }
    observer.onNext(reply.build());
    observer.onCompleted();
  }
}
