package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.plan.Machine;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What the planner needs to know of this machine, as {@link dev.flotilla.cluster.NodeInfo} carries
 * it: figures by name. Memory is looked up at each start. How fast memory is read is measured at
 * the first start; how fast layers run, and what the links to other nodes do, by the {@link
 * Profiler} once there is time for it. What was measured is kept in the data folder, until the
 * program, the processor or the Java runtime is another.
 */
public final class NodeProfile {

  /** Memory that weights and caches may take. */
  public static final String MEMORY_BYTES = "memory_bytes";

  /** Processors that this process may use. */
  public static final String CORES = "cores";

  /** Reading by all cores together. */
  public static final String WEIGHT_BYTES_PER_SECOND = "weight_bytes_per_second";

  private static final String LAYER_SECONDS = "layer_seconds_rows_";
  private static final String TYPE_RATE = "_bytes_per_second_rows_";
  private static final String DECODE_ATTENTION = "decode_attention_seconds";
  private static final String PROMPT_ATTENTION = "prompt_attention_seconds";
  private static final String LINK_LATENCY_SECONDS = "link_latency_seconds";
  private static final String LINK_BYTES_PER_SECOND = "link_bytes_per_second";

  private static final Logger log = LoggerFactory.getLogger(NodeProfile.class);
  private static final long MEASURE_NS = TimeUnit.MILLISECONDS.toNanos(150);
  private static final int ARRAY_LONGS = 8 << 20; // 64 MiB: beyond most caches
  private static final double USABLE_SHARE = 0.8;

  private NodeProfile() {}

  /**
   * What is kept on the disk.
   *
   * @param takenWith program, processor and Java runtime; another one measures again
   */
  private record Kept(String takenWith, Map<String, Double> figures) {}

  /**
   * The profile at a start: memory as it is now, and what is kept of measurements. If nothing is,
   * how fast memory is read is measured (under 300 ms) and kept.
   *
   * @param folder the node's data folder
   * @param version of the program
   */
  public static Map<String, Double> measure(Path folder, String version) {
    Map<String, Double> profile = new TreeMap<>(kept(folder, version));
    if (!(profile.getOrDefault(WEIGHT_BYTES_PER_SECOND, 0.0) > 0)) {
      int cores = Runtime.getRuntime().availableProcessors();
      profile.put(CORES, (double) cores);
      profile.put(WEIGHT_BYTES_PER_SECOND, readBandwidth(cores));
      keep(folder, version, profile);
    }
    double memory = Math.floor(availableMemoryBytes() * USABLE_SHARE);
    profile.put(MEMORY_BYTES, memory);
    log.info(
        "this machine: {} GB free for models, reads {} GB/s; layers {}",
        Math.round(memory / 1e8) / 10.0,
        Math.round(profile.getOrDefault(WEIGHT_BYTES_PER_SECOND, 0.0) / 1e8) / 10.0,
        speeds(profile).measured() ? "were measured" : "will be measured when there is time");
    return profile;
  }

  /** Figures measured with this program on this machine; none if there are none. */
  private static Map<String, Double> kept(Path folder, String version) {
    Path file = file(folder);
    try {
      if (Files.exists(file)) {
        Kept kept = Json.MAPPER.readValue(Files.readAllBytes(file), Kept.class);
        if (takenWith(version).equals(kept.takenWith()) && kept.figures() != null) {
          return kept.figures();
        }
      }
    } catch (IOException e) {
      log.info("{} is damaged; this machine is measured again", file);
    }
    return Map.of();
  }

  /** Keeps figures for the next start; what changes from start to start is left out. */
  static void keep(Path folder, String version, Map<String, Double> profile) {
    Map<String, Double> figures = new TreeMap<>(profile);
    figures.keySet().removeAll(Set.of(MEMORY_BYTES, LINK_LATENCY_SECONDS, LINK_BYTES_PER_SECOND));
    DurableFiles.write(file(folder), Json.write(new Kept(takenWith(version), figures)));
  }

  private static Path file(Path folder) {
    return folder.resolve("profile.json");
  }

  private static String takenWith(String version) {
    return String.join(
        "; ",
        version,
        processor(),
        Runtime.getRuntime().availableProcessors() + " cores",
        System.getProperty("java.vm.name") + " " + Runtime.version());
  }

  private static String processor() {
    try {
      Matcher line =
          Pattern.compile("^model name\\s*:\\s*(.*)$", Pattern.MULTILINE)
              .matcher(Files.readString(Path.of("/proc/cpuinfo")));
      return line.find() ? line.group(1) : System.getProperty("os.arch");
    } catch (IOException e) {
      return System.getProperty("os.arch"); // not Linux
    }
  }

  /** The figures of measured layers, by name. */
  static Map<String, Double> figures(LayerSpeeds speeds) {
    Map<String, Double> figures = new TreeMap<>();
    for (int i = 0; i < LayerSpeeds.ROWS.size(); i++) {
      int rows = LayerSpeeds.ROWS.get(i);
      figures.put(LAYER_SECONDS + rows, speeds.layerSeconds().get(i));
      for (Map.Entry<String, List<Double>> type : speeds.secondsPerByte().entrySet()) {
        double seconds = Math.max(1e-15, type.getValue().get(i));
        figures.put(type.getKey() + TYPE_RATE + rows, 1 / seconds);
      }
    }
    figures.put(DECODE_ATTENTION, speeds.decodeAttention());
    figures.put(PROMPT_ATTENTION, speeds.promptAttention());
    return figures;
  }

  /** The figures of a node's links, by name. */
  static Map<String, Double> figures(double latencySeconds, double bytesPerSecond) {
    return Map.of(LINK_LATENCY_SECONDS, latencySeconds, LINK_BYTES_PER_SECOND, bytesPerSecond);
  }

  /** The speeds in a profile; a guess where they were not measured yet. */
  static LayerSpeeds speeds(Map<String, Double> profile) {
    LayerSpeeds guess = LayerSpeeds.guessed(profile.getOrDefault(WEIGHT_BYTES_PER_SECOND, 1e9));
    List<Double> layers = row(profile, LAYER_SECONDS);
    Map<String, List<Double>> types = new TreeMap<>();
    for (String name : profile.keySet()) {
      int at = name.indexOf(TYPE_RATE);
      if (at > 0) {
        String type = name.substring(0, at);
        List<Double> rates = row(profile, type + TYPE_RATE);
        if (!rates.isEmpty()) {
          types.put(type, rates.stream().map(rate -> 1 / rate).toList());
        }
      }
    }
    if (layers.isEmpty() || types.isEmpty()) {
      return guess;
    }
    return new LayerSpeeds(
        layers,
        types,
        profile.getOrDefault(DECODE_ATTENTION, 0.0),
        profile.getOrDefault(PROMPT_ATTENTION, 0.0),
        true);
  }

  /** The figures for all numbers of rows, or none. */
  private static List<Double> row(Map<String, Double> profile, String prefix) {
    List<Double> row =
        LayerSpeeds.ROWS.stream()
            .map(rows -> profile.get(prefix + rows))
            .filter(Objects::nonNull)
            .toList();
    return row.size() == LayerSpeeds.ROWS.size() ? row : List.of();
  }

  /** A node as the planner sees it; nothing if it has not said what memory it has. */
  static Optional<Machine> machine(NodeInfo node) {
    Map<String, Double> profile = node.profile();
    if (!profile.containsKey(MEMORY_BYTES)) {
      return Optional.empty();
    }
    return Optional.of(
        new Machine(
            node.id(),
            profile.get(MEMORY_BYTES).longValue(),
            speeds(profile),
            profile.getOrDefault(LINK_LATENCY_SECONDS, Machine.GUESSED_LATENCY_SECONDS),
            profile.getOrDefault(LINK_BYTES_PER_SECOND, Machine.GUESSED_BYTES_PER_SECOND)));
  }

  private static double availableMemoryBytes() {
    double total = 0;
    if (ManagementFactory.getOperatingSystemMXBean()
        instanceof com.sun.management.OperatingSystemMXBean system) {
      total = system.getTotalMemorySize(); // of the container, if there is one
    }
    try {
      Matcher line =
          Pattern.compile("MemAvailable:\\s+(\\d+) kB")
              .matcher(Files.readString(Path.of("/proc/meminfo")));
      return line.find() ? Math.min(total, Long.parseLong(line.group(1)) * 1024.0) : total;
    } catch (IOException e) {
      return total / 2; // not Linux: what others use is unknown
    }
  }

  private static double readBandwidth(int cores) {
    int length = (int) Math.min(ARRAY_LONGS, Runtime.getRuntime().maxMemory() / 32);
    long[] memory = new long[length];
    java.util.Arrays.fill(memory, 1); // pages that were never written share one zero page
    AtomicLong blackHole = new AtomicLong();
    try (ExecutorService pool = Executors.newFixedThreadPool(cores)) {
      long endNs = System.nanoTime() + MEASURE_NS;
      List<Future<Double>> rates = new ArrayList<>();
      for (int i = 0; i < cores; i++) {
        int from = (int) ((long) length * i / cores);
        int to = (int) ((long) length * (i + 1) / cores);
        rates.add(pool.submit(() -> rate(memory, from, to, endNs, blackHole)));
      }
      double sum = 0;
      for (Future<Double> rate : rates) {
        sum += rate.get();
      }
      return sum;
    } catch (InterruptedException | ExecutionException e) {
      throw new FlotillaException(
          FlotillaException.Code.FAILED, "the measurement of memory was broken off", "", e);
    }
  }

  /** Bytes per second of the best pass: the first ones run before the code is compiled. */
  private static double rate(long[] memory, int from, int to, long endNs, AtomicLong blackHole) {
    double best = 0;
    int block = 1 << 18;
    for (int i = from; System.nanoTime() < endNs; i = i + block < to ? i + block : from) {
      int end = Math.min(to, i + block);
      long startNs = System.nanoTime();
      blackHole.addAndGet(sum(memory, i, end));
      best = Math.max(best, (end - i) * 8e9 / Math.max(1, System.nanoTime() - startNs));
    }
    return best;
  }

  private static long sum(long[] memory, int from, int to) {
    long sum = 0;
    for (int i = from; i < to; i++) {
      sum += memory[i];
    }
    return sum;
  }
}
