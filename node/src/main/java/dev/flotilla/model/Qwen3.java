package dev.flotilla.model;

import dev.flotilla.tensor.Ops.Gate;
import java.util.List;

/**
 * Qwen 3, Qwen Team 2025: Llama with each head of queries and keys normalised before it is turned,
 * for stable training.
 */
final class Qwen3 implements Definition {

  @Override
  public List<Part> parts(ModelConfig c) {
    return List.of(
        Part.gain("attn_norm", "input_layernorm", c.width()),
        Part.matrix("attn_q", "self_attn.q_proj", c.width(), c.queryWidth()),
        Part.matrix("attn_k", "self_attn.k_proj", c.width(), c.keyWidth()),
        Part.matrix("attn_v", "self_attn.v_proj", c.width(), c.keyWidth()),
        Part.gain("attn_q_norm", "self_attn.q_norm", c.headWidth()),
        Part.gain("attn_k_norm", "self_attn.k_norm", c.headWidth()),
        Part.matrix("attn_output", "self_attn.o_proj", c.queryWidth(), c.width()),
        Part.gain("ffn_norm", "post_attention_layernorm", c.width()),
        Part.matrix("ffn_gate", "mlp.gate_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_up", "mlp.up_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_down", "mlp.down_proj", c.feedForward(), c.width()));
  }

  @Override
  public <T, W> T block(Block<T, W> b, T x) {
    T y = b.norm(x, "attn_norm");
    T query = b.rope(b.norm(b.linear(y, "attn_q"), "attn_q_norm"));
    T key = b.rope(b.norm(b.linear(y, "attn_k"), "attn_k_norm"));
    T value = b.linear(y, "attn_v");
    x = b.add(x, b.linear(b.attend(query, key, value), "attn_output"));
    y = b.norm(x, "ffn_norm");
    return b.add(x, b.feedForward(y, Gate.SWIGLU));
  }
}
