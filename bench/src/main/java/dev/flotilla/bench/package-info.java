/**
 * Measurements that anyone can repeat: {@code flotilla bench NAME}. Speed beside what a user would
 * pick otherwise, and correctness under faults with histories judged by independent checkers.
 *
 * <p>Uses the product from outside, by its HTTP API, Java API and commands; nothing of the product
 * knows it. The checkers are pure functions of a {@link dev.flotilla.bench.History}.
 */
@NullMarked
package dev.flotilla.bench;

import org.jspecify.annotations.NullMarked;
