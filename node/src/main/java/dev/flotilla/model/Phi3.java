package dev.flotilla.model;

import dev.flotilla.tensor.Ops.Gate;
import java.util.List;

/**
 * Phi 3, Abdin et al. 2024: Llama with its matrices stacked in files, queries on keys on values and
 * gate on up, with a window in some models and LongRoPE in others. The stacks are cut when they are
 * loaded.
 */
final class Phi3 implements Definition {

  @Override
  public List<Part> parts(ModelConfig c) {
    return List.of(
        Part.gain("attn_norm", "input_layernorm", c.width()),
        Part.stacked(
            "attn_qkv",
            "self_attn.qkv_proj",
            c.width(),
            new Part.Cut("attn_q", c.queryWidth()),
            new Part.Cut("attn_k", c.keyWidth()),
            new Part.Cut("attn_v", c.keyWidth())),
        Part.matrix("attn_output", "self_attn.o_proj", c.queryWidth(), c.width()),
        Part.gain("ffn_norm", "post_attention_layernorm", c.width()),
        Part.stacked(
            "ffn_up",
            "mlp.gate_up_proj",
            c.width(),
            new Part.Cut("ffn_gate", c.feedForward()),
            new Part.Cut("ffn_up", c.feedForward())),
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
