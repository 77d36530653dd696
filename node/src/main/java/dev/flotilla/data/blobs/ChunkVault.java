package dev.flotilla.data.blobs;

import java.util.Collection;

/** Where chunks are kept safe: the nodes' disks, or an object store. */
interface ChunkVault {

  /** Returns once the chunk outlives the loss of a node. */
  void store(String chunk, byte[] content, int length);

  /**
   * The chunk, compared with its digest.
   *
   * @throws dev.flotilla.FlotillaException {@code UNAVAILABLE} if no whole copy can be reached
   */
  byte[] load(String chunk);

  /**
   * Keeps chunks from being collected for another delay.
   *
   * @throws dev.flotilla.FlotillaException {@code UNAVAILABLE} if one of them cannot be reached
   */
  void touch(Collection<String> chunks);
}
