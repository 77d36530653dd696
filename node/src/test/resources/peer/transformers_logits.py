"""Runs a Hugging Face folder in transformers, to compare with our own runs of its GGUF.

usage: transformers_logits.py FOLDER OUT.f32 GENERATE TEXT_FILE TOKEN...

Output as of llama_cpp_logits.py.
"""

import json
import sys

import torch
import transformers

folder, out, generate, text, *prompt = sys.argv[1:]
tokens = [int(token) for token in prompt]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    for _ in range(int(generate)):
        logits = model(torch.tensor([tokens])).logits[0]
        tokens.append(int(logits[-1].argmax()))
    model(torch.tensor([tokens])).logits[0].numpy().astype("<f4").tofile(out)
with open(text, encoding="utf-8") as file:
    ids = tokenizer.encode(file.read(), add_special_tokens=False)
version = f"{transformers.__version__} torch {torch.__version__}"
print(json.dumps({"version": version, "tokens": tokens, "text": ids}))
