package dev.flotilla.data.sql;

import org.jspecify.annotations.Nullable;

/**
 * A running transaction, as its body sees it. Bound to the thread that runs the body: operations
 * there on {@code cache(name)} and {@code queue(name)} take part by themselves.
 */
public interface Transaction {

  /** Its id in the whole cluster. */
  String id();

  /** Runs one statement in it; DDL is refused with {@code INVALID}. */
  SqlResult sql(String statement, @Nullable Object... arguments);
}
