package dev.flotilla.serve;

import dev.flotilla.serve.BlockCopies.Offer;
import dev.flotilla.serve.BlockCopies.Verdict;
import dev.flotilla.serve.proto.CopyBegun;
import dev.flotilla.serve.proto.CopyMessage;
import dev.flotilla.serve.proto.CopyOffer;
import dev.flotilla.serve.proto.CopyReply;
import dev.flotilla.serve.proto.CopyRoom;
import dev.flotilla.serve.proto.CopyVerdict;
import io.grpc.Status;
import org.jspecify.annotations.Nullable;

/**
 * A stream of copies that comes in at a head: what it says goes to {@link KeptBlocks}, and what
 * these say goes back. Of the head's thread.
 */
final class CopyReceiver implements KeptBlocks.Source {

  private final Replies<CopyReply> replies;
  private KeptBlocks.@Nullable Copies copies;

  CopyReceiver(Replies<CopyReply> replies) {
    this.replies = replies;
  }

  /** It is taken. */
  void open(KeptBlocks kept) {
    copies = kept.open(this);
    replies.send(CopyReply.newBuilder().setBegun(CopyBegun.getDefaultInstance()).build());
  }

  /** Takes what comes of a stream that was taken. */
  void message(CopyMessage message, Copier.Form form) {
    KeptBlocks.Copies to = copies;
    if (to == null) {
      return;
    }
    switch (message.getKindCase()) {
      case OFFERS -> {
        for (CopyOffer offer : message.getOffers().getOffersList()) {
          if (offer.getTokensCount() != Scheduler.BLOCK) {
            fail(Status.INVALID_ARGUMENT.withDescription("a block has " + Scheduler.BLOCK));
            return;
          }
          int[] tokens = Wire.ints(offer.getTokensList());
          to.offered(
              new Offer(
                  offer.getText(),
                  new BlockLedger.Key(offer.getParent(), offer.getPrompt(), tokens)));
        }
      }
      case PART -> {
        BlockPart part;
        try {
          part = Wire.part(message.getPart());
        } catch (IllegalArgumentException e) {
          fail(Status.INVALID_ARGUMENT.withDescription(e.getMessage()));
          return;
        }
        long bytes = (long) part.layers().count() * form.layerBytes();
        if (part.layers().last() >= form.layers() || part.content().remaining() != bytes) {
          fail(Status.INVALID_ARGUMENT.withDescription("not a part of a block: " + part));
          return;
        }
        to.part(part);
      }
      case RELEASES -> message.getReleases().getTextsList().forEach(to::released);
      case BEGIN, KIND_NOT_SET -> {} // a newer version's
    }
  }

  @Override
  public void answer(long text, Verdict verdict) {
    replies.send(
        CopyReply.newBuilder()
            .setVerdict(CopyVerdict.newBuilder().setText(text).setVerdict(verdict.name()))
            .build());
  }

  @Override
  public void room() {
    replies.send(CopyReply.newBuilder().setRoom(CopyRoom.getDefaultInstance()).build());
  }

  /** The sender is gone. */
  void end() {
    if (copies != null) {
      copies.close();
      copies = null;
    }
    replies.complete();
  }

  /** What it had is gone, or it is not taken. */
  void fail(Status status) {
    if (copies != null) {
      copies.close();
      copies = null;
    }
    replies.fail(status);
  }
}
