#!/usr/bin/env python3
"""bench load: what it prints against what the servers did, and every figure computed again from its lines.

Servers with known delays and faults: upstream.py, and a small one here that stalls, holds streams or serves one at a time. No
test looks at how fast this machine is: delays are lower bounds, and what has to be equal is equal whatever the time.
"""
import asyncio
import contextlib
import html.parser
import json
import math
import os
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from station import HERE, PHAROS, Runner, Station
from upstream import Upstream

MODEL = os.path.join(HERE, "..", "..", "models", "default.gguf")
CRITERIA = os.path.join(HERE, "..", "..", "deploy", "criteria.yaml")
KEY = "kluger-rabe-99-geheim"
WORK = tempfile.TemporaryDirectory()


def path_of(name, text=None):
    path = os.path.join(WORK.name, name)
    if text is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return path


def start(url, *arguments, key=KEY):
    environment = {**os.environ, "PHAROS_KEY": key}
    out = path_of("out.jsonl")
    with contextlib.suppress(FileNotFoundError):
        os.remove(out)
    return subprocess.Popen([PHAROS, "bench", "load", "--url", url, "--json", "--out", out, *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process, code=0, slo=None):
    """(report, lines by stage, stderr), after all figures were computed again."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, (process.returncode, err, out[-500:])
    assert KEY not in out and KEY not in err
    report = json.loads(out)
    with open(path_of("out.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    stages = [[line for line in lines if line["stage"] == i] for i in range(len(report["stages"]))]
    for stage, of_stage in zip(report["stages"], stages):
        check(stage, of_stage, slo)
    return report, stages, err


def bench(url, *arguments, code=0, slo=None, key=KEY):
    return finish(start(url, *arguments, key=key), code, slo)


# ---- The figures again, from the lines alone

def nearest_rank(values, percent):
    values = sorted(values)
    return values[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def again(lines, slo):
    """Every metric by its definition."""
    lines = [line for line in lines if not line["warmup"]]
    ok = [line for line in lines if line["error"] is None]
    unfinished = sum(line["error"] == "unfinished" for line in lines)
    finished = len(lines) - unfinished
    ms = 1e-6
    found = {"requests": len(lines), "succeeded": len(ok), "unfinished": unfinished, "failed": finished - len(ok)}
    ttft = {id(x): (x["chunks_ns"][0] - x["intended_ns"]) * ms for x in ok if x["stream"] and x["chunks_ns"]}
    tpot = {id(x): (x["chunks_ns"][-1] - x["chunks_ns"][0]) * ms / (x["tokens_out"] - 1) for x in ok
            if x["stream"] and len(x["chunks_ns"]) > 1 and x["tokens_out"] > 1}
    gaps = [(b - a) * ms for x in ok if x["stream"] for a, b in zip(x["chunks_ns"], x["chunks_ns"][1:])]
    e2e = {id(x): (x["end_ns"] - x["intended_ns"]) * ms for x in ok}
    late = [(x["sent_ns"] - x["intended_ns"]) * ms for x in lines]
    for name, values in (("ttft", list(ttft.values())), ("tpot", list(tpot.values())), ("itl", gaps),
                         ("e2e", list(e2e.values())), ("late", late)):
        found[f"{name}_mean_ms"] = statistics.fmean(values) if values else None
        found[f"{name}_max_ms"] = max(values) if values else None
        for percent in (50, 95, 99):
            found[f"{name}_p{percent}_ms"] = nearest_rank(values, percent) if values else None
    seconds = (max(x["end_ns"] for x in lines) - min(x["intended_ns"] for x in lines)) * 1e-9 if lines else 0
    found.update(seconds=seconds, tokens_in=sum(x["tokens_in"] for x in ok), tokens_out=sum(x["tokens_out"] for x in ok))
    if seconds:
        found.update(requests_per_s=len(ok) / seconds, tokens_out_per_s=found["tokens_out"] / seconds,
                     in_flight_mean=sum(x["end_ns"] - x["sent_ns"] for x in lines) * 1e-9 / seconds)
        if any(x["counted"] == "usage" for x in ok):
            found["tokens_in_per_s"] = found["tokens_in"] / seconds
    found["success_percent"] = 100 * len(ok) / finished if finished else None
    moments = sorted([(x["sent_ns"], 1) for x in lines] + [(x["end_ns"], -1) for x in lines])
    now = most = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    found["in_flight_max"] = most
    if slo and finished:
        good = sum(ttft.get(id(x), math.inf) <= slo.get("ttft", math.inf) and e2e[id(x)] <= slo.get("e2e", math.inf)
                   and (x["tokens_out"] == 1 or tpot.get(id(x), math.inf) <= slo.get("tpot", math.inf)) for x in ok)
        found["goodput_percent"] = 100 * good / finished
        if seconds:
            found["goodput_per_s"] = good / seconds
    return found


def check(stage, lines, slo=None):
    wanted = again(lines, slo)
    for name, value in wanted.items():
        shown = stage["metrics"][name]
        same = shown is None if value is None else shown is not None and math.isclose(shown, value, rel_tol=1e-9, abs_tol=1e-9)
        assert same, (name, shown, value)
    counts = {}
    for line in lines:
        if line["error"] and not line["warmup"]:
            counts[line["error"]] = counts.get(line["error"], 0) + 1
    assert stage["errors"] == counts, (stage["errors"], counts)
    for line in lines:
        assert line["intended_ns"] <= line["sent_ns"] <= line["end_ns"], line
        assert line["chunks_ns"] == sorted(line["chunks_ns"]), line


# ---- A server of a few lines, whose delays and faults are a function of the test's

CHUNK = 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"w "},"finish_reason":null}]}\n\n'
LAST = 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Scripted:
    """Streams of `pieces` pieces; `before(self, n)` and `between(self, n)` are awaited for request number n."""

    def __init__(self, before=None, between=None, pieces=2):
        self.before, self.between, self.pieces = before, between, pieces
        self.count, self.bodies, self.loop = 0, [], asyncio.new_event_loop()
        self.ready = threading.Event()

    async def answer(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(re.search(r"content-length: (\d+)", head).group(1)) if "content-length" in head else 0
                body = json.loads(await reader.readexactly(length) or b"null")
                if body is None:
                    reply = b'{"data":[{"id":"m"}]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(reply), reply))
                    continue
                n, self.count = self.count, self.count + 1
                self.bodies.append(body)
                if self.before:
                    await self.before(self, n)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                for i in range(self.pieces):
                    if i == 1 and self.between:
                        await self.between(self, n)
                    writer.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK.encode()))
                    await writer.drain()
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST.encode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve(self):
        self.lock, self.gate = asyncio.Lock(), asyncio.Event()
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self.stop = asyncio.Event()
        self.ready.set()
        await self.stop.wait()
        server.close()
        streams = asyncio.all_tasks() - {asyncio.current_task()}
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    def __enter__(self):
        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(self.serve()))
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()


PROMPTS = path_of("prompts", '{"prompt": "say 12 tokens"}\n')
FAST = ("--model", "m", "--prompts", PROMPTS)


# ---- Checks

def known_delays(upstream):
    url = upstream.url + "/openai"
    report, (lines,), _ = bench(url, "--model", "slow-15", "--prompts", PROMPTS, "--requests", 12, "--concurrency", 4, "--warmup", 2,
                                "--slo", "ttft=10s,tpot=1ms", slo={"ttft": 1e4, "tpot": 1})
    stage = report["stages"][0]
    assert stage["metrics"]["tokens_out"] == 12 * 12 and stage["tokens_counted_by"] == "usage"
    assert stage["metrics"]["ttft_p50_ms"] >= 15, stage["metrics"]
    assert all(line["chunks_ns"][-1] - line["sent_ns"] >= 12 * 15e6 for line in lines), lines
    assert stage["metrics"]["e2e_p50_ms"] >= 12 * 15 and stage["metrics"]["goodput_percent"] == 0
    assert len(lines) == 14 and sum(line["warmup"] for line in lines) == 2 and stage["metrics"]["in_flight_max"] == 4
    assert all(len(line["chunks_ns"]) == 12 for line in lines)
    meter = upstream.meter()
    assert meter["sums"]["openai/slow-15"]["output"] == 14 * 12 and {r["key"] for r in meter["requests"]} == {KEY}


def ways_of_counting(upstream):
    url = upstream.url + "/openai"
    for model, more, counted, tokens in (("fault-no-usage", (), "chunks", 12), ("clump-4", (), "usage", 12), ("m", ("--whole",), "usage", 12)):
        report, (lines,), _ = bench(url, "--model", model, "--prompts", PROMPTS, "--requests", 3, *more)
        stage = report["stages"][0]
        assert stage["tokens_counted_by"] == counted and stage["metrics"]["tokens_out"] == 3 * tokens, (model, stage)
        if more:
            assert stage["metrics"]["ttft_p50_ms"] is None and not any(line["stream"] for line in lines)
        if model == "clump-4":
            assert all(len(line["chunks_ns"]) == 3 for line in lines)


def kinds_of_errors(upstream):
    url = upstream.url + "/openai"
    for fault, kind, status in (("429", "http_429", 429), ("500", "http_5xx", 500), ("401", "http_4xx", 401), ("cut-3", "cut", 200),
                                ("no-finish-3", "cut", 200), ("half-json-2", "bad_reply", 200), ("error-2", "in_stream", 200),
                                ("wrong-type", "bad_reply", 200), ("empty", "cut", 200), ("reset", "cut", 0), ("hang", "timeout", 0),
                                ("502-html", "http_5xx", 502), ("stall-2", "timeout", 200)):
        more = ("--timeout", 0.4) if kind == "timeout" else ()
        report, (lines,), err = bench(url, "--model", f"fault-{fault}", "--prompts", PROMPTS, "--requests", 2, *more, code=1)
        assert report["stages"][0]["errors"] == {kind: 2}, (fault, report["stages"][0]["errors"], report["stages"][0]["error_examples"])
        assert {line["status"] for line in lines} == {status} and "no request succeeded" in err, (fault, lines)
        assert report["stages"][0]["error_examples"][kind]
    report, _, _ = bench("http://127.0.0.1:9", *FAST, "--requests", 2, code=1)
    assert report["stages"][0]["errors"] == {"refused": 2}
    upstream.control("/__script", {"model": "mixed", "faults": ["ok", "500", "ok", "429", "ok"]})
    report, _, _ = bench(url, "--model", "mixed", "--prompts", PROMPTS, "--requests", 6, "--slo", "e2e=100s", slo={"e2e": 1e5})
    metrics = report["stages"][0]["metrics"]
    assert metrics["failed"] == 2 and metrics["goodput_percent"] == metrics["success_percent"] == 100 * 4 / 6


async def slowly(server, _n):
    async with server.lock:  # one after the other
        await asyncio.sleep(0.03)


def from_the_intended_send(_upstream):
    """A server that takes one at a time, 30 ms each, and 30 requests that were due within a fraction of that."""
    sent = {}
    for name, before, at_once in (("fast", None, 30), ("queue there", slowly, 30), ("queue here", slowly, 1)):
        with Scripted(before) as server:
            report, (lines,), _ = bench(server.url, *FAST, "--rate", 200, "--requests", 30, "--seed", 5, "--in-flight", at_once)
        lines.sort(key=lambda line: line["intended_ns"])
        sent[name] = [line["intended_ns"] - lines[0]["intended_ns"] for line in lines]
        due_ms = sent[name][-1] * 1e-6
        metrics = report["stages"][0]["metrics"]
        if before:
            assert metrics["e2e_max_ms"] >= 30 * 30 - due_ms - 1, (name, metrics)  # the last one waited for all others
            assert metrics["ttft_p50_ms"] >= 14 * 30 - due_ms
        if name == "queue here":
            assert metrics["in_flight_max"] == 1 and metrics["late_max_ms"] >= 29 * 30 - due_ms - 1
    # The schedule is the seed's, whatever the server did; to a nanosecond, for it is rounded after the beginning is added.
    for other in ("queue there", "queue here"):
        assert all(abs(a - b) <= 2 for a, b in zip(sent["fast"], sent[other])), (sent["fast"], sent[other])


def a_thousand_streams(_upstream):
    """Nobody's second piece comes before a thousand streams have had their first: all are held at once, or nothing ends."""
    async def hold(server, n):
        if n == 999:
            server.gate.set()
        await server.gate.wait()
    with Scripted(between=hold) as server:
        report, (lines,), _ = bench(server.url, *FAST, "--concurrency", 1000, "--requests", 1000)
    metrics = report["stages"][0]["metrics"]
    assert metrics["succeeded"] == 1000 and metrics["in_flight_max"] == 1000, metrics
    assert max(line["chunks_ns"][0] for line in lines) <= min(line["end_ns"] for line in lines)


def sweep(_upstream):
    with Scripted(slowly) as server:
        page = path_of("sweep.html")
        report, stages, _ = bench(server.url, *FAST, "--sweep", "1,2,4,8,16,32", "--requests", 32, "--warmup", 1, "--html", page)
    assert report["knee_found"] and 2 <= len(stages) < 6 and report["knee"] < len(stages) - 1, report["stages"]
    check_page(page, "the knee is at")


def overload_is_left(_upstream):
    """An open loop that the server cannot follow: it ends by itself, long before its time."""
    with Scripted(slowly) as server:
        report, (lines,), _ = bench(server.url, *FAST, "--rate", 100, "--duration", 600, "--stop-saturated")
    assert report["stages"][0]["over_saturated"] and len(lines) < 10000 and report["stages"][0]["metrics"]["unfinished"] > 0


def interrupted(upstream):
    process = start(upstream.url + "/openai", "--model", "slow-20", "--prompts", PROMPTS, "--concurrency", 8, "--duration", 600)
    while upstream.meter()["sums"].get("openai/slow-20", {}).get("requests", 0) < 20:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    report, (lines,), _ = finish(process)
    stage = report["stages"][0]
    assert stage["interrupted"] and stage["metrics"]["unfinished"] == 8 and stage["metrics"]["succeeded"] >= 8, stage["metrics"]
    assert stage["metrics"]["failed"] == 0 and len(lines) == stage["metrics"]["requests"]


def agents(upstream):
    url = upstream.url + "/openai"
    with Scripted() as server:
        report, _, _ = bench(server.url, "--model", "m", "--prompts", path_of("said", "one\ntwo\nthree\n"), "--agents", 3, "--think", 0.01,
                             "--turns", 3, "--requests", 24)
        bodies = [body["messages"] for body in server.bodies]
    assert report["stages"][0]["mode"] == "agents" and report["stages"][0]["metrics"]["succeeded"] == 24
    assert {len(messages) for messages in bodies} == {1, 3, 5}
    for messages in bodies:
        assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant", "user"][:len(messages)]
        assert all(m["content"] == "w w " for m in messages if m["role"] == "assistant")
    assert all(messages[:-2] in bodies for messages in bodies if len(messages) > 1), bodies
    assert upstream and url


def page_words(path):
    """Its text; raises when something is fetched from elsewhere or runs."""
    class Reader(html.parser.HTMLParser):
        words, hidden = [], 0

        def handle_starttag(self, tag, attrs):
            assert tag not in ("script", "link", "img", "iframe", "object", "base"), tag
            for name, value in attrs:
                assert name not in ("src", "href", "xlink:href", "style", "onload") and "url(" not in (value or ""), (tag, name, value)

        def handle_data(self, data):
            self.words.append(data)
    with open(path, encoding="utf-8") as file:
        reader = Reader()
        reader.feed(file.read())
    return "".join(reader.words)


def check_page(path, *wanted):
    words = page_words(path)
    for text in (*wanted, "nearest rank", "time to first token", "tokens_out_per_s"):
        assert text in words, (text, words[:2000])
    assert KEY not in words


def accept_and_refuse(upstream):
    url, page = upstream.url + "/openai", path_of("accept.html")
    good = path_of("good.yaml", "tests:\n  - {name: easy, concurrency: 2, requests: 6, want: [success_percent >= 100, ttft_p95_ms < 60000]}\n"
                                "  - {name: other, machine: gpu, requests: 1, want: [ttft_p50_ms < 0.001]}\n")
    report, _, err = bench(url, "--model", "m", "--accept", good, "--html", page)
    assert [row["holds"] for row in report["criteria"]] == [True, True] and "left out" in err and len(report["stages"]) == 1
    check_page(page, "easy", "holds")
    report, _, err = bench(url, "--model", "slow-5", "--prompts", PROMPTS, "--accept", good, "--machine", "gpu", code=1)
    (bad,) = [row for row in report["criteria"] if not row["holds"]]
    assert bad["test"] == "other" and bad["measured"] >= 5 and "1 of 3 criteria fail" in err and "ttft_p50_ms < 0.001" in err, err
    upstream.control("/__script", {"model": "m2", "faults": ["ok", "500"]})
    report, _, err = bench(url, "--model", "m2", "--prompts", PROMPTS, "--accept", good, code=1)
    assert report["criteria"][0]["measured"] < 100 and "success_percent >= 100" in err
    words = subprocess.run([PHAROS, "bench", "load", "--url", url, "--model", "m", "--prompts", PROMPTS, "--accept", good, "--machine", "gpu"],
                           capture_output=True, text=True, timeout=60, env={**os.environ, "PHAROS_KEY": KEY}, check=False)
    assert words.returncode == 1 and re.search(r"other .*FAILS by [\d.]+ \(\d+ % too much\)", words.stdout), words.stdout


def shipped_criteria(_upstream):
    done = subprocess.run([PHAROS, "bench", "load", "--url", "http://127.0.0.1:9", "--model", "m", "--prompts", PROMPTS, "--accept", CRITERIA,
                           "--test", "32 readers at once", "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["stages"][0]["errors"]["refused"] == 128, done.stderr


def wrong_usage(_upstream):
    for arguments, code, words in ((("--rate", "1", "--agents", "2"), 2, "choose one"), (("--sweep", "3,2"), 2, "rising"),
                                   (("--slo", "fast"), 1, "ttft=200ms"), (("--prompts", "/nowhere"), 1, "/nowhere"),
                                   (("--replay", path_of("bad.jsonl", '{"x": 1}\n')), 1, "line 1"), (("--concurrency", "0"), 2, "concurrency"),
                                   (("--accept", path_of("bad.yaml", "tests:\n  - {name: a, want: [speed > 1]}\n")), 1, "no figure \"speed\""),
                                   (("--test", "x"), 2, "--accept"), (("--out", WORK.name), 1, WORK.name)):
        done = subprocess.run([PHAROS, "bench", "load", "--url", "http://127.0.0.1:9", "--model", "m", *(() if "--prompts" in arguments else ("--prompts", PROMPTS)),
                               *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code and words in done.stderr and len(done.stderr.splitlines()) <= 2, (arguments, done)
    done = subprocess.run([PHAROS, "bench", "load", "--url", "http://127.0.0.1:9"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "does not answer" in done.stderr
    done = subprocess.run([PHAROS, "bench", "load", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "nearest rank" in done.stdout and "--ignore-eos" in done.stdout


def key_from_a_file(upstream):
    path = path_of("key", KEY + "\n")
    os.chmod(path, 0o600)
    bench(upstream.url + "/openai", *FAST, "--requests", 1, "--key-file", path, key="")
    assert upstream.meter()["requests"][-1]["key"] == KEY
    os.chmod(path, 0o644)
    done = subprocess.run([PHAROS, "bench", "load", "--url", upstream.url, "--key-file", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "key" in done.stderr and KEY not in done.stderr


def our_station(_upstream):
    """All ways at the shipped model; tokens as the station's own metrics count them; its log asked again."""
    log = path_of("requests.jsonl", "")
    config = f"listen: 127.0.0.1:0\nmodels:\n  - {{id: small, path: {MODEL}, context: 1024}}\nrequest_log: {{path: {log}, bodies: true}}\n"
    with Station(config) as station:
        before = station.metrics()
        totals = {"in": 0, "out": 0}
        for arguments in (("--concurrency", 6, "--requests", 18), ("--rate", 30, "--requests", 15, "--seed", 3),
                          ("--agents", 4, "--think", 0.05, "--turns", 2, "--requests", 12), ("--api", "completions", "--requests", 4),
                          ("--whole", "--requests", 3)):
            report, (lines,), _ = bench(station.url, *arguments, "--ignore-eos", "--max-tokens", 12, "--prompts", PROMPTS)
            assert all(line["tokens_out"] == 12 for line in lines), lines
            assert report["model"] == "small" and report["stages"][0]["metrics"]["failed"] == 0, report["stages"][0]["errors"]
            totals["in"] += sum(line["tokens_in"] for line in lines)
            totals["out"] += sum(line["tokens_out"] for line in lines)
        after = station.metrics()
        for name, way in (("vllm:prompt_tokens_total", "in"), ("vllm:generation_tokens_total", "out")):
            counted = sum(value - before.get(series, 0) for series, value in after.items() if series.startswith(name))
            assert counted == totals[way], (name, counted, totals)
        with open(log, encoding="utf-8") as file:
            recorded = [json.loads(line) for line in file]
        assert len(recorded) == 52
        copy = path_of("replay.jsonl", "".join(json.dumps(line) + "\n" for line in recorded))
        report, (lines,), _ = bench(station.url, "--replay", copy, "--speed", 1000, "--ignore-eos")
        assert report["stages"][0]["metrics"]["succeeded"] == 52 and report["stages"][0]["mode"] == "replay"
        with open(log, encoding="utf-8") as file:
            asked = [json.loads(line)["request"] for line in file]
        said = lambda rows: sorted(json.dumps(row.get("messages") or [{"role": "user", "content": row["prompt"]}]) for row in rows)  # noqa: E731
        assert said(asked[:52]) == said(asked[-52:])
        report, (lines,), _ = bench(station.url, "--replay", path_of("own.jsonl", open(path_of("out.jsonl"), encoding="utf-8").read()), "--speed", 2, "--ignore-eos")
        assert report["stages"][0]["metrics"]["requests"] == 52
        # Prompts of words are as long as asked for, as this model counts.
        _, (lines,), _ = bench(station.url, "--requests", 6, "--prompt-tokens", 200, "--max-tokens", 2, "--ignore-eos")
        assert abs(statistics.fmean(line["tokens_in"] for line in lines) - 200) < 30, [line["tokens_in"] for line in lines]


def main():
    runner = Runner("load")
    with Upstream() as upstream:
        for test in (known_delays, ways_of_counting, kinds_of_errors, from_the_intended_send, a_thousand_streams, sweep, overload_is_left,
                     interrupted, agents, accept_and_refuse, shipped_criteria, wrong_usage, key_from_a_file, our_station):
            upstream.reset()
            runner.run(test.__name__, lambda: test(upstream))
    runner.finish()


if __name__ == "__main__":
    main()
