package dev.flotilla.model;

import java.util.List;

/**
 * What one block of an architecture is made of and does, in terms of {@link Block}. Defined once,
 * for training and for serving, whole or cut into slices.
 */
sealed interface Definition permits Llama, Qwen2, Qwen3, Qwen3Moe, Gemma2, Gemma3, Phi3, SmolLm3 {

  /** The tensors of a block. */
  List<Part> parts(ModelConfig c);

  /**
   * One block.
   *
   * @param x hidden states {@code [rows, width]}
   * @return hidden states {@code [rows, width]}
   */
  <T, W> T block(Block<T, W> b, T x);

  /** What hidden states are multiplied by after the embedding. */
  default float embeddingScale(ModelConfig c) {
    return 1;
  }

  /** Hugging Face stores the gains of norms less this. */
  default float storedGainOffset() {
    return 0;
  }
}
