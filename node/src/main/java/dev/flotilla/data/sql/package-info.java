/**
 * The database: statements, keys and locks, migrations, sharding, transactions over tables, caches
 * and queues, and sagas. One package, since each of these rests on the others' inner workings.
 *
 * <p>Knows the grid, and the interfaces of caches and queues (they are steps of transactions);
 * these know nothing of it.
 */
@NullMarked
package dev.flotilla.data.sql;

import org.jspecify.annotations.NullMarked;
