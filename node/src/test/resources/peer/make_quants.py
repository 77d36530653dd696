"""Records blocks of every weight type, and what ggml's own Python package reads in them.

usage: make_quants.py > quants.json

"decode": random bytes with sane scales, and their values. "encode": values, and their bytes, for
the types that the package encodes.
"""

import base64
import json
import sys

import gguf
import numpy
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

random = numpy.random.default_rng(7)


def b64(array):
    return base64.b64encode(array.tobytes()).decode()


def blocks(kind, count):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (count, size), dtype=numpy.uint8)
    scales = random.uniform(-0.02, 0.02, (count, 2)).astype("<f2").view(numpy.uint8)
    if kind in (Type.Q8_0, Type.Q4_0):
        data[:, :2] = scales[:, :2]
    elif kind == Type.Q6_K:
        data[:, -2:] = scales[:, :2]
    else:
        data[:, :4] = scales
    return data.reshape(1, -1)


result = {"gguf": "gguf " + str(getattr(gguf, "__version__", "")), "decode": {}, "encode": {}}
for kind, count in ((Type.Q8_0, 4), (Type.Q4_0, 4), (Type.Q4_K, 2), (Type.Q5_K, 2), (Type.Q6_K, 2)):
    data = blocks(kind, count)
    values = dequantize(data, kind).astype("<f4")
    result["decode"][kind.name] = {"bytes": b64(data), "values": b64(values)}
values = (random.standard_normal((1, 128)) * 2).astype("<f4")
values[0, :32] = 0
result["encode"]["values"] = b64(values)
for kind in (Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0):
    result["encode"][kind.name] = b64(numpy.ascontiguousarray(quantize(values, kind)))
json.dump(result, sys.stdout, indent=1)
print()
