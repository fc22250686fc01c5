#!/usr/bin/env python3
"""Money: mixed requests with aborts and faults, and a station that is killed in the middle, against the upstream's own meter.

MONEY_REQUESTS (300), MONEY_KILLS (2), MONEY_SEED (1). The sums of `pharos cost report` must be the upstream's own, model by
model and to the token: the output of every request; the prompt wherever the upstream said its size in what it sent. Where it
could not (a stream of OpenAI's kind that was left before its sums came), the station counts its own estimate, which must
not be less than what was billed. At a kill -9 each request on its way may have been billed for more than was counted, by
what was on the wire, and never for less. Then budgets: many streams at once, of providers that heed max_tokens, where no
limit may be passed, and of such that do not (budgets_hold says by how much). Last, streams whose deltas hold many tokens, which can be counted by estimate only: one
that is within its max_tokens is delivered whole while budgets have room, one that is not is stopped.
"""
import collections
import concurrent.futures
import itertools
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time

import edges
from behind import APIS, PRICES, configuration, model_line, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text, reply_tokens

REQUESTS = int(os.environ.get("MONEY_REQUESTS", "300"))
KILLS = int(os.environ.get("MONEY_KILLS", "2"))
SEED = int(os.environ.get("MONEY_SEED", "1"))
CLIENTS = 24
FAULTS = ["429-retry", "429", "500", "502-html", "cut-3", "cut-1", "error-2", "half-json-2", "no-finish-4", "wrong-type",
          "200-error", "empty", "reset", "overloaded", "no-usage"]
WIRE_TOKENS = 64  # that may lie in socket buffers when a station is killed, for each request


def money_configuration(upstream, budgets=""):
    """One model a provider's kind, and a route over all four from each one's point of view."""
    models = [model_line(kind, kind, kind, f"{kind}-slow-2", more="capabilities: [tools, images, prefix, json]") for kind in APIS]
    providers = [provider_line(kind, kind, upstream).replace("silence_timeout_s: 2", "silence_timeout_s: 5") for kind in APIS]
    routes = "routes:\n"
    for first in APIS:
        order = [first, *(kind for kind in APIS if kind != first)]
        routes += f"  - {{model: any-{first}, policy: fallback, order: [{', '.join(order)}]}}\n"
    return configuration(models, providers, routes + budgets)


# ---- The two sides

def ledger_sums(data):
    """{model: tokens and cost} from the report."""
    done = subprocess.run([PHAROS, "cost", "report", "--data", data, "--by", "model", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {row["model"]: row for row in json.loads(done.stdout)["rows"]}


def is_untold(entry):
    """The station cannot know what was billed for the prompt: no sums came, or the reply broke before any could."""
    return entry["unclear"] or (entry["prompt"] and not entry["told_prompt"])


def billed_sums(upstream):
    """{kind: what the upstream billed}; `untold`: requests whose prompt's size it could not say."""
    sums = {kind: collections.Counter() for kind in APIS}
    for entry in upstream.meter()["requests"]:
        row = sums[entry["kind"]]
        row["output"] += entry["output"]
        row["prompt"] += entry["prompt"]
        if entry["prompt"]:
            row["requests"] += 1
        if is_untold(entry):
            row["untold"] += 1
            row["untold_prompt"] += entry["prompt"]
    return sums


def differences(station, upstream):
    """Request by request: what the upstream billed, and what the station's record of it says. For explaining."""
    billed = collections.defaultdict(collections.Counter)
    entries = collections.defaultdict(list)
    for entry in upstream.meter()["requests"]:
        billed[entry["request_id"], entry["kind"]].update(output=entry["output"], prompt=entry["prompt"],
                                                          untold=bool(is_untold(entry)))
        entries[entry["request_id"], entry["kind"]].append({name: entry[name] for name in (
            "model", "stream", "fault", "end", "status", "prompt", "output", "told_prompt")})
    found = []
    for request_id in {request_id for request_id, _ in billed}:
        reply = station.request("GET", f"/v1/routes/{request_id}")
        if reply.status != 200:
            continue  # only the last few thousand are kept
        attempts = reply.json["attempts"]
        for kind in APIS:
            theirs, mine = billed[request_id, kind], [attempt for attempt in attempts if attempt["provider"] == kind]
            output, prompt = (sum(attempt[name] for attempt in mine) for name in ("completion_tokens", "prompt_tokens"))
            if output != theirs["output"] or (prompt != theirs["prompt"] and not theirs["untold"]):
                found.append((f"{request_id} {kind}: {prompt} + {output}, billed {theirs['prompt']} + {theirs['output']}",
                              entries[request_id, kind], mine))
    return found


def wait_until_idle(upstream, seconds=20):
    until = time.monotonic() + seconds
    while upstream.meter()["running"]:
        assert time.monotonic() < until, "the upstream goes on and on"
        time.sleep(0.05)


# ---- The clients

class Traffic:
    def __init__(self, upstream, data):
        self.upstream, self.data = upstream, data
        self.lock, self.next, self.wrong = threading.Lock(), 0, []
        self.outcomes = collections.Counter()
        self.on_way = 0
        self.station = None

    def take(self, until):
        with self.lock:
            if self.next >= until:
                return None
            self.next += 1
            self.on_way += 1
            return self.next

    def one(self, number):
        rng = random.Random(SEED * 1_000_003 + number)
        edge = rng.choice(["openai", "openai", "anthropic", "responses"])
        model = rng.choice([f"any-{kind}" for kind in APIS] + list(APIS))
        stream = rng.random() < 0.7
        prompt = f"request {number}, {rng.randrange(4, 40)} tokens"
        leaves = rng.random() < 0.25
        stop_after = (rng.randrange(1, 20) if stream else rng.uniform(0.005, 0.05)) if leaves else None
        limit = rng.randrange(2, 30) if rng.random() < 0.2 else None
        answer = edges.ask(self.station.port, edge, model, prompt, stream, stop_after=stop_after, max_tokens=limit,
                           reset=leaves and rng.random() < 0.5, timeout=30)
        if answer.whole:
            expected = reply_text(prompt)
            right = expected.startswith(answer.text) if limit else expected == answer.text
            if not right:
                self.wrong.append(f"request {number}, {edge}, {model}, stream {stream}: {answer.text!r} is not {expected!r}")
        self.outcomes["whole" if answer.whole else "left" if leaves else f"failed {answer.status}"] += 1

    def client(self, until):
        while (number := self.take(until)) is not None:
            try:
                self.one(number)
            except Exception as error:  # pylint: disable=broad-except
                self.outcomes[f"{type(error).__name__}"] += 1
                self.wrong.append(f"request {number}: {error!r}")
            finally:
                with self.lock:
                    self.on_way -= 1

    def run(self, until):
        clients = [threading.Thread(target=self.client, args=(until,)) for _ in range(CLIENTS)]
        for thread in clients:
            thread.start()
        return clients


# ---- Sums

def sums_are_equal(upstream, data):
    """Nobody was killed: equality."""
    ledger, billed = ledger_sums(data), billed_sums(upstream)
    for kind, row in billed.items():
        ours = ledger[kind]
        print(f"  {kind:10} ledger {ours['input_tokens']:>8} + {ours['output_tokens']:>7}   upstream {row['prompt']:>8} + {row['output']:>7}"
              f"   {row['requests']} requests, {row['untold']} without a word on their prompt")
        assert ours["output_tokens"] == row["output"], f"{kind}: output {ours['output_tokens']}, billed {row['output']}"
        more = ours["input_tokens"] - row["prompt"]
        if row["untold"]:
            assert 0 <= more <= row["untold_prompt"] + 30 * row["untold"], f"{kind}: prompts {ours['input_tokens']}, billed {row['prompt']}"
        else:
            assert more == 0, f"{kind}: prompts {ours['input_tokens']}, billed {row['prompt']}"
        check_cost(kind, ours)


def check_cost(kind, ours):
    price_in, price_out = PRICES[kind]
    cost = (ours["input_tokens"] * price_in + ours["output_tokens"] * price_out) / 1e6
    assert abs(ours["cost_usd"] - cost) < 1e-6, f"{kind}: {ours['cost_usd']} USD for tokens of {cost}"


def sums_bound(upstream, data, killed_on_way):
    """Stations were killed: counted <= billed + estimates, billed <= counted + what was on the wire."""
    ledger, billed = ledger_sums(data), billed_sums(upstream)
    counted = sum(row["output_tokens"] for row in ledger.values())
    sent = sum(row["output"] for row in billed.values())
    print(f"  output: ledger {counted}, upstream {sent}; {killed_on_way} requests were on their way when a station was killed")
    assert counted <= sent, f"counted {counted} of {sent}: more than was sent"
    assert sent <= counted + WIRE_TOKENS * killed_on_way, f"counted {counted} of {sent}: more is missing than was on the wire"


# ---- Checks

def without_kills(upstream):
    with tempfile.TemporaryDirectory() as data:
        upstream.reset()
        upstream.control("/__chaos", {"rate": 0.25, "seed": SEED, "faults": FAULTS})
        traffic = Traffic(upstream, data)
        with Station(money_configuration(upstream), data=data) as station:
            traffic.station = station
            for thread in traffic.run(REQUESTS):
                thread.join()
            wait_until_idle(upstream)
            different = differences(station, upstream)
        print(f"  {dict(traffic.outcomes)}")
        for each in different[:8]:
            print("  differs:", *each, sep="\n    ")
        assert not traffic.wrong, f"{len(traffic.wrong)} wrong, first: {traffic.wrong[:3]}"
        sums_are_equal(upstream, data)


def with_kills(upstream):
    with tempfile.TemporaryDirectory() as data:
        upstream.reset()
        upstream.control("/__chaos", {"rate": 0.1, "seed": SEED + 1, "faults": FAULTS})
        traffic = Traffic(upstream, data)
        killed_on_way = 0
        for kill in range(KILLS + 1):
            until = REQUESTS * (kill + 1) // (KILLS + 1)
            station = Station(money_configuration(upstream), data=data)
            traffic.station = station
            clients = traffic.run(until)
            if kill < KILLS:
                while traffic.next < until - CLIENTS // 2:
                    time.sleep(0.002)
                killed_on_way += traffic.on_way
                station.signal(signal.SIGKILL)
                station.wait()
            for thread in clients:
                thread.join()
            if kill == KILLS:
                station.signal()
                assert station.wait() == 0, station.log()
            station.discard()
            wait_until_idle(upstream)
        wrong = [text for text in traffic.wrong if "refused" not in text]
        assert not wrong, f"{len(wrong)} wrong, first: {wrong[:3]}"
        sums_bound(upstream, data, killed_on_way)


STREAMS = 16
HEEDED, RUNAWAY, RUSH = "slow-2", "slow-2-fault-runaway", "slow-2-fault-rush"


def spend_a_month(upstream, kind, name, max_tokens):
    """Sixteen long streams at once against a month's budget that pays for a part of them, on every edge: the limit, what was
    billed, what the ledger says, what was let through to the clients, in USD; streams that began; and one request more."""
    upstream.reset()
    price_in, price_out = (price / 1e6 for price in PRICES[kind])
    limit = 0.4 * STREAMS * 50 * price_out
    budgets = f"budgets: {{premium_usd_month: {limit:.9f}}}\n"
    config = configuration([model_line("m", kind, kind, name)], [provider_line(kind, kind, upstream)], budgets)
    with tempfile.TemporaryDirectory() as data:
        with Station(config, data=data) as station:
            def one(number):
                return edges.ask(station.port, ("openai", "anthropic", "responses")[number % 3], "m",
                                 f"stream {number} of 9999 tokens", True, max_tokens=max_tokens, timeout=60)
            with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
                answers = list(pool.map(one, range(STREAMS)))
            last = edges.ask(station.port, "openai", "m", "one more", False)
            wait_until_idle(upstream)
        ledger = ledger_sums(data)["m"]["cost_usd"]
    requests = upstream.meter()["requests"]
    prompts = sum(entry["prompt"] for entry in requests) * price_in
    billed = prompts + sum(entry["output"] for entry in requests) * price_out
    through = prompts + (sum(answer.deltas for answer in answers) + (edges.output_tokens(last) or 0)) * price_out
    return limit, billed, ledger, through, sum(answer.status == 200 for answer in answers), last


def budgets_hold(upstream):
    """A provider that heeds max_tokens passes no limit. One that does not passes it by its token that the station stops at,
    and by what is on the wire then: a delta, where it waits until the last was read, and in a rush as many as it likes, which
    are counted. No token is let through then that the budget does not pay for, but the ones that the station stops at."""
    for kind, max_tokens, name in itertools.product(APIS, (None, 50), (HEEDED, RUNAWAY, RUSH)):
        limit, billed, ledger, through, began, last = spend_a_month(upstream, kind, name, max_tokens)
        token = PRICES[kind][1] / 1e6
        print(f"  {kind:10} {name:20} at most {max_tokens} tokens: limit {limit:.6f}, ledger {ledger:.6f}, billed {billed:.6f}, let through "
              f"{through:.6f} USD; {began} of {STREAMS} streams began")
        over = {HEEDED: 0, RUNAWAY: 2 * began * token, RUSH: billed}[name]
        assert billed <= limit + over + 1e-9, f"{kind}, {name}: {billed} USD were billed, {limit} allowed"
        assert through <= limit + began * token + 1e-9, f"{kind}, {name}: {through} USD were let through, {limit} allowed"
        assert ledger >= billed - 1e-9, f"{kind}, {name}: {billed} USD were billed, {ledger} counted"
        assert billed > 0.5 * limit, f"{kind}, {name}: only {billed} of {limit} USD could be used"
        if not max_tokens:
            assert last.status == 429 and "budget" in last.error["message"], f"{kind}: {last}"


CLUMP = 30  # tokens in a delta, where deltas hold many


def one_model(upstream, kind, name, limit=None):
    budgets = f"budgets: {{premium_usd_month: {limit:.9f}}}\n" if limit is not None else ""
    return configuration([model_line("m", kind, kind, name)], [provider_line(kind, kind, upstream)], budgets)


def ask_once(upstream, kind, name, prompt, max_tokens, limit=None):
    """The answer, what the upstream billed for it, and the ledger's row."""
    upstream.reset()
    with tempfile.TemporaryDirectory() as data:
        with Station(one_model(upstream, kind, name, limit), data=data) as station:
            answer = edges.ask(station.port, "openai", "m", prompt, True, max_tokens=max_tokens)
            wait_until_idle(upstream)
        entry, row = upstream.meter()["requests"][-1], ledger_sums(data)["m"]
    check_cost(kind, row)
    return answer, entry, row


def estimated(tokens):
    return sum(-(-len("".join(tokens[at:at + CLUMP]).encode()) // 4) for at in range(0, len(tokens), CLUMP))


def estimates_do_not_cut(upstream):
    """90 tokens of at most 100, which look like more: whole while there is room, cut where there is none."""
    prompt = "a clumsy one of 90 tokens"
    text, guess = reply_text(prompt), estimated(reply_tokens(prompt))
    assert 100 < guess < 150, f"{guess}: this tests nothing"
    for kind in APIS:
        price_out = PRICES[kind][1] / 1e6
        answer, entry, row = ask_once(upstream, kind, f"clump-{CLUMP}", prompt, 100)
        assert answer.whole and answer.text == text and answer.finish == "stop", f"{kind}: {answer}"
        assert row["output_tokens"] == entry["output"] == 90, f"{kind}: {row}, billed {entry}"
        spent = row["cost_usd"]
        answer, entry, row = ask_once(upstream, kind, f"clump-{CLUMP}", prompt, 100, spent + 100 * price_out)
        assert answer.whole and answer.text == text, f"{kind}, a budget that just has room: {answer}"
        limit = spent - 30 * price_out  # the prompt and 60 tokens; the prompt's own estimate is dearer
        for name in (f"clump-{CLUMP}", f"slow-20-clump-{CLUMP}-fault-runaway"):
            answer, entry, row = ask_once(upstream, kind, name, prompt, 100, limit)
            assert answer.whole and answer.finish == "length", f"{kind}: {answer}"
            billed = (entry["prompt"] * PRICES[kind][0] + entry["output"] * PRICES[kind][1]) / 1e6
            heeds = entry["fault"] == "ok"
            assert text.startswith(answer.text) or not heeds, f"{kind}: {answer}"
            over = 0 if heeds else CLUMP * price_out
            assert limit - CLUMP * price_out <= billed <= limit + over, f"{kind}: billed {billed}, allowed {limit}"
        print(f"  {kind:10} 90 tokens that look like {guess}: whole; with {limit:.6f} USD: {entry['output']}, billed {billed:.6f}")


def nobody_runs_away(upstream):
    """A provider that heeds no max_tokens is stopped in time, also where there is money enough."""
    for kind in APIS:
        answer, entry, row = ask_once(upstream, kind, f"slow-20-clump-{CLUMP}-fault-runaway", "the endless one", 100)
        most = 100 if kind == "gemini" else 100 * 1.5 + 32  # Gemini's running sums are exact
        print(f"  {kind:10} {entry['output']} tokens of at most 100 were billed, {row['output_tokens']} counted")
        assert answer.whole and answer.finish == "length", f"{kind}: {answer}"
        assert 60 < entry["output"] <= most + 2 * CLUMP, f"{kind}: {entry}"
        assert kind != "gemini" or row["output_tokens"] == entry["output"], f"{kind}: {row}, billed {entry}"


def a_placeholder_is_not_billed(upstream):
    """Anthropic says "output_tokens: 1" before there is any: who leaves then has been billed for the prompt alone."""
    upstream.reset()
    with tempfile.TemporaryDirectory() as data:
        with Station(one_model(upstream, "anthropic", "fault-stall-0"), data=data) as station:
            answer = edges.ask(station.port, "openai", "m", "nobody waits for this", True, timeout=0.7)
            assert not answer.whole
            wait_until_idle(upstream)
        (entry,), row = upstream.meter()["requests"], ledger_sums(data)["m"]
    assert entry["prompt"] and not entry["output"], entry
    assert (row["input_tokens"], row["output_tokens"]) == (entry["prompt"], 0), (row, entry)


def main():
    runner = Runner("money")
    with Upstream() as upstream:
        for check in (without_kills, with_kills, budgets_hold, estimates_do_not_cut, nobody_runs_away,
                      a_placeholder_is_not_billed):
            print(f"{check.__name__}:", flush=True)
            runner.run(check.__name__, lambda: check(upstream))
    runner.finish()


if __name__ == "__main__":
    main()
