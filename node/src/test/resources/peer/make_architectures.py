"""Runs a tiny model of every architecture in transformers and records what it says.

usage: make_architectures.py > architectures.json

Weights follow from their names by a formula that ArchitecturesTest has too, so that only
configurations and logits need to be kept.
"""

import base64
import json
import sys
import zlib

import numpy
import torch
import transformers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

TOKENS = [(i * 37 + 11) % 300 for i in range(24)]
RECORDED = [0, 9, 23]
SHAPE = dict(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    head_dim=16,
    rms_norm_eps=1e-5,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=1,
)


def shape(**more):
    return {**SHAPE, **more}


def rope(kind, **more):
    return dict(rope_type=kind, rope_theta=10000.0, **more)


CONFIGS = {
    "llama": LlamaConfig(**shape(num_key_value_heads=4, tie_word_embeddings=False)),
    "llama3": LlamaConfig(
        **shape(
            tie_word_embeddings=True,
            rope_parameters=rope(
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=16,
            ),
        )
    ),
    "llama-linear": LlamaConfig(**shape(rope_parameters=rope("linear", factor=4.0))),
    "mistral": MistralConfig(**shape(sliding_window=8)),
    "qwen2": Qwen2Config(**{k: v for k, v in shape(hidden_size=64).items() if k != "head_dim"}),
    "qwen3": Qwen3Config(**shape(tie_word_embeddings=True)),
    "qwen3-yarn": Qwen3Config(
        **shape(
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16)
        )
    ),
    "qwen3-moe": Qwen3MoeConfig(
        **shape(
            moe_intermediate_size=40,
            num_experts=8,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        )
    ),
    "gemma2": Gemma2Config(
        **shape(num_hidden_layers=3, sliding_window=8, query_pre_attn_scalar=16)
    ),
    "gemma2-scaled": Gemma2Config(
        **shape(sliding_window=8, query_pre_attn_scalar=24, attn_logit_softcapping=2.0)
    ),
    "gemma3": Gemma3TextConfig(
        **shape(
            num_hidden_layers=7,
            num_key_value_heads=1,
            sliding_window=8,
            query_pre_attn_scalar=16,
            rope_parameters={
                "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                "sliding_attention": dict(rope_type="default", rope_theta=1e4),
            },
        )
    ),
    "phi3": Phi3Config(**shape(hidden_size=64, sliding_window=10)),
    "phi3-long": Phi3Config(
        **shape(
            hidden_size=64,
            original_max_position_embeddings=16,
            partial_rotary_factor=0.75,
            rope_parameters=rope(
                "longrope",
                long_factor=[1.0, 1.5, 2.0, 2.5, 3.0, 3.5],
                short_factor=[1.0, 1.0, 1.0, 1.1, 1.2, 1.3],
                partial_rotary_factor=0.75,
                original_max_position_embeddings=16,
            ),
        )
    ),
    "smollm3": SmolLM3Config(**shape(num_hidden_layers=5)),
}


def weight(name, count, gemma):
    """Uniform over [-1/4, 1/4), around 1 for gains but where 1 is added later."""
    h = (zlib.crc32(name.encode()) + numpy.arange(count, dtype=numpy.uint64) * 0x9E3779B1) & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        h = ((h ^ (h >> numpy.uint64(shift))) * numpy.uint64(factor)) & numpy.uint64(0xFFFFFFFF)
    uniform = (h >> numpy.uint64(8)).astype(numpy.float64) / 2**24
    middle = 1 if "norm" in name and not gemma else 0
    return ((uniform * 2 - 1) / 4 + middle).astype(numpy.float32)


def saved_names(model):
    """The weights under the names that files have: newer transformers keep experts stacked."""
    saved = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj"):
            for e in range(tensor.shape[0]):
                base = name[: name.rindex(".")] + f".{e}."
                if name.endswith("gate_up_proj"):
                    half = tensor.shape[1] // 2
                    saved[base + "gate_proj.weight"] = tensor[e, :half]
                    saved[base + "up_proj.weight"] = tensor[e, half:]
                else:
                    saved[base + "down_proj.weight"] = tensor[e]
        else:
            saved[name] = tensor
    return saved


result = {"transformers": transformers.__version__, "tokens": TOKENS, "recorded": RECORDED, "models": {}}
for key, config in CONFIGS.items():
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    gemma = key.startswith("gemma")
    with torch.no_grad():
        for name, tensor in saved_names(model).items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            values = weight(name, tensor.numel(), gemma).reshape(tensor.shape)
            tensor.copy_(torch.from_numpy(values))
        logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy().astype("<f4")
    config.architectures = [type(model).__name__]
    result["models"][key] = {
        "config": json.loads(config.to_json_string()),
        "best": logits.argmax(axis=1).tolist(),
        "logits": base64.b64encode(logits[RECORDED].tobytes()).decode(),
    }
    print(key, float(abs(logits).max()), file=sys.stderr)
json.dump(result, sys.stdout, indent=1)
print()
