#!/usr/bin/env python3
"""What we train, llama.cpp runs: vocabularies and models of several shapes, learnt here and read by both.

PHAROS_PEER_PYTHON names a Python that has llama_cpp (python3); without one all is skipped. This file is also what that
Python runs: with --peer it answers jobs, JSON lines on standard input, one line each.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew tea and read old books".split()
TEXTS = ["the quick brown fox", "  leading\n\nspaces  and\ttabs", "\u00e9t\u00e9 \U0001F600 na\u00efve \u2014 \u201cquotes\u201d",
         "it's 1234567890, isn't it?", "lazy dogs.\n", "x"]
PROMPTS = ["the quick", "seven wizards brew", "old books and"]
NEW_TOKENS = 16
SHAPES = {
    "plain": [],
    "shared keys, rounded": ["--heads", "4", "--kv-heads", "2", "--bf16", "--muon", "--type", "Q8_0"],
    "wide heads, untied": ["--heads", "2", "--head-dim", "48", "--untied", "--rope-base", "500"],
}


def answer(job):
    import llama_cpp  # here alone: the tests' own Python need not have it
    model = llama_cpp.Llama(job["model"], vocab_only="texts" in job, n_ctx=job.get("context", 64), n_threads=1,
                            verbose=False)
    if "texts" in job:
        return [model.tokenize(text.encode(), add_bos=False, special=False) for text in job["texts"]]
    said = []
    for prompt in job["prompts"]:
        ids = model.tokenize(prompt.encode(), add_bos=job["bos"], special=False)
        model.reset()
        model.eval(ids)
        out = []
        for _ in range(NEW_TOKENS):
            out.append(model.sample(temp=0.0, top_k=1))
            model.eval(out[-1:])
        said.append([ids, out])
    return said


if sys.argv[1:] == ["--peer"]:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    sys.exit(0)

from station import PHAROS, Runner

runner = Runner("llama")
PYTHON = os.environ.get("PHAROS_PEER_PYTHON", "python3")


def pharos(*arguments, text=b""):
    done = subprocess.run([PHAROS, *arguments], input=text, capture_output=True, timeout=120)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.decode()


def ask_peer(job):
    done = subprocess.run([PYTHON, os.path.abspath(__file__), "--peer"], input=json.dumps(job), capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def ids_of(said):
    return [int(word) for word in said.strip().split(",") if word]


class Place:
    """A folder with text of words in an order that can be learnt, and a vocabulary of it."""

    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.text, self.vocabulary, self.tokens = (self.path(name) for name in ("t.txt", "v.gguf", "d.tokens"))
        dice = random.Random(1)
        with open(self.text, "w", encoding="utf-8") as file:
            for _ in range(400):
                at = dice.randrange(len(WORDS))
                file.write(" ".join(WORDS[(at + step * step) % len(WORDS)] for step in range(30)) + ".\n")
        pharos("train", "tokenizer", self.text, "--out", self.vocabulary, "--vocab", "320", "--kind", self.kind)
        pharos("train", "data", self.text, "--model", self.vocabulary, "--out", self.tokens, "--held-out", "0")
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def train(self, *more):
        model = self.path("m.gguf")
        pharos("train", "lm", "--data", self.tokens, "--tokenizer", self.vocabulary, "--out", model, "--d", "64", "--layers",
               "2", "--ff", "128", "--time", "64", "--batch", "8", "--steps", "60", "--rate", "0.01", *more)
        return model


def vocabularies_cut_alike():
    for kind in ("bytes", "spm"):
        with Place(kind) as place:
            theirs = ask_peer({"model": place.vocabulary, "texts": TEXTS})
            ours = [ids_of(pharos("tokenize", "--model", place.vocabulary, "--hex", text=text.encode().hex().encode()))
                    for text in TEXTS]
            assert ours == theirs, (kind, ours, theirs)


def same_words(model, bos):
    for ids, theirs in ask_peer({"model": model, "prompts": PROMPTS, "bos": bos}):
        ours = ids_of(pharos("complete", "--model", model, "--prompt-ids", ",".join(map(str, ids)), "-n", str(NEW_TOKENS),
                             "--temperature", "0", "--ids"))
        assert ours == theirs[:len(ours)] and ours, (ids, ours, theirs)  # an end of text ends ours


def models_say_the_same():
    for name, more in SHAPES.items():
        for kind in ("bytes", "spm") if name == "plain" else ("bytes",):
            with Place(kind) as place:
                same_words(place.train(*more), kind == "spm")


def a_pruned_model_says_the_same():
    with Place("bytes") as place:
        model, pruned = place.train("--heads", "4", "--kv-heads", "4"), place.path("p.gguf")
        pharos("train", "prune", "--model", model, "--data", place.tokens, "--out", pruned, "--heads", "3", "--ff", "96",
               "--windows", "16", "--recover", "10", "--batch", "8")
        same_words(pruned, False)


if subprocess.run([PYTHON, "-c", "import llama_cpp"], capture_output=True).returncode == 0:
    for case in (vocabularies_cut_alike, models_say_the_same, a_pruned_model_says_the_same):
        runner.run(case.__name__, case)
else:
    print("SKIP: models in llama.cpp: no Python here has llama_cpp (PHAROS_PEER_PYTHON names one)")
runner.finish()
