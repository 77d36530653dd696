package dev.flotilla.model;

import dev.flotilla.tensor.Ops.Gate;
import java.util.List;

/**
 * Gemma 2, Gemma Team 2024: norms before and after attention and the feed-forward part, GeGLU, soft
 * bounds on attention scores and logits, and a window of positions in every other layer. The
 * embedding is scaled by the root of the width, and is the output matrix too.
 */
final class Gemma2 implements Definition {

  @Override
  public List<Part> parts(ModelConfig c) {
    return List.of(
        Part.gain("attn_norm", "input_layernorm", c.width()),
        Part.matrix("attn_q", "self_attn.q_proj", c.width(), c.queryWidth()),
        Part.matrix("attn_k", "self_attn.k_proj", c.width(), c.keyWidth()),
        Part.matrix("attn_v", "self_attn.v_proj", c.width(), c.keyWidth()),
        Part.matrix("attn_output", "self_attn.o_proj", c.queryWidth(), c.width()),
        Part.gain("post_attention_norm", "post_attention_layernorm", c.width()),
        Part.gain("ffn_norm", "pre_feedforward_layernorm", c.width()),
        Part.matrix("ffn_gate", "mlp.gate_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_up", "mlp.up_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_down", "mlp.down_proj", c.feedForward(), c.width()),
        Part.gain("post_ffw_norm", "post_feedforward_layernorm", c.width()));
  }

  @Override
  public <T, W> T block(Block<T, W> b, T x) {
    T y = b.norm(x, "attn_norm");
    T query = b.rope(b.linear(y, "attn_q"));
    T key = b.rope(b.linear(y, "attn_k"));
    T value = b.linear(y, "attn_v");
    T attended = b.linear(b.attend(query, key, value), "attn_output");
    x = b.add(x, b.norm(attended, "post_attention_norm"));
    y = b.norm(x, "ffn_norm");
    return b.add(x, b.norm(b.feedForward(y, Gate.GEGLU), "post_ffw_norm"));
  }

  @Override
  public float embeddingScale(ModelConfig c) {
    return (float) Math.sqrt(c.width());
  }

  @Override
  public float storedGainOffset() {
    return 1;
  }
}
