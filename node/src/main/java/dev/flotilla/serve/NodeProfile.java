package dev.flotilla.serve;

import com.fasterxml.jackson.core.type.TypeReference;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
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
 * Measures what the planner needs to know of this machine: memory that is free for weights, cores,
 * and how fast all cores together read memory, which bounds how fast weights stream.
 */
public final class NodeProfile {

  /** Memory that weights and caches may take. */
  public static final String MEMORY_BYTES = "memory_bytes";

  /** Processors that this process may use. */
  public static final String CORES = "cores";

  /** Reading by all cores together. */
  public static final String WEIGHT_BYTES_PER_SECOND = "weight_bytes_per_second";

  private static final Logger log = LoggerFactory.getLogger(NodeProfile.class);
  private static final long MEASURE_NS = TimeUnit.MILLISECONDS.toNanos(150);
  private static final int ARRAY_LONGS = 8 << 20; // 64 MiB: beyond most caches
  private static final double USABLE_SHARE = 0.8;

  private NodeProfile() {}

  /**
   * The profile as {@link dev.flotilla.cluster.NodeInfo} carries it. The bandwidth is measured once
   * (under 300 ms) and then kept in {@code profile.json}; memory is looked up each time.
   *
   * @param folder the node's data folder
   */
  public static Map<String, Double> measure(Path folder) {
    double cores = Runtime.getRuntime().availableProcessors();
    Path file = folder.resolve("profile.json");
    Map<String, Double> kept = read(file);
    double bandwidth = kept.getOrDefault(WEIGHT_BYTES_PER_SECOND, 0.0);
    if (!(bandwidth > 0) || kept.getOrDefault(CORES, 0.0) != cores) {
      bandwidth = readBandwidth((int) cores);
      DurableFiles.write(
          file, Json.write(Map.of(CORES, cores, WEIGHT_BYTES_PER_SECOND, bandwidth)));
    }
    Map<String, Double> profile = new TreeMap<>();
    profile.put(CORES, cores);
    profile.put(MEMORY_BYTES, Math.floor(availableMemoryBytes() * USABLE_SHARE));
    profile.put(WEIGHT_BYTES_PER_SECOND, bandwidth);
    log.info("this machine measured {}", profile);
    return profile;
  }

  private static Map<String, Double> read(Path file) {
    try {
      return Files.exists(file)
          ? Json.MAPPER.readValue(
              Files.readAllBytes(file), new TypeReference<Map<String, Double>>() {})
          : Map.of();
    } catch (IOException e) {
      return Map.of(); // damaged: it is measured again
    }
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
