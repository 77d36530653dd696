package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.serve.proto.CopiesGrpc;
import dev.flotilla.serve.proto.CopyBegin;
import dev.flotilla.serve.proto.CopyMessage;
import dev.flotilla.serve.proto.CopyOffer;
import dev.flotilla.serve.proto.CopyOffers;
import dev.flotilla.serve.proto.CopyReleases;
import dev.flotilla.serve.proto.CopyReply;
import dev.flotilla.serve.proto.CopyVerdict;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongConsumer;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The way from a replica's head to the head of the one that keeps copies of its KV cache: opens it,
 * sends what {@link BlockCopies} has for it, and opens it again after a while when it breaks. Of
 * the head's thread.
 */
final class Copier {

  private static final Logger log = LoggerFactory.getLogger(Copier.class);
  private static final long REOPEN_NS = TimeUnit.SECONDS.toNanos(1);

  /** Content on its way at once: enough for a prompt's steps. */
  private static final long WINDOW_BYTES = 64 << 20;

  private static final int WINDOW_LEAST = 4;
  private static final int WINDOW_MOST = 256;

  /** A replica that is to keep copies, and where its head is. */
  record Target(String replica, long epoch, String node) {}

  /** What two caches must have alike, so that a block of the one is a block of the other. */
  record Form(String digest, String kv, int layout, int layers, int layerBytes) {

    boolean fits(CopyBegin begin) {
      return digest.equals(begin.getDigest())
          && kv.equals(begin.getKv())
          && layout == begin.getLayout()
          && layerBytes == begin.getLayerBytes();
    }

    int window() {
      long blockBytes = Math.max(1, (long) layers * layerBytes);
      return Math.clamp(WINDOW_BYTES / blockBytes, WINDOW_LEAST, WINDOW_MOST);
    }
  }

  private final String replica;
  private final Form form;
  private final BlockCopies copies;
  private final Function<String, ManagedChannel> channels;
  private final Consumer<Runnable> post;
  private final LongConsumer sentBytes;
  private final LongSupplier nanoTime;
  private Optional<Target> wanted = Optional.empty();
  private @Nullable Stream stream;
  private long openAtNs;

  /**
   * @param replica whose blocks these are
   * @param post runs something on the head's thread
   * @param sentBytes hears of content that is sent
   */
  Copier(
      String replica,
      Form form,
      BlockCopies copies,
      Function<String, ManagedChannel> channels,
      Consumer<Runnable> post,
      LongConsumer sentBytes,
      LongSupplier nanoTime) {
    this.replica = replica;
    this.form = form;
    this.copies = copies;
    this.channels = channels;
    this.post = post;
    this.sentBytes = sentBytes;
    this.nanoTime = nanoTime;
    this.openAtNs = nanoTime.getAsLong();
  }

  /** Where copies are to go from now on. */
  void want(Optional<Target> target) {
    if (!target.equals(wanted)) {
      close();
      wanted = target;
      openAtNs = nanoTime.getAsLong();
    }
  }

  /** Sends what there is to say. */
  void turn() {
    Stream now = stream;
    if (now == null) {
      if (wanted.isPresent() && nanoTime.getAsLong() - openAtNs >= 0) {
        open(wanted.get());
      }
      return;
    }
    List<Long> releases = copies.releases();
    if (!releases.isEmpty()) {
      now.send(
          CopyMessage.newBuilder()
              .setReleases(CopyReleases.newBuilder().addAllTexts(releases))
              .build());
    }
    List<BlockCopies.Offer> offers = copies.offers();
    if (!offers.isEmpty()) {
      now.send(CopyMessage.newBuilder().setOffers(message(offers)).build());
    }
  }

  private static CopyOffers message(List<BlockCopies.Offer> offers) {
    CopyOffers.Builder message = CopyOffers.newBuilder();
    for (BlockCopies.Offer offer : offers) {
      CopyOffer.Builder one =
          CopyOffer.newBuilder()
              .setText(offer.text())
              .setParent(offer.key().parent())
              .setPrompt(offer.key().prompt());
      for (int token : offer.key().tokens()) {
        one.addTokens(token);
      }
      message.addOffers(one);
    }
    return message.build();
  }

  /** A stage has read its part of a block. */
  void exported(BlockPart part) {
    Stream now = stream;
    Optional<Long> text = copies.exported(part.id());
    if (now != null && text.isPresent()) {
      sentBytes.accept(part.content().remaining());
      now.send(CopyMessage.newBuilder().setPart(Wire.part(part.as(text.get()))).build());
    }
  }

  private void open(Target target) {
    Stream opening = new Stream(target);
    stream = opening;
    try {
      CopiesGrpc.newStub(channels.apply(target.node())).copy(opening);
    } catch (FlotillaException e) {
      broken(e.explanation());
      return;
    }
    opening.send(
        CopyMessage.newBuilder()
            .setBegin(
                CopyBegin.newBuilder()
                    .setReplica(target.replica())
                    .setEpoch(target.epoch())
                    .setSource(replica)
                    .setDigest(form.digest())
                    .setKv(form.kv())
                    .setLayout(form.layout())
                    .setLayerBytes(form.layerBytes()))
            .build());
  }

  private void broken(String reason) {
    if (!copies.where().isEmpty()) {
      log.info("the KV cache of replica {} is copied no more: {}", replica, reason);
    }
    stream = null;
    copies.close();
    openAtNs = nanoTime.getAsLong() + REOPEN_NS;
  }

  /** Copies nothing, until it is time to open again: the caches are gone. */
  void close() {
    Stream now = stream;
    if (now != null) {
      now.cancel();
      broken("it has another place, or is lost");
    }
  }

  private final class Stream implements ClientResponseObserver<CopyMessage, CopyReply> {
    private final Target target;
    private @Nullable ClientCallStreamObserver<CopyMessage> requests;

    Stream(Target target) {
      this.target = target;
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<CopyMessage> started) {
      requests = started;
    }

    void send(CopyMessage message) {
      try {
        if (requests != null) {
          requests.onNext(message);
        }
      } catch (IllegalStateException e) {
        // It broke meanwhile: onError says so, or has.
      }
    }

    void cancel() {
      if (requests != null) {
        requests.cancel("copies go elsewhere", null);
      }
    }

    private void mine(Runnable event) {
      post.accept(
          () -> {
            if (stream == this) {
              event.run();
            }
          });
    }

    @Override
    public void onNext(CopyReply reply) {
      mine(
          () -> {
            switch (reply.getKindCase()) {
              case BEGUN -> {
                log.info("the KV cache of replica {} is copied to {}", replica, target.replica());
                copies.open(target.replica(), form.window());
              }
              case VERDICT -> answered(reply.getVerdict());
              case ROOM -> copies.room();
              case KIND_NOT_SET -> {} // a newer version's
            }
          });
    }

    private void answered(CopyVerdict verdict) {
      BlockCopies.Verdict known =
          Arrays.stream(BlockCopies.Verdict.values())
              .filter(each -> each.name().equals(verdict.getVerdict()))
              .findFirst()
              .orElse(BlockCopies.Verdict.UNKNOWN); // a newer version's
      copies.answered(verdict.getText(), known);
    }

    @Override
    public void onError(Throwable error) {
      mine(() -> broken(String.valueOf(Status.fromThrowable(error))));
    }

    @Override
    public void onCompleted() {
      mine(() -> broken("its receiver ended it"));
    }
  }
}
