package dev.flotilla.data.grid;

import dev.flotilla.cluster.Cluster;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.function.LongSupplier;
import java.util.random.RandomGenerator;

/**
 * What every part of the data plane stands on.
 *
 * @param folder this node's data folder; a part keeps its files in {@code data/} of it
 * @param bindHost the address the grid's ports listen on
 * @param httpPort the node's port P; the grid's are counted from it
 * @param random for ids, never for anything a test must repeat
 */
public record Environment(
    Cluster cluster,
    Path folder,
    String bindHost,
    int httpPort,
    MeterRegistry metrics,
    InstantSource clock,
    LongSupplier nanoTime,
    RandomGenerator random) {}
