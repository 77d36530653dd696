package dev.flotilla.model;

import dev.flotilla.tensor.Ops.Gate;
import java.util.List;

/**
 * Qwen 2 and 2.5, Qwen Team 2024: Llama with biases on queries, keys and values, and with the rows
 * of rotary pairs in halves in GGUF as well.
 */
final class Qwen2 implements Definition {

  @Override
  public List<Part> parts(ModelConfig c) {
    Part query = Part.matrix("attn_q", "self_attn.q_proj", c.width(), c.queryWidth());
    Part key = Part.matrix("attn_k", "self_attn.k_proj", c.width(), c.keyWidth());
    Part value = Part.matrix("attn_v", "self_attn.v_proj", c.width(), c.keyWidth());
    return List.of(
        Part.gain("attn_norm", "input_layernorm", c.width()),
        query,
        query.bias(),
        key,
        key.bias(),
        value,
        value.bias(),
        Part.matrix("attn_output", "self_attn.o_proj", c.queryWidth(), c.width()),
        Part.gain("ffn_norm", "post_attention_layernorm", c.width()),
        Part.matrix("ffn_gate", "mlp.gate_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_up", "mlp.up_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_down", "mlp.down_proj", c.feedForward(), c.width()));
  }

  @Override
  public <T, W> T block(Block<T, W> b, T x) {
    T y = b.norm(x, "attn_norm");
    T query = b.rope(b.linear(y, "attn_q"));
    T key = b.rope(b.linear(y, "attn_k"));
    T value = b.linear(y, "attn_v");
    x = b.add(x, b.linear(b.attend(query, key, value), "attn_output"));
    y = b.norm(x, "ffn_norm");
    return b.add(x, b.feedForward(y, Gate.SWIGLU));
  }
}
