#!/usr/bin/env python3
"""pharos train tokenizer, data and ngram, as a user runs them: files in a folder of their own, summaries, exit codes."""
import json
import math
import os
import random
import signal
import subprocess
import tempfile
import time

from station import PHAROS, Runner

runner = Runner("train")
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards brew tea and read old books".split()


def pharos(*arguments, text=b"", code=0):
    done = subprocess.run([PHAROS, *arguments], input=text, capture_output=True, timeout=120)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stdout.decode() if code == 0 else done.stderr.decode()


def prose(seed, count):
    dice = random.Random(seed)
    return " ".join(dice.choice(WORDS) for _ in range(count)) + ".\n"


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def a_vocabulary_is_learnt_and_used():
    with tempfile.TemporaryDirectory() as folder:
        text = write(os.path.join(folder, "text.txt"), "---\n".join(prose(seed, 60) for seed in range(200)))
        for kind in ("bytes", "spm"):
            vocabulary = os.path.join(folder, kind + ".gguf")
            made = json.loads(pharos("train", "tokenizer", text, "--out", vocabulary, "--vocab", "400",
                                     "--kind", kind, "--json"))
            assert 300 < made["tokens"] <= 400 and made["bytes_per_token"] > 3, made
            again = os.path.join(folder, "again.gguf")
            pharos("train", "tokenizer", "-", "--out", again, "--vocab", "400", "--kind", kind,
                   text=open(text, "rb").read())
            assert open(again, "rb").read() == open(vocabulary, "rb").read()
            line = "seven foxes \u00e9t\u00e9 \U0001F600  brew()\n"
            ids = pharos("tokenize", "--model", vocabulary, text=line.encode())
            assert pharos("detokenize", "--model", vocabulary, text=ids.encode()) == line
            tokens = os.path.join(folder, "data.tokens")
            built = json.loads(pharos("train", "data", text, "--separator", "---", "--model", vocabulary,
                                      "--out", tokens, "--held-out", "0.2", "--json"))
            assert built["documents"] == 200 and 15 <= built["held_out_documents"] <= 70, built
            first = open(tokens, "rb").read()
            pharos("train", "data", text, "--separator", "---", "--model", vocabulary, "--out", tokens,
                   "--held-out", "0.2")
            assert first == open(tokens, "rb").read()


def conversations_become_masked_tokens():
    with tempfile.TemporaryDirectory() as folder:
        talks = [{"messages": [{"role": "user", "content": prose(seed, 9)},
                               {"role": "assistant", "content": prose(seed + 1000, 9)}]} for seed in range(50)]
        lines = write(os.path.join(folder, "talks.jsonl"), "".join(json.dumps(talk) + "\n" for talk in talks + talks[:5]))
        vocabulary, tokens = os.path.join(folder, "v.gguf"), os.path.join(folder, "t.tokens")
        pharos("train", "tokenizer", lines, "--out", vocabulary, "--vocab", "350")
        built = json.loads(pharos("train", "data", lines, "--model", vocabulary, "--out", tokens, "--mask", "--json"))
        assert built["documents_read"] == 55 and built["exact_duplicates"] == 5, built
        assert 0.3 < built["targets"] / built["tokens"] < 0.6, built


def memory_decides_what_is_kept():
    with tempfile.TemporaryDirectory() as folder:
        text = write(os.path.join(folder, "text.txt"), "---\n".join(prose(seed, 60) for seed in range(100)))
        vocabulary, tokens = os.path.join(folder, "v.gguf"), os.path.join(folder, "t.tokens")
        pharos("train", "tokenizer", text, "--out", vocabulary, "--vocab", "300")
        pharos("train", "data", text, "--separator", "---", "--model", vocabulary, "--out", tokens)
        made = {}
        for name, more in (("kept", []), ("some", ["--memory", "14"]), ("none", ["--recompute", "always"])):
            model = os.path.join(folder, name + ".gguf")
            told = json.loads(pharos("train", "lm", "--data", tokens, "--tokenizer", vocabulary, "--out", model,
                                     "--d", "32", "--layers", "8", "--ff", "96", "--batch", "16", "--time", "64",
                                     "--steps", "2", "--name", "m", "--json", *more))
            made[name] = told["recomputed_layers"], open(model, "rb").read()
        assert made["kept"][0] == 0 < made["some"][0] < 8 == made["none"][0], {k: v[0] for k, v in made.items()}
        assert made["kept"][1] == made["some"][1] == made["none"][1]  # nothing learnt depends on it
        said = pharos("train", "lm", "--data", tokens, "--tokenizer", vocabulary, "--out", os.path.join(folder, "x"),
                      "--batch", "64", "--memory", "100", code=1)
        assert "MiB" in said and "reduce the batch to" in said, said


def an_ngram_model_is_measured():
    with tempfile.TemporaryDirectory() as folder:
        text = write(os.path.join(folder, "text.txt"), "---\n".join(prose(seed, 60) for seed in range(300)))
        vocabulary, tokens = os.path.join(folder, "v.gguf"), os.path.join(folder, "t.tokens")
        pharos("train", "tokenizer", text, "--separator", "---", "--out", vocabulary, "--vocab", "400")
        for share in ("0", "0.2"):
            pharos("train", "data", text, "--separator", "---", "--model", vocabulary, "--out",
                   tokens + share, "--held-out", share)
        loss = {}
        for order in ("1", "2", "4"):
            done = json.loads(pharos("train", "ngram", "--data", tokens + "0.2", "--order", order, "--time", "32",
                                     "--tokenizer", vocabulary, "--json"))
            assert len(done["ngrams"]) == int(order), done
            loss[order] = done["validation"]["loss"]
        trained = json.loads(pharos("train", "lm", "--data", tokens + "0.2", "--tokenizer", vocabulary, "--out",
                                    os.path.join(folder, "run"), "--d", "64", "--layers", "1", "--time", "32",
                                    "--steps", "1", "--json"))["validation"]
        spelt = trained["loss"] * trained["tokens"] / math.log(2) / trained["bits_per_byte"]
        assert trained["tokens"] == done["validation"]["tokens"] > 0, (trained, done)
        assert abs(spelt / done["validation"]["text_bytes"] - 1) < 1e-5, (trained, done)
        # words are drawn evenly of 17 (one twice): whoever knows their tokens knows all there is to know
        assert loss["1"] > loss["2"] > 0.9 * loss["4"] > 0 and 2.2 < loss["4"] < 3.3, loss
        assert "bits per byte" in pharos("train", "ngram", "--data", tokens + "0.2")
        assert "held out" in pharos("train", "ngram", "--data", tokens + "0", code=1)
        pharos("train", "ngram", "--data", tokens + "0.2", "--order", "7", code=2)
        other = os.path.join(folder, "o.gguf")
        pharos("train", "tokenizer", text, "--out", other, "--vocab", "300")
        assert "vocabulary" in pharos("train", "ngram", "--data", tokens + "0.2", "--tokenizer", other, code=1)
        pharos("train", "data", text, "--separator", "---", "--model", other, "--out", tokens)
        said = pharos("train", "ngram", "--data", tokens + "0.2", "--data", tokens, code=1)
        assert "another tokenizer" in said and tokens in said, said


def engine_and_trainer_measure_the_same():
    with tempfile.TemporaryDirectory() as folder:
        text = write(os.path.join(folder, "text.txt"), "---\n".join(prose(seed, 60) for seed in range(200)))
        vocabulary, tokens, model = (os.path.join(folder, name) for name in ("v.gguf", "t.tokens", "m.gguf"))
        pharos("train", "tokenizer", text, "--out", vocabulary, "--vocab", "300")
        pharos("train", "data", text, "--separator", "---", "--model", vocabulary, "--out", tokens,
               "--held-out", "0.2")
        told = json.loads(pharos("train", "lm", "--data", tokens, "--tokenizer", vocabulary, "--out", model, "--d", "32",
                                 "--layers", "2", "--ff", "96", "--time", "64", "--steps", "20", "--muon", "--json"))
        measured = json.loads(pharos("perplexity", "--model", model, "--data", tokens, "--context", "65", "--json"))
        trained = told["validation"]
        assert measured["predicted"] == trained["tokens"], (told, measured)
        assert abs(measured["mean_nll"] - trained["loss"]) < 1e-4, (told, measured)
        assert abs(measured["bits_per_byte"] - trained["bits_per_byte"]) < 1e-4, (told, measured)
        pharos("perplexity", "--model", model, "--data", tokens, "--text", text, code=2)
        pharos("perplexity", "--model", model, code=2)


def what_matters_stays():
    with tempfile.TemporaryDirectory() as folder:
        text = write(os.path.join(folder, "text.txt"), "---\n".join(prose(seed, 60) for seed in range(150)))
        vocabulary, tokens, model, pruned = (os.path.join(folder, name)
                                             for name in ("v.gguf", "t.tokens", "m.gguf", "p.gguf"))
        pharos("train", "tokenizer", text, "--out", vocabulary, "--vocab", "300")
        pharos("train", "data", text, "--separator", "---", "--model", vocabulary, "--out", tokens, "--held-out", "0.1")
        pharos("train", "lm", "--data", tokens, "--tokenizer", vocabulary, "--out", model, "--d", "48", "--layers", "2",
               "--heads", "6", "--kv-heads", "3", "--ff", "128", "--batch", "8", "--time", "64", "--steps", "60",
               "--rate", "0.005")
        told = json.loads(pharos("train", "prune", "--model", model, "--data", tokens, "--out", pruned, "--heads", "4",
                                 "--ff", "64", "--recover", "40", "--rate", "0.002", "--batch", "8", "--time", "64",
                                 "--windows", "32", "--json"))
        before, after, recovered = (told[name] for name in ("before", "pruned", "recovered"))
        assert before["heads"] == 6 and after["heads"] == recovered["heads"] == 4 and recovered["ff"] == 64, told
        fewer = 2 * (2 * (16 + 8) * 48 + 3 * 64 * 48)  # q, k, v, o of 2 heads and their keys; 64 columns; 2 layers
        assert before["parameters"] - after["parameters"] == fewer, told
        assert after["bytes"] == recovered["bytes"] < before["bytes"] and told["steps"] == 40, told
        assert before["held_out_tokens"] == recovered["held_out_tokens"] > 0, told
        assert recovered["loss"] < after["loss"], told
        assert recovered["loss"] < before["loss"] + 0.2 < 3, told  # an untrained one would be at 5.7
        served = json.loads(pharos("perplexity", "--model", pruned, "--data", tokens, "--context", "65", "--json"))
        assert abs(served["mean_nll"] - recovered["loss"]) < 1e-4, (served, recovered)  # the engine runs it
        pharos("train", "prune", "--model", model, "--data", tokens, "--out", pruned, code=2)
        pharos("train", "prune", "--model", model, "--data", tokens, "--out", pruned, "--ff", "64", "--type", "Q9", code=2)
        pharos("train", "prune", "--model", model, "--data", tokens, "--out", pruned, "--ff", "64")  # its context's windows
        assert "multiple" in pharos("train", "prune", "--model", model, "--data", tokens, "--out", pruned, "--time", "64",
                                    "--heads", "3", code=1)


def an_interrupt_leaves_nothing():
    with tempfile.TemporaryDirectory() as folder:
        text = write(os.path.join(folder, "text.txt"), "---\n".join(prose(seed, 60) for seed in range(100)))
        vocabulary = os.path.join(folder, "v.gguf")
        pharos("train", "tokenizer", text, "--out", vocabulary, "--vocab", "300")
        write(text, "---\n".join(f"{n} {prose(n % 500, 60)}" for n in range(100000)))
        before = sorted(os.listdir(folder))
        data = subprocess.Popen([PHAROS, "train", "data", text, "--separator", "---", "--model", vocabulary, "--out",
                                 os.path.join(folder, "t.tokens")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while len(os.listdir(folder)) == len(before):  # until it has begun to write
            assert data.poll() is None
            time.sleep(0.01)
        data.send_signal(signal.SIGINT)
        _, said = data.communicate(timeout=60)
        assert data.returncode == 1 and b"stopped" in said, (data.returncode, said)
        assert sorted(os.listdir(folder)) == before


def wrong_input_is_named():
    with tempfile.TemporaryDirectory() as folder:
        lines = write(os.path.join(folder, "bad.jsonl"), '{"text": "fine"}\n{"text": 7}\n')
        out = os.path.join(folder, "v.gguf")
        said = pharos("train", "tokenizer", lines, "--out", out, code=1)
        assert "bad.jsonl:2:" in said and not os.path.exists(out), said
        assert "no-such" in pharos("train", "tokenizer", os.path.join(folder, "no-such"), "--out", out, code=1)
        with open(os.path.join(folder, "latin1.txt"), "wb") as file:
            file.write(b"fine\ncaf\xe9\n")
        said = pharos("train", "tokenizer", file.name, "--out", out, code=1)
        assert "latin1.txt:2: " in said and "UTF-8" in said and not os.path.exists(out), said
        pharos("train", "tokenizer", "--out", out, code=2)
        pharos("train", "data", lines, code=2)


for case in (a_vocabulary_is_learnt_and_used, conversations_become_masked_tokens,
             memory_decides_what_is_kept, an_ngram_model_is_measured, engine_and_trainer_measure_the_same,
             what_matters_stays, an_interrupt_leaves_nothing, wrong_input_is_named):
    runner.run(case.__name__, case)
runner.finish()
