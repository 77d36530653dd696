"""Quantises a GGUF file with llama.cpp.

usage: llama_cpp_quantize.py MODEL.gguf OUT.gguf FILE_TYPE
"""

import sys

import llama_cpp

model, out, file_type = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = int(file_type)
params.nthread = 1
if llama_cpp.llama_model_quantize(model.encode(), out.encode(), params) != 0:
    sys.exit("not quantised")
