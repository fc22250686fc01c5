#!/usr/bin/env python3
"""Writes llama_default.json: llama.cpp's greedy tokens for models/default.gguf. Needs the package llama-cpp-python.

Q8_0 rounds what it multiplies, so that a sum in another order now and then moves a logit by 0.1: with each token goes by
how much its logit led. The same weights written as F32 leave no such excuse. PHAROS: path of the binary that expands them.
"""
import hashlib
import json
import os
import subprocess
import tempfile

import llama_cpp

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
MODEL = os.path.join(ROOT, "models", "default.gguf")
PHAROS = os.environ.get("PHAROS", os.path.join(ROOT, "build", "pharos"))
TEXTS = ["It was a dark night, and", "The old man looked at her and said", "Once upon a time", "My dear Watson",
         "The sea was calm and the ship"]
QUESTIONS = ["Hello!", "Who are you?", "Tell me a story.", "I would like to find a restaurant in San Jose.",
             "I want to watch a movie tonight.", "What will the weather be in Berlin tomorrow?", "I'd like two large pizzas."]
PROMPTS = TEXTS + [f"<|user|>\n{question}<|end|>\n<|assistant|>\n" for question in QUESTIONS]
TOKENS = 48


def record(path):
    llama = llama_cpp.Llama(path, n_ctx=512, n_threads=1, verbose=False, type_k=0, type_v=0)
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    cases = []
    for prompt in PROMPTS:
        case = {"prompt": prompt, "tokens": [], "leads": []}
        llama.reset()
        llama.eval(llama.tokenize(prompt.encode(), add_bos=True, special=True))
        while len(case["tokens"]) < TOKENS:
            logits = llama_cpp.llama_get_logits(llama.ctx)[:llama.n_vocab()]
            second, first = sorted(range(len(logits)), key=logits.__getitem__)[-2:]
            if llama_cpp.llama_vocab_is_eog(vocabulary, first):
                break
            case["tokens"].append(first)
            case["leads"].append(round(logits[first] - logits[second], 4))
            llama.eval([first])
        cases.append(case)
    return cases


with open(MODEL, "rb") as file:
    said = {"llama_cpp_python": llama_cpp.__version__, "sha256": hashlib.sha256(file.read()).hexdigest()}
with tempfile.TemporaryDirectory() as folder:
    expanded = os.path.join(folder, "f32.gguf")
    subprocess.run([PHAROS, "quantize", MODEL, expanded, "F32"], check=True)
    said |= {"Q8_0": record(MODEL), "F32": record(expanded)}
with open(os.path.join(HERE, "llama_default.json"), "w", encoding="utf-8") as file:
    json.dump(said, file, indent=None, separators=(",", ":"))
    file.write("\n")
