#!/usr/bin/env python3
"""Routes, keys and accounts of a station with the fake upstream behind it: who is asked, who may ask, and what is told of it."""
import collections
import json
import os
import subprocess
import tempfile
import time

import edges
from behind import APIS, configuration, model_line, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text

runner = Runner("routes")
PREFIX = "capabilities: [tools, images, prefix, json]"
CHAT = "/v1/chat/completions"


def route(model, policy, more):
    return f"  - {{model: {model}, policy: {policy}, {more}}}\n"


def features_configuration(upstream):
    models = [model_line(kind, kind, kind, f"{kind}-up", more=PREFIX) for kind in APIS]
    models += [model_line("cheap", "together", "together", "cheap-up").replace("0.88", "0.01"),
               model_line("flat", "flat", "together", "flat-up", tier="subscription").replace("0.88", "0"),
               model_line("torn", "torn", "openai", "fault-cut-4"), model_line("short", "short", "openai", "fault-context"),
               model_line("prude", "prude", "anthropic", "fault-filter"), model_line("two-keys", "two-keys", "openai", "keyed-up"),
               model_line("moody", "moody", "openai", "moody-up"), model_line("slow", "slow", "openai", "slow-300"),
               model_line("secure", "secure", "openai", "secure-up")]
    providers = [provider_line(kind, kind, upstream) for kind in APIS]
    providers += [provider_line(name, kind, upstream) for name, kind in (
        ("flat", "together"), ("torn", "openai"), ("short", "openai"), ("prude", "anthropic"), ("moody", "openai"), ("slow", "openai"))]
    providers += [provider_line("two-keys", "openai", upstream).replace("key: sk-two-keys", "keys: [bad-one, broke-two, good-three]"),
                  provider_line("secure", "openai", upstream, url=f"https://127.0.0.1:{upstream.tls_port}")]
    routes = "routes:\n" + "".join((
        route("shares", "weighted", "weights: {openai: 75, together: 25}"), route("least", "cheapest", "order: [openai, cheap, anthropic]"),
        route("steps", "tiers", "order: [subscription, premium]"), route("mended", "fallback", "order: [torn, anthropic]"),
        route("roomy", "fallback", "order: [short, openai], context_fallback: [gemini]"),
        route("bold", "fallback", "order: [prude, openai], refusal_fallback: [together]"),
        route("hedged", "fallback", "order: [slow, openai], hedge_ms: 100"), route("backed", "fallback", "order: [moody, openai]")))
    return configuration(models, providers, f"ca_file: {upstream.ca}\n" + routes)


class Bench:
    def __init__(self, station, upstream):
        self.station, self.upstream = station, upstream

    def ask(self, model, prompt, stream=False, edge="openai", **more):
        return edges.ask(self.station.port, edge, model, prompt, stream, **more)

    def right(self, model, prompt, stream=False, edge="openai", **more):
        answer = self.ask(model, prompt, stream, edge, **more)
        assert answer.whole and answer.text == reply_text(prompt), f"{model}: {answer}"
        return answer

    def record(self, answer):
        """What /v1/routes has about an answer, by the id that the reply's own header names."""
        reply = self.station.request("GET", f"/v1/routes/{answer.headers['x-request-id']}")
        assert reply.status == 200, reply.text
        return reply.json


def asked(answer):
    return dict(part.strip().split("=") for part in answer.headers["x-pharos-route"].split(";"))


# ---- Policies

def weights_are_kept(bench):
    counts = collections.Counter(asked(bench.right("shares", f"request {i}"))["model"] for i in range(120))
    assert 65 <= counts["openai"] <= 112 and counts["together"] >= 8, counts


def a_conversation_stays_with_its_model(bench):
    for number in range(6):
        seen = {asked(bench.right("shares", f"turn {turn}", metadata={"conversation_id": f"c{number}"}))["model"] for turn in range(5)}
        assert len(seen) == 1, f"conversation {number} went to {seen}"


def the_cheapest_is_asked(bench):
    assert {asked(bench.right("least", f"number {i}"))["model"] for i in range(5)} == {"cheap"}


def subscriptions_are_asked_before_premium(bench):
    assert {asked(bench.right("steps", f"step {i}"))["tier"] for i in range(5)} == {"subscription"}


def a_torn_stream_is_continued(bench):
    for edge in edges.PATHS:
        answer = bench.right("mended", f"mend this, {edge}: 30 tokens", True, edge)
        attempts = bench.record(answer)["attempts"]
        assert [attempt["model"] for attempt in attempts[-2:]] == ["torn", "anthropic"], attempts
        assert attempts[-1].get("continued") is True, attempts
        assert edges.output_tokens(answer) == 30, answer.usage
    assert not any(entry.get("wrong_beginning") for entry in bench.upstream.meter()["requests"])


def too_long_goes_where_there_is_room(bench):
    assert asked(bench.right("roomy", "a long story"))["model"] == "gemini"


def refused_content_goes_elsewhere(bench):
    assert asked(bench.right("bold", "a bold story"))["model"] == "together"


def a_hedge_overtakes(bench):
    start = time.monotonic()
    answer = bench.right("hedged", "hurry, 20 tokens", True)
    assert time.monotonic() - start < 2 and asked(answer)["model"] == "openai", answer.headers


# ---- Accounts

def bad_keys_are_put_aside(bench):
    bench.upstream.reset()
    for i in range(6):
        bench.right("two-keys", f"key {i}")
    keys = collections.Counter(entry["key"] for entry in bench.upstream.meter()["requests"])
    assert keys["good-three"] == 6 and keys["bad-one"] <= 1 and keys["broke-two"] <= 1, keys


def a_provider_that_recovers_is_asked_again(bench):
    bench.upstream.control("/__script", {"model": "moody-up", "faults": ["500"] * 30})
    for i in range(30):
        bench.right("backed", f"mood {i}")
    bench.upstream.control("/__script", {"model": "moody-up", "faults": []})
    until = time.monotonic() + 40
    while asked(bench.right("backed", "better?"))["model"] != "moody":
        assert time.monotonic() < until, "a provider that works again is not asked"
        time.sleep(0.5)


def connections_are_reused(bench):
    bench.right("openai", "warm")
    before = bench.upstream.meter()["connections_total"]
    for i in range(50):
        bench.right("openai", f"again {i}", bool(i % 2))
    more = bench.upstream.meter()["connections_total"] - before - 1  # the meter's own
    assert more <= 5, f"{more} new connections for 50 requests"


def certificates_are_checked(bench):
    bench.right("secure", "in secret")
    bench.right("secure", "in secret", True)


def our_own_retries_are_said(bench):
    bench.upstream.control("/__script", {"model": "moody-up", "faults": ["500"] * 8})
    answer = bench.ask("moody", "no use")
    assert answer.status in (502, 503) and answer.headers.get("x-should-retry") == "false", answer.headers
    bench.upstream.control("/__script", {"model": "moody-up", "faults": []})


def nothing_secret_is_told(bench):
    answer = bench.right("openai", "the secret harbour")
    texts = [bench.station.log(), bench.station.request("GET", "/metrics").text, json.dumps(bench.record(answer)),
             bench.station.request("GET", "/v1/models").text, str(answer.headers)]
    for text in texts:
        for secret in ("sk-openai", "good-three", "broke-two", "the secret harbour"):
            assert secret not in text, secret


def metrics_are_there(bench):
    text = bench.station.request("GET", "/metrics").text
    for name in ("gen_ai_server_request_duration_seconds", "gen_ai_server_time_to_first_token_seconds", "gen_ai_client_token_usage",
                 "pharos_overhead_seconds", "vllm:request_success_total", "vllm:num_requests_running"):
        assert f"\n{name}" in text, name
    samples = [line.split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]
    doubled = [name for name, count in collections.Counter(samples).items() if count > 1]
    assert not doubled, doubled


def a_record_tells_all(bench):
    answer = bench.right("mended", "tell: 12 tokens", True)
    record = bench.record(answer)
    assert record["attempts"] and all(attempt["outcome"] for attempt in record["attempts"]), record
    assert any("cost_usd" in attempt for attempt in record["attempts"])
    assert bench.station.request("GET", "/v1/routes/nowhere").status == 404


# ---- Keys of ours

def run_keys(data, *arguments):
    done = subprocess.run([PHAROS, "keys", *arguments, "--data", data, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def keys_are_asked_for(upstream):
    with tempfile.TemporaryDirectory() as data:
        good = run_keys(data, "create", "--name", "good")
        narrow = run_keys(data, "create", "--name", "narrow", "--scope", "chat", "--scope", "models:open*")
        slow = run_keys(data, "create", "--name", "slow", "--rpm", "3")
        poor = run_keys(data, "create", "--name", "poor", "--budget-usd-month", "0.0005")
        assert len({entry["key"] for entry in (good, narrow, slow, poor)}) == 4
        models = [model_line(kind, kind, kind, f"{kind}-up") for kind in APIS]
        config = configuration(models, [provider_line(kind, kind, upstream) for kind in APIS])
        with Station(config, ready=False, data=data) as station:
            wait_ready(station)
            for edge in edges.PATHS:
                for stream in (False, True):
                    check_keys(station, edge, stream, good["key"], narrow["key"])
            rate(station, slow["key"])
            poverty(station, poor["key"])
            run_keys(data, "revoke", good["id"])
            until = time.monotonic() + 10
            while edges.ask(station.port, "openai", "openai", "still there?", key=good["key"]).status != 401:
                assert time.monotonic() < until, "a revoked key still works"
                time.sleep(0.2)
            text = station.log() + open(os.path.join(data, "keys.jsonl"), encoding="utf-8").read()
            for entry in (good, narrow, slow, poor):
                assert entry["key"].split("-")[3] not in text, "a secret is written down"


def wait_ready(station):
    until = time.monotonic() + 30
    while station.request("GET", "/ready").status not in (200, 401):
        assert time.monotonic() < until, station.log()
        time.sleep(0.05)


def check_keys(station, edge, stream, good, narrow):
    def status(key, model="openai"):
        return edges.ask(station.port, edge, model, "hello", stream, key=key)
    broken = good[:-9] + ("a" if good[-9] != "a" else "b") + good[-8:]
    for key in ("", "sk-pharos-nonsense", broken, "sk-other"):
        answer = status(key)
        assert answer.status == 401 and answer.error["message"], f"{edge} {key}: {answer}"
        assert answer.error["type"] == "authentication_error" or edge != "anthropic", answer.error
    assert status(good).whole and status(narrow).whole
    assert status(narrow, "gemini").status in (403, 404)
    reply = station.request("POST", CHAT, edges.body_of("openai", "openai", "x"), {"x-api-key": good})
    assert reply.status == 200, reply.text


def rate(station, key):
    statuses = [edges.ask(station.port, "openai", "openai", "hello", key=key) for _ in range(5)]
    assert [answer.status for answer in statuses] == [200, 200, 200, 429, 429], [answer.status for answer in statuses]
    assert int(statuses[-1].headers["retry-after"]) >= 1 and statuses[-1].error["code"] == "rate_limit_exceeded"


def poverty(station, key):
    answers = [edges.ask(station.port, "openai", "openai", f"{i}: 30 tokens", key=key, max_tokens=40) for i in range(4)]
    assert answers[0].status == 200 and answers[-1].status == 429, [answer.status for answer in answers]
    assert answers[-1].error["code"] == "insufficient_quota", answers[-1].error


def it_stays_home_without_keys(upstream):
    with tempfile.TemporaryDirectory() as data:
        path = os.path.join(data, "station.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(configuration([model_line("m", "openai", "openai", "m")], [provider_line("openai", "openai", upstream)]))
        done = subprocess.run([PHAROS, "serve", "--listen", "0.0.0.0:0", "--data", data, "--config", path], capture_output=True,
                              text=True, timeout=30, check=False)
        assert done.returncode == 1 and "key" in done.stderr, done.stderr


def main():
    with Upstream("--tls") as upstream:
        with Station(features_configuration(upstream)) as station:
            bench = Bench(station, upstream)
            for check in (weights_are_kept, a_conversation_stays_with_its_model, the_cheapest_is_asked, subscriptions_are_asked_before_premium,
                          a_torn_stream_is_continued, too_long_goes_where_there_is_room, refused_content_goes_elsewhere, a_hedge_overtakes,
                          bad_keys_are_put_aside, connections_are_reused, certificates_are_checked, our_own_retries_are_said,
                          nothing_secret_is_told, metrics_are_there, a_record_tells_all, a_provider_that_recovers_is_asked_again):
                runner.run(check.__name__, lambda: check(bench))
        for check in (keys_are_asked_for, it_stays_home_without_keys):
            runner.run(check.__name__, lambda: check(upstream))
    runner.finish()


if __name__ == "__main__":
    main()
