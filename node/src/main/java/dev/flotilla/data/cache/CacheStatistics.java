package dev.flotilla.data.cache;

/**
 * What was counted; sums over nodes.
 *
 * @param nearHits reads answered by a node's own near cache
 * @param gridHits reads answered by the grid
 * @param misses reads that found nothing, before any load
 * @param loads of the store that ended well
 * @param loadFailures of the store
 * @param writes puts, removals and increments that were done
 * @param nearEvictions entries that went from near caches for want of room
 * @param gridEvictions entries that went from the grid for want of room
 * @param expired entries that were cleared away after their time
 * @param nearEntries in all near caches now
 * @param nearBytes in all near caches now
 * @param entries in the grid now, without copies, expired ones included until they are cleared
 * @param bytes of keys and values in the grid, without copies, as last counted
 */
public record CacheStatistics(
    long nearHits,
    long gridHits,
    long misses,
    long loads,
    long loadFailures,
    long writes,
    long nearEvictions,
    long gridEvictions,
    long expired,
    long nearEntries,
    long nearBytes,
    long entries,
    long bytes) {

  CacheStatistics plus(CacheStatistics other) {
    return new CacheStatistics(
        nearHits + other.nearHits,
        gridHits + other.gridHits,
        misses + other.misses,
        loads + other.loads,
        loadFailures + other.loadFailures,
        writes + other.writes,
        nearEvictions + other.nearEvictions,
        gridEvictions + other.gridEvictions,
        expired + other.expired,
        nearEntries + other.nearEntries,
        nearBytes + other.nearBytes,
        entries + other.entries,
        bytes + other.bytes);
  }

  CacheStatistics withEntries(long counted) {
    return new CacheStatistics(
        nearHits,
        gridHits,
        misses,
        loads,
        loadFailures,
        writes,
        nearEvictions,
        gridEvictions,
        expired,
        nearEntries,
        nearBytes,
        counted,
        bytes);
  }
}
