package dev.flotilla.serve;

import dev.flotilla.serve.proto.Step;
import dev.flotilla.serve.proto.StepResult;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The chains from rank 0 of a tensor-parallel replica to the other ranks, which make each of its
 * steps with it. Opened and driven by the head's thread.
 */
final class Followers {

  /** Opens the chain to a rank. */
  @FunctionalInterface
  interface Opener {
    Chain open(int rank, Chain.Listener listener);
  }

  private final RankSums sums;
  private final Opener opener;
  private List<Chain> chains = List.of();

  Followers(RankSums sums, Opener opener) {
    this.sums = sums;
    this.opener = opener;
  }

  /** Opens all chains; the listener hears when all are open, or that one broke, once. */
  void open(Chain.Listener listener) {
    close();
    AtomicInteger missing = new AtomicInteger(sums.ranks() - 1);
    AtomicBoolean broken = new AtomicBoolean();
    List<RankSums.Peer> peers = new ArrayList<>();
    List<Chain> opening = new ArrayList<>();
    for (int i = 0; i < sums.ranks() - 1; i++) {
      int index = i;
      peers.add(new RankSums.Peer(values -> opening.get(index).sendPartial(values)));
    }
    for (int rank = 1; rank < sums.ranks(); rank++) {
      RankSums.Peer peer = peers.get(rank - 1);
      opening.add(
          opener.open(
              rank,
              new Chain.Listener() {
                @Override
                public void opened(boolean copies) {
                  if (missing.decrementAndGet() == 0) {
                    listener.opened(false); // what ranks have is not what others have
                  }
                }

                @Override
                public void result(StepResult result) {}

                @Override
                public void partial(float[] values) {
                  peer.arrived(values);
                }

                @Override
                public void broken(Status status) {
                  peers.forEach(RankSums.Peer::lose);
                  if (broken.compareAndSet(false, true)) {
                    listener.broken(status);
                  }
                }
              }));
    }
    chains = opening;
    sums.connect(peers);
  }

  /** Has the other ranks make a step. */
  void send(Step step) {
    chains.forEach(chain -> chain.send(step));
  }

  /** Whoever waits in a sum gives up; from any thread. */
  void lose() {
    sums.lose();
  }

  /** Closes the chains; the listener hears nothing more. */
  void close() {
    sums.lose();
    chains.forEach(Chain::close);
    chains = List.of();
  }
}
