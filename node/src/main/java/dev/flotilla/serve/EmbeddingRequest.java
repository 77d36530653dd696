package dev.flotilla.serve;

import dev.flotilla.model.Pooling;

/**
 * A text to embed, as a value: any replica gives the same bits.
 *
 * @param id unique in the cluster
 * @param model the deployment's model
 * @param tokens token ids, at least one
 * @param claim in whose name
 */
public record EmbeddingRequest(
    String id, String model, int[] tokens, Pooling pooling, Claim claim) {}
