package dev.flotilla.cluster;

/**
 * The right to act as holder of a lock. Whatever it guards refuses a token below the highest it has
 * seen for that lock: then another holds the lock by now.
 */
public record Fence(String lock, long token) {}
