#!/usr/bin/env python3
"""pharos train lab and quantize by importance, as a user runs them, on a random model made here."""
import csv
import json
import os
import random
import signal
import subprocess
import tempfile
import time
import xml.dom.minidom

from station import PHAROS, Runner

runner = Runner("lab")


def pharos(*arguments, code=0):
    done = subprocess.run([PHAROS, *arguments], capture_output=True, timeout=300)
    assert done.returncode == code, (arguments, done.returncode, done.stderr)
    return done.stdout.decode() if code == 0 else done.stderr.decode()


def prepare(folder):
    model, text = os.path.join(folder, "f32.gguf"), os.path.join(folder, "text.txt")
    pharos("bench", "model", "--shape", "tiny", "--type", "F32", model)
    dice = random.Random(1)
    with open(text, "w", encoding="utf-8") as file:
        file.write(" ".join(f"w{dice.randrange(700)}" for _ in range(2200)))
    return model, text


def the_lab_measures_chooses_and_keeps():
    with tempfile.TemporaryDirectory() as folder:
        model, text = prepare(folder)
        out, kept = os.path.join(folder, "out"), os.path.join(folder, "kept.gguf")
        found = json.loads(pharos("train", "lab", "--model", model, "--text", text, "--types", "F16,q8_0,Q4_K_M",
                                  "--tokens", "512", "--context", "64", "--loss", "2%", "--out", out,
                                  "--keep", kept, "--json"))
        rows = {(row["type"], row["weighted"]): row for row in found["rows"]}
        assert set(rows) == {("original", False), ("F16", False), ("Q8_0", False), ("Q8_0", True),
                             ("Q4_K_M", False), ("Q4_K_M", True), ("mixed", True)}, list(rows)
        original, best = rows["original", False], found["smallest"]
        assert original["kl_nats"] < 1e-6 and original["top1_percent"] == 100
        assert original["file_bytes"] == os.path.getsize(model)
        assert rows["F16", False]["kl_nats"] < rows["Q8_0", False]["kl_nats"] < rows["Q4_K_M", False]["kl_nats"]
        assert best["perplexity_percent"] <= 2
        assert all(row["file_bytes"] >= best["file_bytes"] for row in found["rows"] if row["perplexity_percent"] <= 2)
        assert abs(os.path.getsize(kept) - best["file_bytes"]) <= 256
        assert all(row["decode_tokens_per_s"] > 0 for row in found["rows"])
        assert pharos("complete", "--model", kept, "--prompt", "w1 w2", "-n", "4", "--ids").count(",") >= 0
        with open(os.path.join(out, "lab.csv"), encoding="utf-8") as file:
            assert [row["type"] for row in csv.DictReader(file)] == [row["type"] for row in found["rows"]]
        for picture in ("loss.svg", "speed.svg"):
            xml.dom.minidom.parse(os.path.join(out, picture))


def a_text_and_its_matrix_weigh_alike():
    with tempfile.TemporaryDirectory() as folder:
        model, text = prepare(folder)
        by_text, by_matrix, plain, matrix = (os.path.join(folder, name) for name in "abcd")
        made = json.loads(pharos("quantize", model, by_text, "Q4_0", "--text", text, "--keep-importance", matrix,
                                 "--json"))
        assert made["converted"] > made["weighted"] > 0, made
        pharos("quantize", model, plain, "Q4_0")
        pharos("quantize", model, by_matrix, "Q4_0", "--importance", matrix)
        size = os.path.getsize(plain)
        assert os.path.getsize(by_text) == os.path.getsize(by_matrix) == size
        one, two, none = (open(path, "rb").read() for path in (by_text, by_matrix, plain))
        differ = sum(a != b for a, b in zip(one, two))  # sums are kept as F32, so a tie may fall otherwise
        assert differ < size // 1000 < sum(a != b for a, b in zip(one, none)), differ
        assert "importance" in pharos("quantize", model, by_text, "Q4_0", "--importance", model, code=1)
        pharos("quantize", model, by_text, "Q4_0", "--importance", matrix, "--text", text, code=2)


def an_interrupt_leaves_nothing():
    with tempfile.TemporaryDirectory() as folder:
        model, text = prepare(folder)
        before = sorted(os.listdir(folder))
        lab = subprocess.Popen([PHAROS, "train", "lab", "--model", model, "--text", text, "--tokens", "1024",
                                "--keep", os.path.join(folder, "kept.gguf"), "--out", os.path.join(folder, "out")],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)  # somewhere in the middle; wherever it is, nothing may be left
        lab.send_signal(signal.SIGINT)
        _, said = lab.communicate(timeout=60)
        assert lab.returncode == 1 and said.count(b"\n") == 1 and b"stopped" in said, (lab.returncode, said)
        assert sorted(os.listdir(folder)) == before


def wrong_use_is_named():
    with tempfile.TemporaryDirectory() as folder:
        model, text = prepare(folder)
        assert "--text" in pharos("train", "lab", "--model", model, code=2)
        assert "1%" in pharos("train", "lab", "--model", model, "--text", text, "--loss", "much", code=2)
        assert "Q9_9" in pharos("train", "lab", "--model", model, "--text", text, "--types", "Q9_9", code=2)
        assert "two windows" in pharos("train", "lab", "--model", model, "--text", text, "--context", "100000", code=1)
        small = os.path.join(folder, "q8.gguf")
        pharos("quantize", model, small, "Q8_0")
        assert "--again" in pharos("train", "lab", "--model", small, "--text", text, code=1)


for case in (the_lab_measures_chooses_and_keeps, a_text_and_its_matrix_weigh_alike, an_interrupt_leaves_nothing,
             wrong_use_is_named):
    runner.run(case.__name__, case)
runner.finish()
