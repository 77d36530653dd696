package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.AllReduce;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Consumer;

/**
 * One rank's side of the sums of a tensor-parallel replica, over the streams between rank 0 and
 * each of the others.
 *
 * <p>Two ranks send each other their parts at the same time, and both add: a sum takes one way. Of
 * more, rank 0 adds up the others' parts and sends the sum back: two ways. Either way parts are
 * added in the order of the ranks, so all have the same bits, and the same ones whichever part came
 * first.
 */
final class RankSums implements AllReduce {

  private final int rank;
  private final int ranks;
  private volatile List<Peer> peers = List.of();

  /** The other end of a stream. */
  static final class Peer {
    private final Consumer<float[]> send;

    /** Empty where nothing more will arrive. */
    private final BlockingQueue<Optional<float[]>> arrived = new LinkedBlockingQueue<>();

    /**
     * @param send hands values to the transport; they may change as soon as it returns
     */
    Peer(Consumer<float[]> send) {
      this.send = send;
    }

    void arrived(float[] values) {
      arrived.add(Optional.of(values));
    }

    /** Nothing more will arrive: whoever waits hears it. */
    void lose() {
      arrived.add(Optional.empty());
    }

    private float[] take(int length) {
      try {
        Optional<float[]> values = arrived.take();
        if (values.isEmpty()) {
          arrived.add(values);
          throw lost("another rank is gone");
        }
        if (values.get().length != length) {
          throw lost(values.get().length + " values came where " + length + " are summed");
        }
        return values.get();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw lost("interrupted");
      }
    }

    private static FlotillaException lost(String why) {
      return new FlotillaException(FlotillaException.Code.UNAVAILABLE, "a sum broke: " + why, "");
    }
  }

  RankSums(int rank, int ranks) {
    this.rank = rank;
    this.ranks = ranks;
  }

  /** How many ranks there are. */
  int ranks() {
    return ranks;
  }

  /** Takes new streams: of rank 0 to ranks 1, 2 and so on, or of another rank to rank 0. */
  void connect(List<Peer> streams) {
    peers = List.copyOf(streams);
  }

  /** Whoever waits in a sum gives up. */
  void lose() {
    peers.forEach(Peer::lose);
  }

  @Override
  public void sum(float[] values) {
    List<Peer> now = peers;
    if (now.size() != (rank == 0 ? ranks - 1 : 1)) {
      throw Peer.lost("the other ranks are not connected");
    }
    if (rank > 0) {
      Peer root = now.getFirst();
      root.send.accept(values);
      float[] theirs = root.take(values.length);
      if (ranks == 2) {
        add(values, theirs); // of two floats, the sum is the same in either order
      } else {
        System.arraycopy(theirs, 0, values, 0, values.length);
      }
    } else if (ranks == 2) {
      now.getFirst().send.accept(values);
      add(values, now.getFirst().take(values.length));
    } else {
      List<float[]> parts = new ArrayList<>();
      now.forEach(peer -> parts.add(peer.take(values.length)));
      parts.forEach(part -> add(values, part));
      now.forEach(peer -> peer.send.accept(values));
    }
  }

  private static void add(float[] values, float[] more) {
    for (int i = 0; i < values.length; i++) {
      values[i] += more[i];
    }
  }
}
