package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Flow;

/** Hands a subscriber as many messages as it asked for, one thread at a time (Reactive Streams). */
final class QueueSubscription implements Flow.Subscription {

  private static final int BATCH = 32;
  private static final Duration WAIT = Duration.ofSeconds(10);

  private final Queue queue;
  private final String group;
  private final String consumer;
  private final Duration visibility;
  private final Flow.Subscriber<? super Queue.Message> subscriber;
  private long demand;
  private boolean started;
  private volatile boolean cancelled;

  QueueSubscription(
      Queue queue,
      String group,
      String consumer,
      Duration visibility,
      Flow.Subscriber<? super Queue.Message> subscriber) {
    this.queue = queue;
    this.group = group;
    this.consumer = consumer;
    this.visibility = visibility;
    this.subscriber = subscriber;
  }

  @Override
  public synchronized void request(long more) {
    if (more <= 0) {
      cancelled = true;
      subscriber.onError(new IllegalArgumentException("asked for " + more + " messages"));
      return;
    }
    demand = demand + more < 0 ? Long.MAX_VALUE : demand + more;
    notifyAll();
    if (!started) {
      started = true;
      Thread.ofVirtual().name("queue-" + queue.name()).start(this::run);
    }
  }

  @Override
  public synchronized void cancel() {
    cancelled = true;
    notifyAll();
  }

  private void run() {
    try {
      while (!cancelled) {
        int wanted = awaitDemand();
        List<Queue.Message> messages =
            cancelled ? List.of() : queue.receive(group, consumer, wanted, visibility, WAIT);
        for (Queue.Message message : messages) {
          if (!cancelled) {
            subscriber.onNext(message);
          }
        }
        synchronized (this) {
          demand -= demand == Long.MAX_VALUE ? 0 : messages.size();
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (FlotillaException e) {
      cancelled = true;
      subscriber.onError(e);
    }
  }

  private synchronized int awaitDemand() throws InterruptedException {
    while (demand == 0 && !cancelled) {
      wait();
    }
    return (int) Math.min(demand, BATCH);
  }
}
