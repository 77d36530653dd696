package dev.flotilla;

import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * The choice to read on a node that sees no majority of the cluster.
 *
 * <p>Such a node may lack what the others have acknowledged meanwhile, so it refuses reads with
 * {@code NO_MAJORITY}. Who would rather have an old answer than none says so around the read, and
 * is told whether the answer may be old:
 *
 * <pre>{@code
 * var answer = StaleReads.allow(() -> flotilla.cache("prices").get("apple"));
 * if (answer.stale()) …
 * }</pre>
 *
 * <p>That holds for all reads of this thread inside: of caches, tables, queues' states, streams,
 * blobs and jobs, embedded or through a client. It never holds for writes, for what is read inside
 * a transaction, for locks, or for what is handed out of a queue: those decide something. Over HTTP
 * it is {@code allow_stale=true}, and the answer's header {@value #HEADER} and field {@code stale}.
 */
public final class StaleReads {

  /** The header of an answer that may be old. */
  public static final String HEADER = "X-Flotilla-Stale";

  /** The parameter, or field, of a request that may be answered so. */
  public static final String PARAMETER = "allow_stale";

  /**
   * What was read.
   *
   * @param stale whether it may be older than what a majority has acknowledged
   */
  public record Answer<T>(T value, boolean stale) {}

  private static final ThreadLocal<@Nullable StaleReads> CURRENT = new ThreadLocal<>();

  private boolean stale;

  private StaleReads() {}

  /** Runs reads that may be answered by a node that sees no majority. */
  public static <T> Answer<T> allow(Supplier<T> reads) {
    StaleReads outer = CURRENT.get();
    StaleReads mine = new StaleReads();
    CURRENT.set(mine);
    try {
      T value = reads.get();
      return new Answer<>(value, mine.stale);
    } finally {
      CURRENT.set(outer);
      if (outer != null) {
        outer.stale |= mine.stale;
      }
    }
  }

  /** Whether this thread's reads may be stale. */
  public static boolean allowed() {
    return CURRENT.get() != null;
  }

  /** Whether one of this thread's reads was stale, since that was allowed. */
  public static boolean marked() {
    StaleReads current = CURRENT.get();
    return current != null && current.stale;
  }

  /**
   * Notes that a read of this thread may be stale.
   *
   * @return whether that is allowed; if not, the read must be refused
   */
  public static boolean mark() {
    StaleReads current = CURRENT.get();
    if (current != null) {
      current.stale = true;
    }
    return current != null;
  }
}
