package dev.flotilla.data.grid;

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
 * nobody can decide. And a node that finds itself active without a majority notes durably that it
 * was <em>alone</em>; one that is emptied notes that it is <em>being filled</em>; until it is part
 * of a majority and filled. Hence four ranks: in the view and clean; in the view, but was alone; in
 * the view, but being filled; outside of the view. From them follow the rules:
 *
 * <ul>
 *   <li>A lone part stops as soon as somebody of a higher rank answers that does not see it, and so
 *       does one of two equal lone parts, the one with the larger id.
 *   <li>A part starts only if a majority of the members answers (itself counted): a view is a
 *       majority, so somebody who holds the newest data is among these.
 *   <li>The highest start as they are; but not while a lower one still runs, whose data they would
 *       be made to take. Of several one goes first, since engines that seek each other all at once
 *       take half a minute.
 *   <li>If all were alone at once, each has everything that was acknowledged, for the view was one
 *       then, and each may have its own leftovers of writes whose outcome is unknown. So with three
 *       members or fewer the first one's data counts; the second starts empty beside it; the third
 *       keeps its data until these two are a majority and active.
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
   * @param patient whether it still waits for somebody else to start first
   */
  record Own(String id, boolean running, boolean majority, int rank, boolean patient) {}

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

  /** Why a node's data is not to be trusted like the others'. */
  enum Doubt {
    NONE,
    /** It was active without a majority: it may hold what nobody acknowledged. */
    ALONE,
    /** It was emptied and is being filled: it may lack anything. */
    FILLING
  }

  static final int CLEAN = 2;
  static final int ALONE = 1;
  static final int FILLING = 0;
  static final int OUTSIDE = -1;

  /** How far a node's data is to be trusted: higher is newer. */
  static int rank(boolean inView, Doubt doubt) {
    if (!inView) {
      return OUTSIDE;
    }
    return switch (doubt) {
      case NONE -> CLEAN;
      case ALONE -> ALONE;
      case FILLING -> FILLING;
    };
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

  /** Of equals that all begin, the one with the smallest id does so alone, and the others join. */
  private static boolean isToWait(Own own, Collection<Peer> answers) {
    return own.patient()
        && answers.stream().noneMatch(Peer::running)
        && answers.stream().anyMatch(p -> p.rank() == own.rank() && p.id().compareTo(own.id()) < 0);
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
      if (lowerRuns || isToWait(own, answers)) {
        return Action.STAY;
      }
      boolean equalRuns = answers.stream().anyMatch(p -> p.running() && p.rank() == own.rank());
      return own.rank() == ALONE && equalRuns && members <= Grid.BACKUPS + 1
          ? Action.START_EMPTY
          : Action.START;
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
