#!/usr/bin/env python3
"""The fault matrix: every provider's kind, every fault, streamed and whole, asked in OpenAI's and in Anthropic's dialect.

With a healthy second provider behind it every request must end as if nothing had happened, with the right text. Alone, the
client must get an error of its dialect: never the provider's own 401, never an end that looks like one. Each cell has an
account of its own, so that no cell sees what another did to a key or a breaker. The last table counts the cells.

FAULTS, KINDS: some of them, by name.
"""
import collections
import concurrent.futures
import itertools
import os
import socket
import sys
import time

import edges
from behind import configuration, model_line, provider_line
from station import Runner, Station
from upstream import Upstream, reply_text

KINDS = os.environ.get("KINDS", "openai together anthropic gemini").split()
HEALTHY = {"openai": "anthropic", "together": "anthropic", "anthropic": "together", "gemini": "together"}  # go on from a beginning
EDGES = ("openai", "anthropic")
PREFIX = "capabilities: [tools, images, prefix, json]"
# fault: how the station may put it, alone. Statuses; a set of one where there is only one right answer.
NETWORK, LATE, BROKEN, KEY, RATE = {502, 503}, {504}, {502}, {502}, {429}
FAULTS = {
    "refused": NETWORK, "dns": NETWORK, "tls": NETWORK, "reset": NETWORK,
    "hang": LATE, "stall-3": LATE,
    "401": KEY, "402": KEY, "403": KEY, "429-retry": RATE, "429": RATE, "quota": {429, 502},
    "500": BROKEN, "overloaded": {502, 503, 529}, "502-html": BROKEN,
    "half-json-3": BROKEN, "cut-3": BROKEN, "error-3": BROKEN | {503, 529}, "no-finish-3": BROKEN,
    "wrong-type": BROKEN, "200-error": BROKEN | {503, 529}, "empty": BROKEN, "endless": BROKEN,
}
CHOSEN = os.environ.get("FAULTS", " ".join(FAULTS)).split()
SPOKEN = {"stall-3", "half-json-3", "cut-3", "error-3", "no-finish-3"}  # in a stream, something has been said before
SECRET = "sk-secret"
TIME_OUTS = "connect_timeout_s: 1, timeout_s: 1, silence_timeout_s: 1"

Cell = collections.namedtuple("Cell", "kind fault edge stream backed")


BOUND = socket.socket()  # not listening: whoever connects is refused, and nobody else can take its port
BOUND.bind(("127.0.0.1", 0))


class Matrix:
    def __init__(self, upstream, runner):
        self.upstream, self.runner, self.closed = upstream, runner, BOUND.getsockname()[1]
        self.table = collections.defaultdict(collections.Counter)

    def url(self, fault):
        return {"refused": f"http://127.0.0.1:{self.closed}", "dns": "http://no-such-host.invalid",
                "tls": f"https://127.0.0.1:{self.upstream.wrong_tls_port}"}.get(fault, self.upstream.url)

    def name(self, cell):
        return f"{cell.fault}-{'s' if cell.stream else 'w'}"

    def configure(self, cells):
        """One account, one model and one route a cell, and the healthy provider."""
        kind = cells[0].kind
        healthy = HEALTHY[kind]
        models = [model_line("healthy", "healthy", healthy, "healthy-upstream", more=PREFIX)]
        providers = [provider_line("healthy", healthy, self.upstream).replace("silence_timeout_s: 2", "silence_timeout_s: 10")]
        routes = []
        for cell in cells:
            name = self.name(cell)
            models.append(model_line(f"m-{name}", f"p-{name}", kind, f"fault-{cell.fault}"))
            line = provider_line(f"p-{name}", kind, self.upstream, key=SECRET, url=self.url(cell.fault))
            providers.append(line.replace("connect_timeout_s: 2, timeout_s: 5, silence_timeout_s: 2", TIME_OUTS))
            order = f"[m-{name}, healthy]" if cell.backed else f"[m-{name}]"
            routes.append(f"  - {{model: r-{name}, policy: fallback, order: {order}}}\n")
        return configuration(models, providers, "routes:\n" + "".join(routes))

    def run_station(self, cells):
        with Station(self.configure(cells)) as station:
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(lambda cell: self.ask(station, cell), cells))
        for cell, answer in zip(cells, answers):
            before = self.runner.failed
            self.runner.run(" ".join(map(str, cell)), lambda: self.judge(cell, answer))
            column = f"{'with a second' if cell.backed else 'alone'}, {'streamed' if cell.stream else 'whole'}"
            self.table[cell.fault][column, self.runner.failed == before] += 1

    def prompt(self, cell):
        return f"{cell.kind} {self.name(cell)} {cell.edge}"

    def ask(self, station, cell):
        return edges.ask(station.port, cell.edge, f"r-{self.name(cell)}", self.prompt(cell), cell.stream, timeout=20)

    def judge(self, cell, answer):
        expected = reply_text(self.prompt(cell))
        seen = f"{answer} {getattr(answer, 'problem', '')}"
        if cell.backed:
            assert answer.whole, seen
            assert answer.text == expected, f"{answer.text!r} is not {expected!r}"
            return
        assert not answer.whole, f"it seems whole: {seen}"
        if cell.stream and cell.fault in SPOKEN:
            assert answer.status == 200 and answer.text, seen
            assert expected.startswith(answer.text), f"{answer.text!r} does not begin {expected!r}"
            assert not answer.said_end and not answer.clean, f"its end looks like one: {seen}"
        else:
            assert answer.status in FAULTS[cell.fault], f"status should be in {FAULTS[cell.fault]}: {seen}"
            assert not answer.text, seen
        self.judge_error(cell, answer, seen)

    def judge_error(self, cell, answer, seen):
        error = answer.error
        assert error and len(error["message"]) > 10, f"no error: {seen}"
        assert SECRET not in str(error) and SECRET not in str(answer.headers), "the key leaks"
        assert "<html" not in error["message"], "a page of HTML in a message"
        if cell.edge == "openai":
            assert set(error) == {"message", "type", "param", "code"}, error
        else:
            assert set(error) >= {"type", "message"}, error
        if answer.status == 429:
            assert error["type"] in ("rate_limit_error", "insufficient_quota"), error
        elif answer.status != 200:
            assert error["type"] in ("server_error", "api_error", "overloaded_error", "timeout_error"), error
        if cell.fault == "429-retry":
            assert int(answer.headers["retry-after"]) >= 1, answer.headers


def report(table):
    columns = [f"{backed}, {how}" for backed in ("with a second", "alone") for how in ("streamed", "whole")]
    print(f"{'fault':14}" + "".join(f"{column:>25}" for column in columns))
    for fault, row in table.items():
        cells = [f"{row[column, True]} of {row[column, True] + row[column, False]}" for column in columns]
        print(f"{fault:14}" + "".join(f"{cell:>25}" for cell in cells))
    right = sum(count for row in table.values() for (_, passed), count in row.items() if passed)
    print(f"{right} of {sum(sum(row.values()) for row in table.values())} cells hold")


def main():
    runner, start = Runner("faults"), time.monotonic()
    with Upstream("--tls") as upstream:
        matrix = Matrix(upstream, runner)
        for kind, edge, backed in itertools.product(KINDS, EDGES, (True, False)):
            matrix.run_station([Cell(kind, fault, edge, stream, backed) for fault in CHOSEN for stream in (True, False)])
    report(matrix.table)
    print(f"{time.monotonic() - start:.0f} s")
    runner.finish()


if __name__ == "__main__":
    sys.exit(main())
