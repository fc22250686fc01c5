#!/usr/bin/env python3
"""What a station costs: the scenario that comes along, and one whose tokens and premium costs a real station's ledger has; every
amount is reckoned again here from the printed arithmetic."""
import json
import os
import re
import subprocess
import tempfile

from station import PHAROS, Runner, Station
from upstream import Upstream

runner = Runner("tco")


def tco(*arguments, text=None):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "scenario.yaml")
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        done = subprocess.run([PHAROS, "cost", "tco", *([path] if text is not None else []), *arguments], capture_output=True,
                              text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr


def reckoned(arithmetic):
    """The value of "(470 W x 8 h + 100 W x 16 h) x 30.4375 days / 1000 x 0.12 USD/kWh"."""
    bare = re.sub(r"USD/kWh|USD/h|[A-Za-z]+", " ", re.sub(r"\bx\b", "*", arithmetic))
    return eval(bare, {"__builtins__": {}})  # of our own program's digits and signs


EXAMPLE = tco("--example")[1]


def every_line_is_its_arithmetic():
    code, out, err = tco("--json", text=EXAMPLE)
    assert code == 0, err
    found = json.loads(out)
    lines = found["lines"] + found["compared"]
    assert len(lines) == 11
    for line in lines:
        assert abs(reckoned(line["arithmetic"]) - line["usd_month"]) < 0.01 * max(1, abs(line["usd_month"])) ** 0.5, line
    assert abs(sum(line["usd_month"] for line in found["lines"]) - found["total_usd_month"]) < 1e-6
    tokens = found["input_tokens_month"] + found["output_tokens_month"]
    assert abs(found["usd_per_mtok"] - found["total_usd_month"] / tokens * 1e6) < 1e-6


def a_person_reads_all_of_it():
    code, out, _ = tco(text=EXAMPLE)
    assert code == 0
    for part in ("total", "running", "a million tokens", "Assumed", "gpt-4o", "2025-06", "kWh", "pays for itself"):
        assert part in out, (part, out)


def the_ledger_says_what_was_served():
    with tempfile.TemporaryDirectory() as data, Upstream() as upstream:
        config = f"""
listen: 127.0.0.1:0
models: [{{id: paid, tier: premium, provider: mine, upstream: m, price: {{input_usd_per_mtok: 1000, output_usd_per_mtok: 5000}}}}]
providers: {{mine: {{api: openai, base_url: "{upstream.base_url('openai')}", key: k}}}}
"""
        with Station(config, data=data) as station:
            for _ in range(3):
                reply = station.request("POST", "/v1/chat/completions", {"model": "paid", "messages": [{"role": "user", "content": "Hi"}]})
                assert reply.status == 200, reply.text
            usage = reply.json["usage"]
        text = "days_month: 30\nhardware: []\npower: {kwh_month: 1, usd_per_kwh: 1}\n"
        code, out, err = tco("--data", data, "--json", text=text)
        assert code == 0, err
        found = json.loads(out)
        assert found["input_tokens_month"] == 90 * usage["prompt_tokens"] and found["output_tokens_month"] == 90 * usage["completion_tokens"]
        paid = 3 * (usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 5000) / 1e6
        assert abs(found["total_usd_month"] - (1 + 30 * paid)) < 1e-6, (found, paid)
        assert found["contexts_month"] == 90


def mistakes_are_named():
    with tempfile.TemporaryDirectory() as data:
        for text, part in (("hardware: []\npower: {kwh_month: 1, usd_per_kwh: 1}\n", "how many tokens"),
                           (EXAMPLE.replace("compare: [", "compare: [no-such-price, "), "no-such-price"),
                           (EXAMPLE.replace("price_usd: 400, ", ""), "price_usd")):
            code, _, err = tco("--data", data, text=text)
            assert code == 1 and part in err and err.count("\n") == 1, (code, err)
    assert tco()[0] == 2 and tco("/nowhere.yaml")[0] == 1


runner.run("every line is its arithmetic", every_line_is_its_arithmetic)
runner.run("a person reads all of it", a_person_reads_all_of_it)
runner.run("the ledger says what was served", the_ledger_says_what_was_served)
runner.run("mistakes are named", mistakes_are_named)
runner.finish()
