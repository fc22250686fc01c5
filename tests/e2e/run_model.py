#!/usr/bin/env python3
"""The default model: what `make run` starts answers, in llama.cpp's tokens. Needs nothing but this repository.

llama_default.json has what llama.cpp says for models/default.gguf, greedily; record_llama.py makes it.
"""
import hashlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time

from station import HERE, PHAROS, Runner, request

runner = Runner("model")
ROOT = os.path.join(HERE, "..", "..")
MODEL = os.path.join(ROOT, "models", "default.gguf")
BYTES_MAX = 16 << 20
NEAR = 0.15  # of two logits: as far as rounding to Q8_0 in another order of sums moves them


def llama_says():
    with open(os.path.join(HERE, "llama_default.json"), encoding="utf-8") as file:
        return json.load(file)


def it_is_small_and_the_one_recorded():
    with open(MODEL, "rb") as file:
        content = file.read()
    assert len(content) < BYTES_MAX, len(content)
    assert hashlib.sha256(content).hexdigest() == llama_says()["sha256"], "record llama.cpp's tokens again"


def tokens_of(model, case):
    done = subprocess.run([PHAROS, "complete", "--model", model, "--prompt", case["prompt"], "-n",
                           str(max(len(case["tokens"]), 1)), "--temperature", "0", "--kv", "f32", "--json"],
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["ids"]


def greedy_tokens_are_llama_cpps():
    for case in llama_says()["Q8_0"]:
        got = tokens_of(MODEL, case)
        same = next((i for i, (a, b) in enumerate(zip(got, case["tokens"])) if a != b), None)
        assert same is None or case["leads"][same] < NEAR, (case["prompt"], same, case["leads"][same])


def without_rounding_every_token_is():
    with tempfile.TemporaryDirectory() as folder:
        expanded = os.path.join(folder, "f32.gguf")
        done = subprocess.run([PHAROS, "quantize", MODEL, expanded, "F32"], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        for case in llama_says()["F32"]:
            assert tokens_of(expanded, case) == case["tokens"], case["prompt"]


def wait_until_ready(port):
    end = time.monotonic() + 60
    while request(port, "GET", "/ready").status != 200:
        assert time.monotonic() < end
        time.sleep(0.02)


def make_run_serves_it():
    station = subprocess.Popen([os.path.join(ROOT, "scripts", "run-station"), PHAROS, "models/default.gguf", "0"],
                               cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", station.stdout.readline()).group(1))
        wait_until_ready(port)
        for question, answer in (("Hello!", "[Hh]ello|Hi|help|day"), ("Who are you?", "model|Pharos")):
            reply = request(port, "POST", "/v1/chat/completions",
                            {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 80},
                            {"content-type": "application/json"})
            choice = json.loads(reply.text)["choices"][0]
            assert reply.status == 200 and choice["finish_reason"] == "stop", choice
            assert re.search(answer, choice["message"]["content"]), choice
    finally:
        station.send_signal(signal.SIGTERM)
        assert station.wait(30) == 0


for case in (it_is_small_and_the_one_recorded, greedy_tokens_are_llama_cpps, without_rounding_every_token_is,
             make_run_serves_it):
    runner.run(case.__name__, case)
runner.finish()
