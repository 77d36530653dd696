package dev.flotilla.data;

import java.util.Collection;
import java.util.List;

/**
 * Decides when a node's part of the grid leaves a lone half and joins the others again, and whether
 * it keeps its data. A pure function of what it knows of itself and what the others answer.
 *
 * <p>The engine does not rejoin by itself, and a node that comes back with data of a minority may
 * keep values that nobody acknowledged and lack some that were. What is newest is known so: the
 * registry keeps the <em>view</em>, the members that the majority last consisted of, as the leader
 * saw them; it changes only by a decision, so it names the holders of the newest data even while
 * nobody can decide. And a node that finds itself active without a majority, or begins to be
 * filled, notes durably that it is <em>in doubt</em>, until it is part of a majority and filled.
 * Hence three ranks: 2, in the view and not in doubt; 1, in the view and in doubt; 0, not in the
 * view. From them follow the rules:
 *
 * <ul>
 *   <li>A lone part stops as soon as somebody of a higher rank answers that does not see it, and so
 *       does one of two equal lone parts, the one with the larger id.
 *   <li>A part starts only if a majority of the members answers (itself counted): a view is a
 *       majority, so somebody who holds the newest data is among these.
 *   <li>The highest start as they are; but not while a lower one still runs, whose data they would
 *       be made to take.
 *   <li>Who is lower starts empty, once a higher one runs that is active and whole, and is filled
 *       by it.
 *   <li>If the higher ones cannot be active without it: with three members or fewer each of them
 *       has a copy of everything, and it starts empty too; with more it starts as it is, for it may
 *       hold the only copy of something.
 * </ul>
 */
final class Rejoining {

  /**
   * This node.
   *
   * @param majority whether it sees a majority of the members
   */
  record Own(String id, boolean running, boolean majority, int rank) {}

  /** What another member answered. */
  record Peer(
      String id,
      boolean running,
      boolean active,
      boolean majority,
      boolean seesUs,
      boolean whole,
      int rank) {}

  /** What to do now. */
  enum Action {
    /** Go on as it is: running, or not. */
    STAY,
    /** Stop the engine; what comes then is decided anew. */
    STOP,
    /** Start it with the data that is there. */
    START,
    /** Delete its data, then start it. */
    START_EMPTY
  }

  /** How far a node's data is to be trusted: higher is newer. */
  static int rank(boolean inView, boolean inDoubt) {
    return inView ? (inDoubt ? 1 : 2) : 0;
  }

  private Rejoining() {}

  /**
   * The next action.
   *
   * @param members how many the grid has, this node included; 0 or 1 if it has none or only this
   * @param isMember whether this node is one of them
   */
  static Action decide(Own own, Collection<Peer> answers, int members, boolean isMember) {
    return own.running() ? whileRunning(own, answers) : atStart(own, answers, members, isMember);
  }

  private static Action whileRunning(Own own, Collection<Peer> answers) {
    if (own.majority()) {
      return Action.STAY;
    }
    for (Peer peer : answers) {
      if (peer.seesUs()) {
        continue;
      }
      boolean better = peer.running() && peer.majority() && peer.active();
      boolean higher = peer.rank() > own.rank();
      boolean equal = peer.rank() == own.rank();
      if (better || higher || (equal && peer.running() && peer.id().compareTo(own.id()) < 0)) {
        return Action.STOP;
      }
    }
    return Action.STAY;
  }

  private static Action atStart(Own own, Collection<Peer> answers, int members, boolean isMember) {
    if (members <= 1 && isMember) {
      return Action.START;
    }
    List<Peer> higher = answers.stream().filter(p -> p.rank() > own.rank()).toList();
    if (!isMember) {
      // Nothing of its own to lose or to offer: there must be somebody to join.
      return answers.stream().anyMatch(p -> p.running() && p.majority() && p.active())
          ? Action.START
          : Action.STAY;
    }
    if (2 * (answers.size() + 1) <= members) {
      return Action.STAY;
    }
    if (higher.isEmpty()) {
      boolean lowerRuns = answers.stream().anyMatch(p -> p.running() && p.rank() < own.rank());
      return lowerRuns ? Action.STAY : Action.START;
    }
    if (higher.stream().anyMatch(p -> p.running() && p.active() && p.majority() && p.whole())) {
      return Action.START_EMPTY;
    }
    boolean theyNeedUs = 2 * higher.size() <= members;
    boolean oneRuns = higher.stream().anyMatch(Peer::running);
    if (!theyNeedUs || !oneRuns) {
      return Action.STAY;
    }
    return members <= Grid.BACKUPS + 1 ? Action.START_EMPTY : Action.START;
  }
}
