#!/usr/bin/env python3
"""Estimates, as a user asks for them: every total added up again, files beside shapes, memory beside a process, claims, errors."""
import json
import os
import re
import subprocess
import tempfile

from station import PHAROS, Runner

HERE = os.path.dirname(os.path.abspath(__file__))
CLAIMS = os.path.join(HERE, "..", "..", "deploy", "claims.yaml")
MEMORY_BYTES_MAX = 32e6
runner = Runner("estimate")


def pharos(*args, code=0, stdin=None):
    done = subprocess.run([PHAROS, *args], capture_output=True, text=True, timeout=120, check=False, input=stdin)
    assert done.returncode == code, (args, done.returncode, done.stderr[-500:])
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr
    return done.stdout


def estimate(*args):
    return json.loads(pharos("estimate", *args, "--json"))


def machine(folder, threads=2):
    """A profile as bench probe leaves it, of a machine that is always the same."""
    reads = [10e9 * (i + 1) for i in range(threads)]
    profile = {"format": 2, "name": "here", "measured": True, "cpu": "a CPU", "isa": "avx2", "cores": threads, "threads": threads,
               "memory_bytes": 32 << 30, "memory_available_bytes": 24 << 30, "peak_f32": 1e11, "peak_int8": 4e11,
               "disk_read_bytes_per_s": 1e9, "memory_bytes_per_s": reads, "devices": []}
    with open(os.path.join(folder, "machine.json"), "w", encoding="utf-8") as file:
        json.dump(profile, file)


def add_up(line):
    """The value of a line, from its parts alone."""
    parts = [part for part in line.get("parts", []) if part["kind"] != "note"]
    if line["kind"] != "sum":
        return line["value"]
    assert all(part["unit"] == line["unit"] for part in parts), line
    total = sum(add_up(part) for part in parts)
    assert total == line["value"], (line["name"], total, line["value"])
    return total


def every_total_is_the_sum_of_its_parts():
    listed = json.loads(pharos("estimate", "--list", "--json"))
    assert len(listed["shapes"]) > 30 and len(listed["hardware"]) > 20
    for shape, hardware in (("llama-3.3-70b", "desktop"), ("mixtral-8x22b", "m5"), ("llama-3.1-8b", "irina"), ("phi-2", "pharaoh"),
                            ("gemma-2-9b", "h100"), ("qwen-2.5-32b", "ryzen-9900x+rtx-4090")):
        answer = estimate("--model", shape, "--hardware", hardware, "--streams", "3", "--lora", "8", "--draft", "tinyllama-1.1b")
        for name, sheet in answer["sheets"].items():
            assert sheet or (name == "load" and hardware == "h100"), (shape, hardware, name)  # a bare card has no disk
            for line in sheet:
                add_up(line)
        assert answer["sheets"]["memory"][0]["value"] == answer["memory_bytes"]
        assert abs(answer["sheets"]["decode"][0]["value"] * 1e-9 / answer["decode_s"]["value"] - 1) < 1e-3
        low, value, high = (answer["decode_tokens_per_s"][key] for key in ("low", "value", "high"))
        assert 0 < low < value < high


def what_is_explained_is_what_is_said():
    """The text's lines, added up by their indentation."""
    text = pharos("estimate", "--model", "llama-3.3-70b", "--hardware", "desktop", "--explain")
    lines = re.findall(r"^( +)([=+.]) (.+?) +(\d[\d ]*) (bytes|ns) ", text, re.M)
    assert len(lines) > 30, text
    rows = [(len(indent), kind, int(value.replace(" ", ""))) for indent, kind, _, value, _ in lines]
    sums = 0
    for i, (depth, kind, value) in enumerate(rows):
        if kind != "=":
            continue
        total = 0
        for below, what, part in rows[i + 1:]:
            if below <= depth:
                break
            total += part if below == depth + 2 and what != "." else 0
        assert total == value, (i, total, value)
        sums += 1
    assert sums >= 7


def a_file_is_what_its_shape_says():
    with tempfile.TemporaryDirectory() as folder:
        machine(folder)
        for kind in ("Q4_K_M", "Q8_0", "Q3_K_M", "F16"):
            path = os.path.join(folder, "m.gguf")
            pharos("bench", "model", "--shape", "160m", "--type", kind, path)
            file, shape = (estimate("--model", name, "--data", folder, *more) for name, more in
                           ((path, ()), ("bench-160m", ("--type", kind))))
            for key in ("params", "weight_bytes", "decode_bytes", "operations", "memory_bytes"):
                assert file[key] == shape[key], (kind, key, file[key], shape[key])
            assert file["type"] == shape["type"] == kind
            resident_is_as_estimated(path, folder)


def resident_is_as_estimated(path, folder):
    ids = ",".join(str(3 + i * 37 % 900) for i in range(96))
    said = estimate("--model", path, "--data", folder, "--prompt", "96", "--generate", "8")["memory_bytes"]
    command = [PHAROS, "complete", "--model", path, "--prompt-ids", ids, "-n", "8", "--ignore-end", "--ids", "--threads", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    if "san" not in os.path.basename(os.path.dirname(PHAROS)):  # sanitizers have shadows
        assert abs(said - usage.ru_maxrss * 1024) < MEMORY_BYTES_MAX, (path, said, usage.ru_maxrss * 1024)


def bench_teaches_and_estimates_believe_after_three():
    with tempfile.TemporaryDirectory() as folder:
        machine(folder)
        path = os.path.join(folder, "m.gguf")
        pharos("bench", "model", "--shape", "tiny", "--type", "Q8_0", path)
        told = json.loads(pharos("bench", "engine", "--model", path, "-p", "64", "-n", "16", "-t", "1", "-r", "3", "--data", folder, "--json"))
        kept = sum(test["samples_kept"] for test in told["tests"])
        calibration = os.path.join(folder, "efficiency.json")
        assert os.path.exists(calibration) == (kept > 0), told
        row = {"device": "a CPU, avx2, 2 threads", "type": "Q8_0", "phase": "decode", "ratio": 2.0, "spread": 0.01, "samples": 2, "unix_s": 1}
        speeds = {}
        for samples in (2, 3):
            with open(calibration, "w", encoding="utf-8") as file:
                json.dump({"version": 2, "rows": [{**row, "samples": samples}]}, file)
            speeds[samples] = estimate("--model", "llama-3.1-8b", "--type", "Q8_0", "--data", folder)
        assert not speeds[2]["calibrated"] and speeds[3]["calibrated"]
        width = [speeds[k]["decode_tokens_per_s"]["high"] / speeds[k]["decode_tokens_per_s"]["low"] for k in (2, 3)]
        assert width[1] < 1.5 < width[0], width
        assert abs(speeds[3]["decode_tokens_per_s"]["value"] / (20e9 / 2 / speeds[3]["decode_bytes"]) - 1) < 0.05


def published_claims_are_judged():
    verdicts = {claim["name"]: claim for claim in json.loads(pharos("estimate", "--check", CLAIMS, "--json"))}

    def find(*words):
        (claim,) = [claim for name, claim in verdicts.items() if all(word in name for word in words)]
        return claim
    split = find("70B")
    assert split["verdict"] == "impossible" and split["review"]["verdict"] == "impossible" and split["physics"] < 4
    notes = " ".join(split["notes"])
    assert "one channel of 2" in notes and "8 streams" in notes and "contradicts" in notes
    assert find("8B", "one stream")["verdict"] == "impossible"
    assert find("3.2 3B", "9900X")["review"]["verdict"] == "impossible"
    card = find("GTX 1650")
    assert card["verdict"] == "too modest" and "contradicts itself" in " ".join(card["notes"])
    assert find("14B")["verdict"] == "impossible" and find("32B", "speed")["verdict"] == "impossible"
    assert find("USB")["assumed"]
    text = pharos("estimate", "--check", "-", stdin=open(CLAIMS, encoding="utf-8").read())
    assert text.count("  claimed ") == len(verdicts) and "one channel of 2" in text


def users_add_shapes_and_hardware():
    with tempfile.TemporaryDirectory() as folder:
        shapes, hardware = os.path.join(folder, "s.yaml"), os.path.join(folder, "h.yaml")
        with open(shapes, "w", encoding="utf-8") as file:
            file.write("shapes:\n  mine: {layers: 2, width: 512, heads: 8, kv_heads: 4, head_dim: 64, ffn: 1024, vocab: 5000}\n")
        with open(hardware, "w", encoding="utf-8") as file:
            file.write("machines:\n  box: {cpu: C, threads: 4, memory_gib: 1, gb_per_s: 10, f32: 0.1}\n")
        answer = estimate("--model", "mine", "--shapes", shapes, "--hardware-file", hardware, "--hardware", "box+rtx-3050", "--type", "Q4_0")
        assert answer["fits"] and answer["stages"][0]["device"].startswith("GeForce RTX 3050")
        table = json.loads(pharos("estimate", "--model", "mine", "--shapes", shapes, "--hardware", "tesla-p4", "--types", "--json"))
        assert {row["type"] for row in table} >= {"Q4_K_M", "F16", "FP8"} and all(row["fits"] for row in table)
        with open(shapes, "w", encoding="utf-8") as file:
            file.write("shapes:\n  mine: {layers: 2, widht: 512}\n")
        assert "width" in pharos("estimate", "--model", "mine", "--shapes", shapes, "--hardware", "h100", code=1)


def errors_say_what_to_do():
    with tempfile.TemporaryDirectory() as folder:
        assert "bench probe" in pharos("estimate", "--model", "phi-4", "--data", folder, code=1)
        assert "--shapes" in pharos("estimate", "--model", "gpt-9", "--hardware", "h100", code=1)
        assert "rtx-4090" in pharos("estimate", "--model", "phi-4", "--hardware", "abacus", code=1)
        assert "Q4_K_M" in pharos("estimate", "--model", "phi-4", "--type", "Q1", "--hardware", "h100", code=1)
        assert "--model" in pharos("estimate", code=2)
        machine(folder)
        with open(os.path.join(folder, "efficiency.json"), "w", encoding="utf-8") as file:
            file.write('{"version":2,"rows":[{"device":"d"}]}')
        assert "row 1" in pharos("estimate", "--model", "phi-4", "--data", folder, code=1)
        assert "nothing" in pharos("estimate", "--check", "-", code=1, stdin="nothing: 1\n")


for case in (every_total_is_the_sum_of_its_parts, what_is_explained_is_what_is_said, a_file_is_what_its_shape_says,
             bench_teaches_and_estimates_believe_after_three, published_claims_are_judged, users_add_shapes_and_hardware,
             errors_say_what_to_do):
    runner.run(case.__name__, case)
runner.finish()
