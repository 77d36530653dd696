package dev.flotilla.model;

import java.util.List;

/**
 * Qwen 3 as a mixture of experts, Qwen Team 2025: the attention of {@link Qwen3}, and feed-forward
 * parts of which each row goes through the few that a router scores highest, weighted by the
 * softmax of their scores.
 */
final class Qwen3Moe implements Definition {

  @Override
  public List<Part> parts(ModelConfig c) {
    int experts = c.variant().experts();
    return List.of(
        Part.gain("attn_norm", "input_layernorm", c.width()),
        Part.matrix("attn_q", "self_attn.q_proj", c.width(), c.queryWidth()),
        Part.matrix("attn_k", "self_attn.k_proj", c.width(), c.keyWidth()),
        Part.matrix("attn_v", "self_attn.v_proj", c.width(), c.keyWidth()),
        Part.gain("attn_q_norm", "self_attn.q_norm", c.headWidth()),
        Part.gain("attn_k_norm", "self_attn.k_norm", c.headWidth()),
        Part.matrix("attn_output", "self_attn.o_proj", c.queryWidth(), c.width()),
        Part.gain("ffn_norm", "post_attention_layernorm", c.width()),
        Part.matrix("ffn_gate_inp", "mlp.gate", c.width(), experts),
        Part.experts("ffn_gate", "mlp.experts.*.gate_proj", c.width(), c.feedForward(), experts),
        Part.experts("ffn_up", "mlp.experts.*.up_proj", c.width(), c.feedForward(), experts),
        Part.experts("ffn_down", "mlp.experts.*.down_proj", c.feedForward(), c.width(), experts));
  }

  @Override
  public <T, W> T block(Block<T, W> b, T x) {
    T y = b.norm(x, "attn_norm");
    T query = b.rope(b.norm(b.linear(y, "attn_q"), "attn_q_norm"));
    T key = b.rope(b.norm(b.linear(y, "attn_k"), "attn_k_norm"));
    T value = b.linear(y, "attn_v");
    x = b.add(x, b.linear(b.attend(query, key, value), "attn_output"));
    y = b.norm(x, "ffn_norm");
    return b.add(x, b.mixture(y, b.linear(y, "ffn_gate_inp")));
  }
}
