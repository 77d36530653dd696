package dev.flotilla.data;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * Copies of all that the data grid holds (tables, caches, queues, and what the registry says of
 * their shape), to go back to.
 *
 * <p>A backup is a full copy, consistent over all nodes, and any number of points added to it
 * later, which cost only what was written in between. One can go back to the full copy or to any of
 * the points, not to moments between them: so how much is lost at worst is how seldom points are
 * added. Points need the write-ahead log since the last one; a node keeps 128 MB of it, and after
 * more (or after a node has joined or left) a new backup is due, which is said then. What a cache
 * of atomicity {@code ATOMIC} was given in the moment of a point may be on one copy and not on
 * another; transactional ones are exact.
 *
 * <p>Each node writes its part to its own disk, below its data folder or in a folder named by an
 * absolute path. Only where that folder is shared by all nodes, or the parts are brought together,
 * can it be restored by another cluster.
 */
public interface Backups {

  /**
   * One backup.
   *
   * @param folder where each node's part lies; empty if below its data folder
   * @param points everything acknowledged before these moments is in; the first is the full copy
   */
  record Backup(String name, Optional<String> folder, List<Instant> points) {

    /** Copies the list. */
    public Backup {
      points = List.copyOf(points);
    }
  }

  /**
   * Makes a full copy while the grid goes on working.
   *
   * @param name up to 64 letters, digits and underscores
   * @param folder an absolute path on every node, or empty
   * @throws dev.flotilla.FlotillaException {@code INVALID} for a bad name, {@code CONFLICT} if
   *     there is one of that name or another is being made, {@code NO_MAJORITY}, {@code FAILED} if
   *     a node could not write its part: nothing is kept then
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
}
