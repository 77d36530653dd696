package dev.flotilla.gateway;

import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.DataPlane;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Embedder;
import dev.flotilla.serve.Generator;
import dev.flotilla.serve.KeptAnswers;
import dev.flotilla.train.TrainingJobs;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.security.SecureRandom;
import java.time.InstantSource;
import java.util.function.LongSupplier;
import java.util.function.Supplier;

/**
 * All that the HTTP side stands on.
 *
 * @param health this node's own state, asked at each request for {@code /health}; a missing
 *     majority and draining are found out by the gateway itself
 * @param random of keys, request ids and the seeds of requests that bring none
 */
public record GatewayServices(
    Cluster cluster,
    DataPlane data,
    Deployments deployments,
    Generator generator,
    KeptAnswers answers,
    StoredResponses responses,
    Embedder embedder,
    TrainingJobs training,
    ModelImports imports,
    Invites invites,
    Restarts restarts,
    Supplier<Health> health,
    PrometheusMeterRegistry metrics,
    InstantSource clock,
    LongSupplier nanoTime,
    SecureRandom random) {

  /** For a request that comes in here; no other in the cluster has it. */
  String newRequestId() {
    return cluster.self() + "-" + Long.toHexString(random.nextLong());
  }

  /** Whether what this node knows of the cluster is what a majority knows. */
  boolean hasMajority() {
    return data.grid().hasMajority();
  }

  /**
   * Whether this node can answer.
   *
   * @param status {@code ok}, or what it is doing instead: {@code starting}, {@code loading}
   * @param reason for people; empty when ok
   */
  public record Health(String status, String reason) {

    /** All is well. */
    public static final Health OK = new Health("ok", "");

    boolean ok() {
      return status.equals("ok");
    }
  }
}
