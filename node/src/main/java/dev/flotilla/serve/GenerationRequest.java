package dev.flotilla.serve;

import java.util.Optional;

/**
 * A request as a value: with it and the tokens generated so far, any replica can continue it with
 * the same result.
 *
 * @param id unique in the cluster
 * @param model the deployment's model
 * @param prompt token ids, at least one
 * @param sampling how tokens are drawn
 * @param maxTokens at most so many are generated
 * @param endTokens generation ends at any of these; it is not delivered
 * @param grammar that what is generated is held to, as {@link dev.flotilla.text.Grammar#source};
 *     needs an end token
 * @param claim in whose name; decides when it runs, not what comes of it
 */
public record GenerationRequest(
    String id,
    String model,
    int[] prompt,
    SamplingParameters sampling,
    int maxTokens,
    int[] endTokens,
    Optional<String> grammar,
    Claim claim) {}
