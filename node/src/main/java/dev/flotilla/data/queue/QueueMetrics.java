package dev.flotilla.data.queue;

import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.MultiGauge;
import io.micrometer.core.instrument.Tags;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.stream.Stream;

/**
 * What is counted of queues. Messages are counted on the node that sent, handed out or acknowledged
 * them, backlogs on the node that hands out their partition, every few seconds: sums over all nodes
 * are the whole.
 */
final class QueueMetrics {

  private static final List<String> COUNTERS = List.of("sent", "received", "acknowledged", "died");

  private final MeterRegistry registry;
  private final MultiGauge depth;
  private final MultiGauge held;
  private final MultiGauge dead;
  private final MultiGauge oldest;

  QueueMetrics(MeterRegistry registry) {
    this.registry = registry;
    this.depth = gauge("depth", "Messages that the group has not acknowledged.");
    this.held = gauge("in_flight", "Messages that are handed out or given back until later.");
    this.dead = gauge("dead_letters", "Messages that were handed out too often.");
    this.oldest =
        gauge("oldest_seconds", "Age of the oldest message that the group has not acknowledged.");
  }

  private MultiGauge gauge(String what, String description) {
    return MultiGauge.builder("flotilla_queue_" + what).description(description).register(registry);
  }

  private void count(String what, String queue, long count) {
    if (count > 0) {
      registry.counter("flotilla_queue_" + what, "queue", queue).increment((double) count);
    }
  }

  void sent(String queue, long count) {
    count("sent", queue, count);
  }

  void received(String queue, long count) {
    count("received", queue, count);
  }

  void acknowledged(String queue, long count) {
    count("acknowledged", queue, count);
  }

  void died(String queue, long count) {
    count("died", queue, count);
  }

  /** It was deleted. */
  void forget(String queue) {
    counters()
        .filter(counter -> queue.equals(counter.getId().getTag("queue")))
        .forEach(registry::remove);
  }

  /** All others were deleted. */
  void keepOnly(Predicate<String> present) {
    counters()
        .filter(counter -> !present.test(String.valueOf(counter.getId().getTag("queue"))))
        .forEach(registry::remove);
  }

  private Stream<Counter> counters() {
    return COUNTERS.stream()
        .flatMap(what -> registry.find("flotilla_queue_" + what).counters().stream());
  }

  /** The backlogs of this node's partitions, by queue and group, in place of those before. */
  void backlogs(Map<String, Map<String, QueueOwner.Backlog>> all, long nowMs) {
    List<MultiGauge.Row<?>> depths = new ArrayList<>();
    List<MultiGauge.Row<?>> helds = new ArrayList<>();
    List<MultiGauge.Row<?>> deads = new ArrayList<>();
    List<MultiGauge.Row<?>> ages = new ArrayList<>();
    all.forEach(
        (queue, groups) ->
            groups.forEach(
                (group, backlog) -> {
                  Tags tags = Tags.of("queue", queue, "group", group);
                  depths.add(MultiGauge.Row.of(tags, backlog.depth()));
                  helds.add(MultiGauge.Row.of(tags, backlog.held()));
                  deads.add(MultiGauge.Row.of(tags, backlog.dead()));
                  double age = Math.max(0, nowMs - backlog.oldestSentAtMs()) / 1e3;
                  ages.add(
                      MultiGauge.Row.of(
                          tags, backlog.oldestSentAtMs() == Long.MAX_VALUE ? 0 : age));
                }));
    depth.register(depths, true);
    held.register(helds, true);
    dead.register(deads, true);
    oldest.register(ages, true);
  }
}
