package dev.flotilla.model;

import dev.flotilla.tensor.Ops.Gate;
import java.util.List;

/**
 * SmolLM 3, Hugging Face 2025: {@link Llama}, but every fourth layer has no positions at all (NoPE,
 * Yang et al. 2025).
 */
final class SmolLm3 implements Definition {

  private static final int UNTURNED_EVERY = 4;

  @Override
  public List<Part> parts(ModelConfig c) {
    return List.of(
        Part.gain("attn_norm", "input_layernorm", c.width()),
        Part.interleaved("attn_q", "self_attn.q_proj", c.width(), c.queryWidth()),
        Part.interleaved("attn_k", "self_attn.k_proj", c.width(), c.keyWidth()),
        Part.matrix("attn_v", "self_attn.v_proj", c.width(), c.keyWidth()),
        Part.matrix("attn_output", "self_attn.o_proj", c.queryWidth(), c.width()),
        Part.gain("ffn_norm", "post_attention_layernorm", c.width()),
        Part.matrix("ffn_gate", "mlp.gate_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_up", "mlp.up_proj", c.width(), c.feedForward()),
        Part.matrix("ffn_down", "mlp.down_proj", c.feedForward(), c.width()));
  }

  @Override
  public <T, W> T block(Block<T, W> b, T x) {
    T y = b.norm(x, "attn_norm");
    boolean turned = (b.layer() + 1) % UNTURNED_EVERY != 0;
    T query = b.linear(y, "attn_q");
    T key = b.linear(y, "attn_k");
    if (turned) {
      query = b.rope(query);
      key = b.rope(key);
    }
    T value = b.linear(y, "attn_v");
    x = b.add(x, b.linear(b.attend(query, key, value), "attn_output"));
    y = b.norm(x, "ffn_norm");
    return b.add(x, b.feedForward(y, Gate.SWIGLU));
  }
}
