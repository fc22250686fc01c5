#!/usr/bin/env python3
"""Measures llama.cpp through llama-cpp-python, the way `pharos bench engine --json` measures us.

Usage: peer_llama_cpp.py MODEL PROMPT GENERATE THREADS SAMPLES. One line of JSON. A sample whose threads did not have
their cores for 90 % of the time is thrown away, as ours are.
"""
import json
import statistics
import sys
import time

import llama_cpp

QUIET_MIN = 0.9
TRIES_PER_SAMPLE = 3


def sample(threads, work):
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    return wall, (time.process_time() - cpu) / (wall * threads)


def measure(model, name, tokens, threads, samples, work):
    speeds, best, taken = [], 0.0, 0
    while len(speeds) < samples and taken < samples * TRIES_PER_SAMPLE:
        model.reset()
        wall, quiet = sample(threads, work)
        taken += 1
        best = max(best, quiet)
        if quiet >= QUIET_MIN:
            speeds.append(tokens / wall)
    return {"test": name, "tokens": tokens, "tokens_per_s": statistics.median(speeds) if speeds else None,
            "samples_kept": len(speeds), "samples_taken": taken, "best_cpu_share": best}


def main():
    path, prompt, generate, threads, samples = sys.argv[1], *map(int, sys.argv[2:6])
    model = llama_cpp.Llama(path, n_ctx=max(prompt, generate, 32), n_batch=512, n_ubatch=512, n_threads=threads,
                            n_threads_batch=threads, n_gpu_layers=0, verbose=False)
    ids = [(7919 * i + 13) % model.n_vocab() for i in range(max(prompt, generate))]
    model.eval(ids[:8])

    def decode():
        for token in ids[:generate]:
            model.eval([token])

    tests = []
    if prompt:
        tests.append(measure(model, "pp", prompt, threads, samples, lambda: model.eval(ids[:prompt])))
    if generate:
        tests.append(measure(model, "tg", generate, threads, samples, decode))
    print(json.dumps({"peer": "llama.cpp", "version": "llama-cpp-python " + llama_cpp.__version__, "tests": tests}))


main()
