package dev.flotilla.data.usage;

import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Predicate;

/** Events summed by hour, model and key. A pure fold: any grouping of events gives the same. */
final class UsageTotals {

  static final long HOUR_MS = 3_600_000;

  /** What is summed together. */
  record Group(long hourMs, String model, String key) {

    String day() {
      return UsageTotals.day(hourMs);
    }
  }

  /** A group's sums. */
  record Sums(long requests, long promptTokens, long completionTokens, long cachedRequests) {

    Sums plus(Sums other) {
      return new Sums(
          requests + other.requests,
          promptTokens + other.promptTokens,
          completionTokens + other.completionTokens,
          cachedRequests + other.cachedRequests);
    }
  }

  /** A group with its sums, as views keep it. */
  record Line(Group group, Sums sums) {}

  private final Map<Group, Sums> sums = new HashMap<>();

  static String day(long timeMs) {
    return Instant.ofEpochMilli(timeMs).atOffset(ZoneOffset.UTC).toLocalDate().toString();
  }

  UsageTotals add(UsageEvent event) {
    long hourMs = Math.floorDiv(event.timeMs(), HOUR_MS) * HOUR_MS;
    return add(
        new Line(
            new Group(hourMs, event.model(), event.key()),
            new Sums(1, event.promptTokens(), event.completionTokens(), event.cached() ? 1 : 0)));
  }

  UsageTotals add(Line line) {
    sums.merge(line.group(), line.sums(), Sums::plus);
    return this;
  }

  UsageTotals addAll(Collection<Line> lines) {
    lines.forEach(this::add);
    return this;
  }

  List<Line> lines() {
    List<Line> lines = new ArrayList<>();
    sums.forEach((group, sum) -> lines.add(new Line(group, sum)));
    return lines;
  }

  /** The lines by their day. */
  Map<String, List<Line>> byDay() {
    Map<String, List<Line>> days = new TreeMap<>();
    lines()
        .forEach(
            line -> days.computeIfAbsent(line.group().day(), _ -> new ArrayList<>()).add(line));
    return days;
  }

  /** Sums of the groups that pass, by model, key or day. */
  List<Usage.Row> rows(Usage.By by, Predicate<Group> passes) {
    Map<String, Sums> rows = new TreeMap<>();
    sums.forEach(
        (group, sum) -> {
          if (passes.test(group)) {
            String name =
                switch (by) {
                  case MODEL -> group.model();
                  case KEY -> group.key();
                  case DAY -> group.day();
                };
            rows.merge(name, sum, Sums::plus);
          }
        });
    return rows.entrySet().stream()
        .map(
            row ->
                new Usage.Row(
                    row.getKey(),
                    row.getValue().requests(),
                    row.getValue().promptTokens(),
                    row.getValue().completionTokens(),
                    row.getValue().cachedRequests()))
        .toList();
  }
}
