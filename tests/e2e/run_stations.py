#!/usr/bin/env python3
"""Several stations on one PostgreSQL: what one was told the other knows at once, however hot the conversation is there; and a Redis
between them (`memory: {redis: ...}`) that is killed, stopped, flushed or full of other people's bytes changes no answer.

Needs PostgreSQL (postgres.py finds or fetches it), and for the second half redis-server (Debian's redis-tools).
"""
import os
import re
import signal
import socket
import sys
import threading
import time

import postgres
from run_cache import Redis, redis_program
from run_memory import Talker, configuration, user
from station import Runner, Station
from upstream import Upstream, reply_text

ROOM = {"context_budget_tokens": 1000000}


def station_of(upstream, server, redis=None, more=""):
    redis = f', redis: "redis://127.0.0.1:{redis}/0"' if redis else ""
    return Station(configuration(upstream, f'memory: {{store: "{server.url}"{redis}{more}}}'))


def counts(reply):
    """How many messages of the history were sent, and how many there are."""
    return tuple(int(n) for n in re.search(r"history=(\d+)/(\d+)", reply.headers["x-pharos-route"]).groups())


def texts(t):
    return [text for _, text in t.seen()]


class Pair:
    """Two stations on one database, and someone who talks to both."""

    def __init__(self, upstream, server, redis=None):
        self.stations = [station_of(upstream, server, redis) for _ in range(2)]
        self.a, self.b = (Talker(station, upstream) for station in self.stations)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for station in self.stations:
            station.__exit__(*failure)


def fill(t, conversation, count, begin=0):
    """So many messages at once, twenty a request; the texts."""
    said = [f"{conversation} item {begin + n}" for n in range(count)]
    if not begin:
        t.chat(conversation, user("begin"))
    for at in range(0, count, 20):
        items = [{"type": "message", "role": "user", "content": text} for text in said[at:at + 20]]
        added = t.send("POST", f"/v1/conversations/{conversation}/items", {"items": items})
        assert added.status == 200, added.text
    return said


def metric(station, name):
    return station.metrics()[f"pharos_memory_redis_{name}"]


def wait_for(condition, what, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds} s: {what}"
        time.sleep(0.02)


# ---- Two stations

def what_one_is_told_the_other_knows(upstream, server):
    with Pair(upstream, server) as pair:
        said = []
        for n in range(6):  # hot at both from the second turn on
            t = (pair.a, pair.b)[n % 2]
            reply = t.chat("both", user(f"turn {n}"), metadata=ROOM)
            assert counts(reply) == (2 * n, 2 * n) and texts(t) == said + [f"turn {n}"], (n, texts(t))
            said += [f"turn {n}", reply.json["choices"][0]["message"]["content"]]
        # a history that is edited at one is a branch at the other
        whole = [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(said[:4])]
        pair.a.chat("both", *whole, user("otherwise"), metadata=ROOM)
        pair.b.chat("both", user("and?"), metadata=ROOM)
        assert texts(pair.b) == said[:4] + ["otherwise", reply_text("otherwise"), "and?"], texts(pair.b)


def what_one_deletes_the_other_forgets(upstream, server):
    with Pair(upstream, server) as pair:
        for t in (pair.a, pair.b):
            t.chat("less", user("the secret word is zauber"))
        item = pair.a.items("less")["data"][0]["id"]
        assert pair.a.send("DELETE", f"/v1/conversations/less/items/{item}").status == 200
        pair.b.chat("less", user("what was it?"), metadata=ROOM)
        assert sum("zauber" in text for role, text in pair.b.seen() if role == "user") == 1, pair.b.seen()
        found = pair.b.send("POST", "/v1/context", {"conversation": "less", "query": "zauber secret word", "budget_tokens": 2000}).json["items"]
        assert item not in [one["id"] for one in found]
        assert pair.a.send("DELETE", "/v1/conversations/less").status == 200
        pair.b.chat("less", user("anew"), metadata=ROOM)
        assert texts(pair.b) == ["anew"], texts(pair.b)
        pair.a.chat("less", user("again"), metadata=ROOM)
        assert texts(pair.a) == ["anew", reply_text("anew"), "again"], texts(pair.a)


def responses_and_contexts_are_the_same_at_both(upstream, server):
    with Pair(upstream, server) as pair:
        first = pair.a.send("POST", "/v1/responses", {"model": "m", "input": "kept at one"}).json
        assert pair.b.send("GET", f"/v1/responses/{first['id']}").json == first
        second = pair.b.send("POST", "/v1/responses", {"model": "m", "input": "gone on at the other", "previous_response_id": first["id"]})
        assert second.status == 200 and texts(pair.b)[0] == "kept at one", texts(pair.b)
        named = pair.b.send("POST", "/v1/responses", {"model": "m", "input": [{"type": "item_reference", "id": first["output"][0]["id"]}, user("and?")]})
        assert named.status == 200 and texts(pair.b) == [first["output"][0]["content"][0]["text"], "and?"], texts(pair.b)
        for n, t in enumerate((pair.a, pair.b, pair.a)):  # the index of a user lags behind nobody
            t.chat("index", user(f"the boat number {n} is called vinterlyst{n}"))
            other = pair.b if t is pair.a else pair.a
            found = other.send("POST", "/v1/context", {"conversation": "index", "query": f"vinterlyst{n}", "budget_tokens": 200}).json["items"]
            assert any(f"vinterlyst{n}" in one["content"] for one in found), found


# ---- With a Redis

def one_loads_what_the_other_served(upstream, server):
    with Redis() as redis, Pair(upstream, server, redis.port) as pair:
        for station in pair.stations:
            wait_for(lambda station=station: metric(station, "up") == 1, "a connection")
        said = fill(pair.a, "shared", 300)
        pair.a.chat("shared", user("last at one"), metadata=ROOM)
        wait_for(lambda: metric(pair.stations[0], "stores_total") >= 1, "a value")
        reply = pair.b.chat("shared", user("first at the other"), metadata=ROOM)
        assert metric(pair.stations[1], "hits_total") == 1 and metric(pair.stations[1], "misses_total") == 0
        assert counts(reply) == (304, 304), reply.headers["x-pharos-route"]
        # what stands side by side of one speaker is as it was: nothing is joined where nothing was left out
        assert texts(pair.b)[2:302] == said, texts(pair.b)[:5]
        reply = pair.a.chat("shared", user("and back"), metadata=ROOM)
        assert counts(reply) == (306, 306) and texts(pair.a)[-2:] == [reply_text("first at the other"), "and back"]
        names = redis.call("KEYS", "*")
        assert names and all(name.startswith(b"pharos:talk:1:") for name in names), names
        assert all(0 < redis.call("TTL", name) <= 3600 for name in names)


def values_go_with_what_was_deleted(upstream, server):
    with Redis() as redis, Pair(upstream, server, redis.port) as pair:
        for station in pair.stations:
            wait_for(lambda station=station: metric(station, "up") == 1, "a connection")
        fill(pair.a, "shed", 60)
        pair.a.chat("shed", user("put it there"), metadata=ROOM)
        wait_for(lambda: metric(pair.stations[0], "stores_total") >= 1, "a value")
        item = pair.b.items("shed", "order=asc&limit=5")["data"][3]["id"]
        assert pair.b.send("DELETE", f"/v1/conversations/shed/items/{item}").status == 200
        wait_for(lambda: redis.call("KEYS", "*") == [], "the value is gone")
        reply = pair.b.chat("shed", user("how many?"), metadata=ROOM)
        assert counts(reply) == (63, 63) and "shed item 1" not in texts(pair.b), reply.headers["x-pharos-route"]


def other_bytes_are_no_conversation(upstream, server):
    with Redis() as redis, station_of(upstream, server, redis.port) as first:
        a = Talker(first, upstream)
        wait_for(lambda: metric(first, "up") == 1, "a connection")
        for name in ("mine", "yours"):
            fill(a, name, 40)
            a.chat(name, user("last"), metadata=ROOM)
        wait_for(lambda: metric(first, "stores_total") >= 2, "two values")
        names = redis.call("KEYS", "*")
        values = [redis.call("GET", name) for name in names]
        assert len(values) == 2
        wrong = [values[::-1], [value[:-1] for value in values], [value[:100] + b"?" + value[101:] for value in values],
                 [b"nonsense"] * 2, [b"\0" * 70000] * 2]
        for turn, bad in enumerate(wrong):
            for name, value in zip(names, bad):
                redis.call("SET", name, value)
            with station_of(upstream, server, redis.port) as second:
                b = Talker(second, upstream)
                wait_for(lambda second=second: metric(second, "up") == 1, "a connection")
                for name in ("mine", "yours"):
                    reply = b.chat(name, user(f"turn {turn}"), metadata=ROOM)
                    assert counts(reply)[0] == 44 + 2 * turn and all(name in text for text in texts(b)[2:42]), (turn, texts(b)[:4])
                assert metric(second, "refused_total") == 2 and metric(second, "hits_total") == 0
        redis.call("FLUSHALL")
        with station_of(upstream, server, redis.port) as second:
            reply = Talker(second, upstream).chat("mine", user("flushed"), metadata=ROOM)
            assert counts(reply)[0] == 44 + 2 * len(wrong)


class Load:
    """Conversations that go on at whichever station, one client each; each turn must have seen all before it."""

    def __init__(self, stations, upstream, clients=4):
        self.stations, self.upstream, self.ends = stations, upstream, False
        self.turns, self.slowest, self.problems = 0, 0.0, []
        self.threads = [threading.Thread(target=self.talk, args=(n,)) for n in range(clients)]

    def talk(self, client):
        name, known = f"load {client} {time.time()}", 0
        while not self.ends:
            t = Talker(self.stations[(known // 2 + client) % len(self.stations)], self.upstream)
            begin = time.monotonic()
            try:
                reply = t.chat(name, user(f"turn {known}"), metadata=ROOM)
                if counts(reply) != (known, known):
                    self.problems.append(f"{name}: {known} messages are there, {reply.headers['x-pharos-route']}")
                    return
            except Exception as problem:  # an error is one, whatever it is
                self.problems.append(f"{name}: {problem!r}")
                return
            self.slowest = max(self.slowest, time.monotonic() - begin)
            known += 2
            self.turns += 1

    def pass_by(self, turns):
        wanted = self.turns + turns
        wait_for(lambda: self.turns >= wanted or self.problems, f"{turns} turns", 120)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self.ends = True
        for thread in self.threads:
            thread.join()
        assert kind or not self.problems, self.problems[:3]


def restarted(stations, index, upstream, server, port):
    """A station in the place of one: what is hot there is not in its memory."""
    old, stations[index] = stations[index], station_of(upstream, server, port)
    return old


def it_may_be_killed_under_load(upstream, server):
    with Redis() as redis:
        stations = [station_of(upstream, server, redis.port) for _ in range(2)]
        retired = []
        try:
            with Load(stations, upstream) as load:
                for round_ in range(3):
                    load.pass_by(60)
                    redis.kill()
                    load.pass_by(20)
                    retired.append(restarted(stations, round_ % 2, upstream, server, redis.port))
                    load.pass_by(20)
                    redis.start()
                    wait_for(lambda: all(metric(station, "up") for station in stations), "connections", 30)
                    load.pass_by(20)
                    retired.append(restarted(stations, round_ % 2, upstream, server, redis.port))
                redis.process.send_signal(signal.SIGSTOP)
                load.pass_by(60)
                retired.append(restarted(stations, 0, upstream, server, redis.port))
                load.pass_by(20)
                redis.process.send_signal(signal.SIGCONT)
                load.pass_by(20)
            print(f"stations: {load.turns} turns while Redis was killed three times and stopped once, {len(retired)} stations begun anew; "
                  f"the slowest turn took {load.slowest:.2f} s; {sum(metric(s, 'hits_total') for s in retired + stations):.0f} "
                  "conversations came from it", flush=True)
        finally:
            for station in retired + stations:
                station.__exit__(*sys.exc_info())


def one_that_takes_and_never_answers(upstream, server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        with station_of(upstream, server, listener.getsockname()[1]) as station:
            t = Talker(station, upstream)
            fill(t, "deaf", 40)
            for n in range(10):
                assert counts(t.chat("deaf", user(f"turn {n}"), metadata=ROOM))[0] == 42 + 2 * n
            assert metric(station, "up") == 0


def main():
    runner = Runner("stations")
    only = sys.argv[1:]
    alone = (what_one_is_told_the_other_knows, what_one_deletes_the_other_forgets, responses_and_contexts_are_the_same_at_both)
    shared = (one_loads_what_the_other_served, values_go_with_what_was_deleted, other_bytes_are_no_conversation, it_may_be_killed_under_load,
              one_that_takes_and_never_answers)
    if not redis_program():
        print("SKIP: conversations that stations share: redis-server (Debian: redis-tools) is not here", flush=True)
        shared = ()
    try:
        with postgres.Server() as server, Upstream() as upstream:
            for check in (*alone, *shared):
                if not only or check.__name__ in only:
                    runner.run(check.__name__.replace("_", " "), lambda check=check: check(upstream, server))
    except postgres.Missing as why:
        print(f"SKIP: stations on one PostgreSQL: {why}", flush=True)
        return
    runner.finish()


if __name__ == "__main__":
    main()
