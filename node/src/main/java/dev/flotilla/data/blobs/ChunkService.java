package dev.flotilla.data.blobs;

import com.google.protobuf.UnsafeByteOperations;
import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.proto.ChunkList;
import dev.flotilla.data.proto.ChunkPiece;
import dev.flotilla.data.proto.ChunkRequest;
import dev.flotilla.data.proto.ChunksGrpc;
import dev.flotilla.data.proto.DropReply;
import dev.flotilla.data.proto.DropRequest;
import dev.flotilla.data.proto.HeldRequest;
import dev.flotilla.data.proto.NodeStatus;
import dev.flotilla.data.proto.ScrubRequest;
import dev.flotilla.data.proto.StatusRequest;
import dev.flotilla.data.proto.StorePiece;
import dev.flotilla.data.proto.StoreReply;
import dev.flotilla.data.proto.WakeReply;
import dev.flotilla.data.proto.WakeRequest;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** What this node does with its chunks for others. */
final class ChunkService extends ChunksGrpc.ChunksImplBase {

  /** The entry that a controller writes when it takes over; its epoch fences older ones off. */
  static final Registry.Key CONTROLLER = new Registry.Key("controller", "current");

  private static final int LIST_MAX = 10_000;

  private final ChunkFiles files;
  private final Consumer<String> fetch;
  private final Supplier<Registry> registry;
  private final BlobScrubber scrubber;
  private final Supplier<NodeStatus> status;
  private final Runnable wake;
  private final int chunkBytesMax;

  ChunkService(
      ChunkFiles files,
      Consumer<String> fetch,
      Supplier<Registry> registry,
      BlobScrubber scrubber,
      Supplier<NodeStatus> status,
      Runnable wake,
      int chunkBytesMax) {
    this.files = files;
    this.fetch = fetch;
    this.registry = registry;
    this.scrubber = scrubber;
    this.status = status;
    this.wake = wake;
    this.chunkBytesMax = chunkBytesMax;
  }

  @Override
  public StreamObserver<StorePiece> store(StreamObserver<StoreReply> observer) {
    return new StreamObserver<>() {
      private Optional<String> chunk = Optional.empty();
      private byte[] content = new byte[0];
      private int filled;
      private boolean failed;

      @Override
      public void onNext(StorePiece piece) {
        if (failed) {
          return;
        }
        if (chunk.isEmpty()) {
          if (piece.getLength() < 1
              || piece.getLength() > chunkBytesMax
              || piece.getDigest().size() != 32) {
            fail(Status.INVALID_ARGUMENT.withDescription("not a chunk: " + piece.getLength()));
            return;
          }
          chunk = Optional.of(ReplicatedChunks.hex(piece.getDigest()));
          content = new byte[piece.getLength()];
        }
        int part = piece.getContent().size();
        if (part > content.length - filled) {
          fail(Status.INVALID_ARGUMENT.withDescription("longer than it said"));
          return;
        }
        piece.getContent().copyTo(content, filled);
        filled += part;
      }

      private void fail(Status why) {
        failed = true;
        observer.onError(why.asRuntimeException());
      }

      @Override
      public void onError(Throwable error) {
        failed = true;
      }

      @Override
      public void onCompleted() {
        if (failed) {
          return;
        }
        if (filled != content.length
            || !BlobManifest.sha256(content, filled).equals(chunk.orElse(""))) {
          fail(Status.DATA_LOSS.withDescription("the chunk came damaged"));
          return;
        }
        answer(
            observer,
            () -> {
              files.write(chunk.orElseThrow(), content, filled);
              return StoreReply.getDefaultInstance();
            });
      }
    };
  }

  private static <T> void answer(StreamObserver<T> observer, Supplier<T> work) {
    T reply;
    try {
      reply = work.get();
    } catch (FlotillaException e) {
      observer.onError(status(e));
      return;
    } catch (StatusRuntimeException e) {
      observer.onError(e);
      return;
    }
    observer.onNext(reply);
    observer.onCompleted();
  }

  private static StatusRuntimeException status(FlotillaException e) {
    Status status =
        switch (e.code()) {
          case STORAGE -> Status.RESOURCE_EXHAUSTED;
          case NOT_FOUND -> Status.NOT_FOUND;
          case BAD_FILE -> Status.DATA_LOSS;
          default -> Status.UNAVAILABLE;
        };
    return status.withDescription(e.explanation()).asRuntimeException();
  }

  @Override
  public void load(ChunkRequest request, StreamObserver<ChunkPiece> observer) {
    try {
      Optional<byte[]> found = files.read(ReplicatedChunks.hex(request.getDigest()));
      if (found.isEmpty()) {
        observer.onError(
            Status.NOT_FOUND.withDescription("it has no such chunk").asRuntimeException());
        return;
      }
      byte[] content = found.get();
      for (int at = 0; at < content.length; at += ReplicatedChunks.PIECE_BYTES) {
        int part = Math.min(ReplicatedChunks.PIECE_BYTES, content.length - at);
        observer.onNext(
            ChunkPiece.newBuilder()
                .setContent(UnsafeByteOperations.unsafeWrap(content, at, part))
                .build());
      }
      observer.onCompleted();
    } catch (FlotillaException e) {
      observer.onError(status(e));
    } catch (StatusRuntimeException e) {
      observer.onError(e);
    }
  }

  @Override
  public void touch(ChunkList request, StreamObserver<ChunkList> observer) {
    answer(
        observer,
        () -> {
          ChunkList.Builder here = ChunkList.newBuilder();
          request.getDigestsList().stream()
              .filter(digest -> files.touch(ReplicatedChunks.hex(digest)))
              .forEach(here::addDigests);
          return here.build();
        });
  }

  @Override
  public void held(HeldRequest request, StreamObserver<ChunkList> observer) {
    try {
      List<String> all = files.list();
      for (int from = 0; from < all.size(); from += LIST_MAX) {
        ChunkList.Builder part = ChunkList.newBuilder();
        all.subList(from, Math.min(all.size(), from + LIST_MAX))
            .forEach(chunk -> part.addDigests(ReplicatedChunks.bytes(chunk)));
        observer.onNext(part.build());
      }
      observer.onCompleted();
    } catch (FlotillaException e) {
      observer.onError(status(e));
    }
  }

  @Override
  public void fetch(ChunkRequest request, StreamObserver<StoreReply> observer) {
    answer(
        observer,
        () -> {
          fetch.accept(ReplicatedChunks.hex(request.getDigest()));
          return StoreReply.getDefaultInstance();
        });
  }

  @Override
  public void drop(DropRequest request, StreamObserver<DropReply> observer) {
    answer(
        observer,
        () -> {
          long current = registry.get().get(CONTROLLER).map(Registry.Entry::epoch).orElse(0L);
          if (request.getControllerEpoch() < current) {
            throw Status.FAILED_PRECONDITION
                .withDescription("another controller has taken over")
                .asRuntimeException();
          }
          int dropped = 0;
          Duration untouched = Duration.ofMillis(request.getUntouchedForMs());
          for (var digest : request.getDigestsList()) {
            dropped += files.drop(ReplicatedChunks.hex(digest), untouched) ? 1 : 0;
          }
          return DropReply.newBuilder().setDropped(dropped).build();
        });
  }

  @Override
  public void scrub(ScrubRequest request, StreamObserver<NodeStatus> observer) {
    answer(
        observer,
        () -> {
          scrubber.startOver();
          return status.get();
        });
  }

  @Override
  public void status(StatusRequest request, StreamObserver<NodeStatus> observer) {
    answer(observer, status);
  }

  @Override
  public void wake(WakeRequest request, StreamObserver<WakeReply> observer) {
    wake.run();
    observer.onNext(WakeReply.getDefaultInstance());
    observer.onCompleted();
  }
}
