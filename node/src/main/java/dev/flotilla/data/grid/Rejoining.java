package dev.flotilla.data.grid;

import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * Decides when a node's part of the grid leaves a lone half and joins the others again, and whether
 * it keeps its data. A pure function of what it knows of itself and what the others answer.
 *
 * <p>The engine does not rejoin by itself, and a node that comes back with data of a minority may
 * keep values that nobody acknowledged and lack some that were. Who has everything is known: the
 * registry's view ({@link GridMembers}). And a node that finds itself active without a majority
 * notes durably that it was <em>alone</em>, until it is of a view again: beside everything it may
 * have leftovers of its own. Hence three ranks: in the view and clean; in the view, but was alone;
 * outside of the view. From them follow the rules:
 *
 * <ul>
 *   <li>A lone part stops as soon as somebody of a higher rank answers that does not see it, and so
 *       does one of two equal lone parts, the one with the larger id.
 *   <li>A part starts only if a majority of the members answers (itself counted).
 *   <li>The highest start as they are; but not while a lower one still runs, starts or stops, whose
 *       data they would be made to take. Of several one goes first, and the others join it once it
 *       runs: who starts seeks only the nodes that {@link #seeds} names, never one that may be of
 *       another topology.
 *   <li>If all were alone at once, then with three members or fewer one of them claims the view for
 *       itself, and its data counts; the others start empty beside it.
 *   <li>Who is lower starts empty, once a higher one runs that is active and whole, and is filled
 *       by it. Who is outside of the view never starts without one that is in it.
 *   <li>With more than three members a few have no copy of everything. Those that were there when
 *       every partition last had an owner are the <em>keepers</em>. A lower one that is a keeper
 *       starts as it is, if the higher ones cannot be active without it or have lost partitions,
 *       and waits otherwise, until they are seen to be whole without it and it is no keeper.
 * </ul>
 */
final class Rejoining {

  /**
   * This node.
   *
   * @param majority whether it sees a majority of the members, one of the view among them (itself
   *     counted): nodes that have all started empty, because they saw one of the view run that then
   *     stood still, are none, however many they are
   * @param patient whether it has stopped, or lost the majority, only a while ago
   * @param keeper whether it may have the only copy of something
   */
  record Own(
      String id, boolean running, boolean majority, int rank, boolean patient, boolean keeper) {}

  /**
   * What another member answered; at a start, after this node's engine had stopped, so that nobody
   * can have joined it since.
   *
   * @param changing whether its engine is starting or stopping: it may be in a topology already, or
   *     still, but cannot say in which
   * @param whole whether its topology is settled, and every partition has an owner
   * @param lost whether its topology is settled, and some partition has none
   */
  record Peer(
      String id,
      boolean changing,
      boolean running,
      boolean active,
      boolean majority,
      boolean seesUs,
      boolean whole,
      boolean lost,
      int rank) {

    /** Whether its engine may be in some topology. */
    boolean isUp() {
      return running || changing;
    }
  }

  /** What to do now. */
  enum Action {
    /** Go on as it is: running, or not. */
    STAY,
    /** Stop the engine; what comes then is decided anew. */
    STOP,
    /** Start it with the data that is there. */
    START,
    /** See to it that this node alone makes up the view, then start it so; or go on if it runs. */
    CLAIM_VIEW,
    /** Delete its data, then start it. */
    START_EMPTY
  }

  static final int CLEAN = 2;
  static final int ALONE = 1;
  static final int OUTSIDE = 0;

  /** How far a node's data is to be trusted: higher is better. */
  static int rank(boolean inView, boolean wasAlone) {
    return !inView ? OUTSIDE : wasAlone ? ALONE : CLEAN;
  }

  private Rejoining() {}

  /**
   * The next action.
   *
   * @param members how many the grid has, this node included; 0 or 1 if it has none or only this
   * @param isMember whether this node is one of them
   */
  static Action decide(Own own, Collection<Peer> answers, int members, boolean isMember) {
    return own.running()
        ? whileRunning(own, answers, members)
        : atStart(own, answers, members, isMember);
  }

  private static Action whileRunning(Own own, Collection<Peer> answers, int members) {
    if (own.majority()) {
      return Action.STAY;
    }
    for (Peer peer : answers) {
      if (peer.seesUs()) {
        continue;
      }
      // Of nodes outside of the view not even a majority can go on.
      boolean better =
          peer.running()
              && peer.majority()
              && peer.active()
              && (peer.rank() > OUTSIDE || own.rank() == OUTSIDE);
      boolean higher = peer.rank() > own.rank();
      boolean equal = peer.rank() == own.rank();
      if (better || higher || (equal && peer.running() && peer.id().compareTo(own.id()) < 0)) {
        return Action.STOP;
      }
    }
    boolean others = answers.stream().anyMatch(p -> p.seesUs() || p.isUp());
    return own.rank() == ALONE && !others && mayClaim(own, answers, members)
        ? Action.CLAIM_VIEW
        : Action.STAY;
  }

  /**
   * With so few members each of them has everything, and one can stand for all; but others of the
   * view may only be slow to answer.
   */
  private static boolean mayClaim(Own own, Collection<Peer> answers, int members) {
    int present = answers.size() + 1;
    return members <= Grid.BACKUPS + 1
        && 2 * present > members
        && (present == members || !own.patient());
  }

  /** Of equals that all begin, the one with the smallest id does so alone, and the others join. */
  private static boolean isToWait(Own own, Collection<Peer> answers) {
    return own.patient()
        && answers.stream().noneMatch(Peer::isUp)
        && answers.stream().anyMatch(p -> p.rank() == own.rank() && p.id().compareTo(own.id()) < 0);
  }

  /**
   * Whom a node that starts now seeks, by id: those that run and are the highest, if they are not
   * lower than itself. With nobody to seek it makes a topology of its own.
   */
  static Set<String> seeds(int rank, Collection<Peer> answers) {
    int highest =
        answers.stream().filter(Peer::running).mapToInt(Peer::rank).max().orElse(Integer.MIN_VALUE);
    return highest < rank
        ? Set.of()
        : answers.stream()
            .filter(p -> p.running() && p.rank() == highest)
            .map(Peer::id)
            .collect(Collectors.toSet());
  }

  private static Action atStart(Own own, Collection<Peer> answers, int members, boolean isMember) {
    if (members <= 1 && isMember) {
      return Action.START;
    }
    List<Peer> higher = answers.stream().filter(p -> p.rank() > own.rank()).toList();
    if (!isMember) {
      // Nothing of its own to lose or to offer (an earlier try may have been cut off): there must
      // be somebody to join.
      return answers.stream().anyMatch(p -> p.running() && p.majority() && p.active())
          ? Action.START_EMPTY
          : Action.STAY;
    }
    if (2 * (answers.size() + 1) <= members) {
      return Action.STAY;
    }
    if (higher.isEmpty()) {
      boolean lowerIsUp = answers.stream().anyMatch(p -> p.isUp() && p.rank() < own.rank());
      // It will run soon, and can be joined then.
      boolean equalChanges = answers.stream().anyMatch(Peer::changing);
      if (lowerIsUp || equalChanges || isToWait(own, answers)) {
        return Action.STAY;
      }
      if (own.rank() == OUTSIDE) {
        return Action.STAY;
      }
      if (own.rank() == CLEAN || members > Grid.BACKUPS + 1) {
        return Action.START;
      }
      boolean equalRuns = answers.stream().anyMatch(p -> p.running() && p.rank() == own.rank());
      return equalRuns || !mayClaim(own, answers, members) ? Action.STAY : Action.CLAIM_VIEW;
    }
    boolean isCopied = members <= Grid.BACKUPS + 1 || !own.keeper();
    if (isCopied
        && higher.stream().anyMatch(p -> p.running() && p.active() && p.majority() && p.whole())) {
      return Action.START_EMPTY;
    }
    boolean theyNeedUs =
        2 * higher.size() <= members || higher.stream().anyMatch(p -> p.running() && p.lost());
    boolean oneRuns = higher.stream().anyMatch(Peer::running);
    if (!theyNeedUs || !oneRuns) {
      return Action.STAY;
    }
    return isCopied ? Action.START_EMPTY : Action.START;
  }
}
