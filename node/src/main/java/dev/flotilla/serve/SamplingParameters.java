package dev.flotilla.serve;

/**
 * How the next token is drawn.
 *
 * @param temperature 0 takes the most likely token; otherwise logits are divided by it
 * @param topP keeps the smallest set of tokens whose probability reaches it; 1 keeps all
 * @param topK keeps that many of the most likely tokens; 0 keeps all
 * @param seed of the counter-based random stream; with the position it fixes every draw
 */
public record SamplingParameters(float temperature, float topP, int topK, long seed) {

  /** Always the most likely token, the lowest id among equals. */
  public static final SamplingParameters GREEDY = new SamplingParameters(0, 1, 0, 0);
}
