package dev.flotilla.data.queue;

import java.util.List;
import java.util.Optional;

/** The cluster's queues. */
public interface Queues {

  /**
   * One of them; made with {@link QueueConfig#DEFAULT} if it does not exist.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the name cannot be one
   */
  Queue queue(String name);

  /** One that exists. */
  Optional<Queue> find(String name);

  /**
   * Makes one.
   *
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} if it exists with another configuration
   */
  Queue create(String name, QueueConfig config);

  /** All of them, by name. */
  List<String> names();

  /** Deletes one with all its messages; whether it was there. */
  boolean delete(String name);
}
