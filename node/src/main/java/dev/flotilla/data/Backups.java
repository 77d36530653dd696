package dev.flotilla.data;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * Copies of all that the data grid holds (tables, caches, queues, and what the registry says of
 * their shape), to go back to.
 *
 * <p>A backup is a full copy, consistent over all nodes. From then on, until the next backup is
 * made, each node writes behind it what changes, about twice a second: so one can go back to any
 * moment between the copy and the last that was written, to the millisecond as the nodes' clocks
 * have it, with whole transactions only. That a table or cache was made, altered or dropped is
 * placed to within a second. These changes do not depend on which nodes wrote them: they can be
 * taken to another cluster of any size together with the copy.
 *
 * <p>Going back ends the writing: make a new backup then. So does losing the thread on too many
 * nodes at once (a start of all nodes of several; more than 128 MB written while a node was away):
 * {@link Backup#anyMoment} says up to when it is good.
 *
 * <p>Points added by hand are the engine's own, and only the nodes that made them can go back to
 * them.
 *
 * <p>Each node writes its part to its own disk, below its data folder or in a folder named by an
 * absolute path. Only where that folder is shared by all nodes, or the parts are brought together,
 * can it be restored by another cluster; of the changes those of one node are enough where there
 * are at most three, and those of all but two where there are more.
 */
public interface Backups {

  /**
   * One backup.
   *
   * @param folder where each node's part lies; empty if below its data folder
   * @param points everything acknowledged before these moments is in; the first is the full copy
   * @param anyMoment the moments to which one can go back exactly; empty if only to the points
   * @param without names of the grid's nodes that were lost when the full copy was made, and have
   *     no part in it: it has what they hold from the others' copies
   */
  record Backup(
      String name,
      Optional<String> folder,
      List<Instant> points,
      Optional<Moments> anyMoment,
      List<String> without) {

    /** Copies the lists. */
    public Backup {
      points = List.copyOf(points);
      without = List.copyOf(without);
    }
  }

  /**
   * A time all of whose moments can be gone back to.
   *
   * @param to grows while the nodes write changes behind this backup, seldom more than two or three
   *     seconds behind; what was written after it is lost if all nodes are
   * @param trouble why a node does not write changes now; empty if all do or another backup is
   *     followed
   */
  record Moments(Instant from, Instant to, String trouble) {}

  /**
   * Makes a full copy while the grid goes on working.
   *
   * @param name up to 64 letters, digits and underscores
   * @param folder an absolute path on every node, or empty; made where it is missing, in a folder
   *     that is there
   * @throws dev.flotilla.FlotillaException {@code INVALID} for a bad name, or a folder that a node
   *     cannot write to, before anything starts; {@code CONFLICT} if there is one of that name or
   *     another is being made, {@code NO_MAJORITY}, {@code UNAVAILABLE} naming a node that does not
   *     say whether it can write, {@code FAILED} if a node could not write its part: nothing is
   *     kept then
   */
  Backup create(String name, Optional<String> folder);

  /**
   * Adds a point to a backup.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such backup, {@code
   *     CONFLICT} if what was written since the last one is no longer known: make a new backup
   */
  Backup addPoint(String name);

  /** Those that were made, oldest first. */
  List<Backup> list();

  /**
   * Goes back to the last point that is not after the moment, or to the last of all. What the grid
   * holds now is deleted, and it answers nobody meanwhile. The backup's parts are checked first. If
   * this is cut off in the middle, the grid stays closed until a restore has been run to its end.
   *
   * @param folder as at its creation; where it is unknown to this cluster, {@code folder} must hold
   *     the parts of all nodes
   * @return the point gone back to
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such backup or point,
   *     {@code BAD_FILE} if its parts are damaged or missing, {@code CONFLICT} if another restore
   *     is running
   */
  Instant restore(String name, Optional<String> folder, Optional<Instant> at);

  /**
   * Deletes a backup, on every node.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND}
   */
  void delete(String name);

  /**
   * Deletes old backups, never the last one.
   *
   * @param age those whose last moment is older
   * @param bytes those that, counted from the newest, take more on this node
   * @return the names of those deleted
   */
  List<String> prune(Optional<java.time.Duration> age, Optional<Long> bytes);
}
