"""Runs a GGUF file in llama.cpp, to compare with our own runs of it.

usage: llama_cpp_logits.py MODEL.gguf OUT.f32 GENERATE TEXT_FILE TOKEN...

Generates GENERATE tokens greedily after the given ones, writes the logits of every position as
little-endian floats, and prints the program's version, the tokens and the ids of the text as JSON.
"""

import json
import sys

import llama_cpp
import numpy

model, out, generate, text, *prompt = sys.argv[1:]
tokens = [int(token) for token in prompt]


def plain_buffers(defaults=llama_cpp.llama_cpp.llama_model_default_params):
    """Keeps weights as the file has them: llama-cpp-python 0.3.36's repacked Q8_0 crashed on a CPU with AMX."""
    params = defaults()
    params.use_extra_bufts = False
    return params


llama_cpp.llama_cpp.llama_model_default_params = plain_buffers
llama = llama_cpp.Llama(
    model_path=model, n_ctx=256, n_threads=1, logits_all=True, verbose=False, n_gpu_layers=0
)
llama.eval(tokens)
for _ in range(int(generate)):
    tokens.append(int(numpy.argmax(llama.scores[len(tokens) - 1])))
    llama.eval(tokens[-1:])
llama.scores[: len(tokens)].astype("<f4").tofile(out)
with open(text, "rb") as file:
    ids = llama.tokenize(file.read(), add_bos=False, special=False)
print(json.dumps({"version": llama_cpp.__version__, "tokens": tokens, "text": ids}))
