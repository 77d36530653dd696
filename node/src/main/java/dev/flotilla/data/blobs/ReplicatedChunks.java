package dev.flotilla.data.blobs;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.ChunkList;
import dev.flotilla.data.proto.ChunkPiece;
import dev.flotilla.data.proto.ChunkRequest;
import dev.flotilla.data.proto.ChunksGrpc;
import dev.flotilla.data.proto.StorePiece;
import dev.flotilla.data.proto.StoreReply;
import dev.flotilla.data.proto.WakeRequest;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorCompletionService;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Chunks on the disks of several nodes.
 *
 * <p>A chunk goes to all its keepers at once, and counts as stored when a majority of the wanted
 * copies are on their disks; where a keeper fails, the next node in its order takes its place. What
 * is missing then, the controller's repair brings about. A chunk is read from here, else from the
 * first in its order that has it whole; a keeper that turns out to lack it is given it.
 */
final class ReplicatedChunks implements ChunkVault {

  static final int PIECE_BYTES = 256 << 10;
  static final long CALL_SECONDS = 10;

  private static final int SENDING_BYTES_MAX = 64 << 20;
  private static final long ROOM_SECONDS = 2;

  private static final Logger log = LoggerFactory.getLogger(ReplicatedChunks.class);

  private final Cluster cluster;
  private final ChunkFiles files;
  private final int copies;
  private final ExecutorService threads;
  private final Map<String, Semaphore> sending = new ConcurrentHashMap<>();
  private final AtomicLong repaired = new AtomicLong();

  ReplicatedChunks(Cluster cluster, ChunkFiles files, int copies, ExecutorService threads) {
    this.cluster = cluster;
    this.files = files;
    this.copies = copies;
    this.threads = threads;
  }

  /** How many copies this node got anew because they were missing or damaged. */
  long repaired() {
    return repaired.get();
  }

  /** All nodes in the chunk's order, those that answer first. */
  private List<String> order(String chunk) {
    Map<String, NodeInfo.State> states = new HashMap<>();
    cluster.nodes().forEach(node -> states.put(node.id(), node.state()));
    List<String> all = BlobPlacement.order(chunk, states.keySet());
    List<String> order =
        new ArrayList<>(all.stream().filter(id -> states.get(id) == NodeInfo.State.UP).toList());
    all.stream().filter(id -> states.get(id) != NodeInfo.State.UP).forEach(order::add);
    return order;
  }

  @Override
  public void store(String chunk, byte[] content, int length) {
    List<String> order = order(chunk);
    int wanted = Math.min(copies, order.size());
    int needed = wanted / 2 + 1;
    ExecutorCompletionService<String> sent = new ExecutorCompletionService<>(threads);
    int next = 0;
    int running = 0;
    while (next < wanted) {
      String node = order.get(next++);
      sent.submit(() -> storeAt(node, chunk, content, length));
      running++;
    }
    int stored = 0;
    int failed = 0;
    Optional<RuntimeException> failure = Optional.empty();
    while (stored < needed) {
      if (running == 0) {
        throw notEnough(chunk, stored, needed, failure);
      }
      running--;
      try {
        Future<String> done = sent.take();
        done.get();
        stored++;
      } catch (InterruptedException e) {
        throw ChunkBudget.interrupted(e);
      } catch (ExecutionException e) {
        failed++;
        RuntimeException cause =
            e.getCause() instanceof RuntimeException known
                ? known
                : new IllegalStateException(e.getCause());
        // A full disk is the failure that people can mend.
        if (failure.isEmpty()
            || (cause instanceof FlotillaException f && f.code() == Code.STORAGE)) {
          failure = Optional.of(cause);
        }
        if (next < order.size()) {
          String node = order.get(next++);
          sent.submit(() -> storeAt(node, chunk, content, length));
          running++;
        }
      }
    }
    if (failed > 0) {
      wake();
    }
  }

  private static FlotillaException notEnough(
      String chunk, int stored, int needed, Optional<RuntimeException> failure) {
    if (failure.orElse(null) instanceof FlotillaException known && known.code() == Code.STORAGE) {
      return known;
    }
    String why = failure.map(f -> ": " + f.getMessage()).orElse("");
    return new FlotillaException(
        Code.UNAVAILABLE,
        "only "
            + stored
            + " of "
            + needed
            + " needed copies of chunk "
            + chunk
            + " were stored"
            + why,
        "Try again when more nodes answer.");
  }

  private String storeAt(String node, String chunk, byte[] content, int length) {
    if (node.equals(cluster.self())) {
      files.write(chunk, content, length);
      return node;
    }
    Semaphore room = sending.computeIfAbsent(node, n -> new Semaphore(SENDING_BYTES_MAX));
    try {
      // A put does not wait for its last copy; what is on its way to a slow node must be bounded.
      if (!room.tryAcquire(length, ROOM_SECONDS, TimeUnit.SECONDS)) {
        throw new FlotillaException(
            Code.UNAVAILABLE, "node " + node + " takes chunks too slowly", "Try again soon.");
      }
    } catch (InterruptedException e) {
      throw ChunkBudget.interrupted(e);
    }
    try {
      return send(node, chunk, content, length);
    } finally {
      room.release(length);
    }
  }

  private String send(String node, String chunk, byte[] content, int length) {
    CompletableFuture<Boolean> stored = new CompletableFuture<>();
    ChunksGrpc.newStub(cluster.channel(node))
        .withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS)
        .store(
            new ClientResponseObserver<StorePiece, StoreReply>() {
              private int at;
              private boolean ended;

              @Override
              public void beforeStart(ClientCallStreamObserver<StorePiece> call) {
                call.setOnReadyHandler(
                    () -> {
                      while (call.isReady() && !ended) {
                        int part = Math.min(PIECE_BYTES, length - at);
                        StorePiece.Builder piece =
                            StorePiece.newBuilder()
                                .setContent(UnsafeByteOperations.unsafeWrap(content, at, part));
                        if (at == 0) {
                          piece.setDigest(bytes(chunk)).setLength(length);
                        }
                        call.onNext(piece.build());
                        at += part;
                        if (at == length) {
                          ended = true;
                          call.onCompleted();
                        }
                      }
                    });
              }

              @Override
              public void onNext(StoreReply reply) {
                stored.complete(true);
              }

              @Override
              public void onError(Throwable error) {
                stored.completeExceptionally(error);
              }

              @Override
              public void onCompleted() {
                stored.completeExceptionally(
                    new IllegalStateException("node " + node + " ended without an answer"));
              }
            });
    try {
      stored.join();
      return node;
    } catch (CompletionException e) {
      throw e.getCause() instanceof StatusRuntimeException status ? known(node, status) : e;
    }
  }

  static FlotillaException known(String node, StatusRuntimeException e) {
    Status status = e.getStatus();
    String what = "node " + node + ": " + status.getDescription();
    return switch (status.getCode()) {
      case RESOURCE_EXHAUSTED ->
          new FlotillaException(
              Code.STORAGE, what, "Remove blobs or add a node with room, then try again.", e);
      case NOT_FOUND -> new FlotillaException(Code.NOT_FOUND, what, "", e);
      case DATA_LOSS -> new FlotillaException(Code.BAD_FILE, what, "Check its disk.", e);
      default ->
          new FlotillaException(
              Code.UNAVAILABLE,
              "node " + node + " does not answer: " + status,
              "Try again soon.",
              e);
    };
  }

  @Override
  public byte[] load(String chunk) {
    boolean gone = false;
    boolean bad = false;
    try {
      Optional<byte[]> here = files.read(chunk);
      if (here.isPresent()) {
        return here.get();
      }
    } catch (FlotillaException damaged) {
      bad = true;
    }
    List<String> order = order(chunk);
    List<String> keepers = order.subList(0, Math.min(copies, order.size()));
    List<String> tried = new ArrayList<>();
    for (String node : order) {
      if (node.equals(cluster.self())) {
        gone |= keepers.contains(node);
        continue;
      }
      try {
        byte[] content = loadFrom(node, chunk);
        if (bad || keepers.contains(cluster.self())) {
          takeCopy(chunk, content);
        }
        if (gone) {
          wake();
        }
        return content;
      } catch (FlotillaException e) {
        tried.add(e.getMessage());
        gone |= keepers.contains(node);
        if (e.code() == Code.BAD_FILE) {
          log.warn("chunk {} at node {} was damaged; another copy is read", chunk, node);
        }
      }
    }
    wake();
    throw new FlotillaException(
        Code.UNAVAILABLE,
        "no whole copy of chunk "
            + chunk
            + " can be reached"
            + (tried.isEmpty() ? "" : " (" + String.join("; ", tried) + ")"),
        "Bring back the nodes that have it, then try again.");
  }

  private void takeCopy(String chunk, byte[] content) {
    try {
      files.write(chunk, content, content.length);
      repaired.incrementAndGet();
      log.info("chunk {} was missing or damaged here, and has a new copy", chunk);
    } catch (FlotillaException full) {
      log.warn("chunk {} cannot be repaired here: {}", chunk, full.explanation());
    }
  }

  /** A chunk from one node, compared with its digest. */
  private byte[] loadFrom(String node, String chunk) {
    try {
      ByteArrayOutputStream content = new ByteArrayOutputStream();
      Iterator<ChunkPiece> pieces =
          ChunksGrpc.newBlockingStub(cluster.channel(node))
              .withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS)
              .load(ChunkRequest.newBuilder().setDigest(bytes(chunk)).build());
      while (pieces.hasNext()) {
        pieces.next().getContent().writeTo(content);
      }
      byte[] whole = content.toByteArray();
      if (!BlobManifest.sha256(whole, whole.length).equals(chunk)) {
        throw new FlotillaException(
            Code.BAD_FILE, "node " + node + " sent chunk " + chunk + " damaged", "");
      }
      return whole;
    } catch (StatusRuntimeException e) {
      throw known(node, e);
    } catch (IOException e) {
      throw new IllegalStateException("memory cannot be written", e);
    }
  }

  /** Gets a copy for this node from the others, unless it has a whole one. */
  void fetch(String chunk) {
    try {
      if (files.read(chunk).isPresent()) {
        return;
      }
    } catch (FlotillaException damaged) {
      // Replaced now.
    }
    List<String> failures = new ArrayList<>();
    for (String node : order(chunk)) {
      if (!node.equals(cluster.self())) {
        try {
          byte[] content = loadFrom(node, chunk);
          files.write(chunk, content, content.length);
          repaired.incrementAndGet();
          return;
        } catch (FlotillaException e) {
          if (e.code() == Code.STORAGE) {
            throw e;
          }
          failures.add(e.getMessage());
        }
      }
    }
    throw new FlotillaException(
        Code.UNAVAILABLE, "chunk " + chunk + " is nowhere whole: " + failures, "");
  }

  @Override
  public void touch(Collection<String> chunks) {
    Map<String, Integer> found = new HashMap<>();
    List<NodeInfo> nodes = cluster.nodes();
    List<Future<Set<String>>> answers =
        nodes.stream().map(node -> threads.submit(() -> touchAt(node.id(), chunks))).toList();
    for (Future<Set<String>> answer : answers) {
      BlobReader.result(answer).forEach(chunk -> found.merge(chunk, 1, Integer::sum));
    }
    int needed = Math.min(copies, nodes.size()) / 2 + 1;
    for (String chunk : chunks) {
      int present = found.getOrDefault(chunk, 0);
      if (present == 0) {
        throw new FlotillaException(
            Code.UNAVAILABLE,
            "chunk " + chunk + ", stored before, is not on any node that answers",
            "Send the content again.");
      }
      if (present < needed) {
        wake();
      }
    }
  }

  private Set<String> touchAt(String node, Collection<String> chunks) {
    Set<String> found = new HashSet<>();
    try {
      if (node.equals(cluster.self())) {
        chunks.stream().filter(files::touch).forEach(found::add);
        return found;
      }
      List<String> list = List.copyOf(chunks);
      for (int from = 0; from < list.size(); from += 10_000) {
        ChunkList.Builder asked = ChunkList.newBuilder();
        list.subList(from, Math.min(list.size(), from + 10_000))
            .forEach(chunk -> asked.addDigests(bytes(chunk)));
        ChunksGrpc.newBlockingStub(cluster.channel(node))
            .withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS)
            .touch(asked.build())
            .getDigestsList()
            .forEach(digest -> found.add(hex(digest)));
      }
    } catch (StatusRuntimeException | FlotillaException e) {
      log.debug("node {} does not say what it has: {}", node, e.toString());
    }
    return found;
  }

  /** Asks the controller to look soon. */
  private void wake() {
    cluster
        .leader()
        .ifPresent(
            leader ->
                threads.submit(
                    () -> {
                      try {
                        return ChunksGrpc.newBlockingStub(cluster.channel(leader))
                            .withDeadlineAfter(CALL_SECONDS, TimeUnit.SECONDS)
                            .wake(WakeRequest.getDefaultInstance());
                      } catch (StatusRuntimeException | FlotillaException e) {
                        // It looks from time to time anyway.
                        return e;
                      }
                    }));
  }

  static ByteString bytes(String chunk) {
    return ByteString.copyFrom(java.util.HexFormat.of().parseHex(chunk));
  }

  static String hex(ByteString digest) {
    if (digest.size() != 32) {
      throw Status.INVALID_ARGUMENT.withDescription("not a digest").asRuntimeException();
    }
    return java.util.HexFormat.of().formatHex(digest.toByteArray());
  }
}
