#!/usr/bin/env python3
"""Stations that share a Redis behind their response caches: what one learnt the other says, and a Redis that is gone, stopped,
killed or full of other people's bytes makes a station slower and nothing else.

Needs redis-server; Debian's redis-tools has the program (under another name) without a service.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import edges
from behind import APIS, configuration, model_line, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text

runner = Runner("cache")
SECRET = "correct-horse%25battery"
TOOL = {"type": "object", "properties": {"place": {"type": "string"}}}
TOOLS = {"openai": [{"type": "function", "function": {"name": "look", "parameters": TOOL}}],
         "anthropic": [{"name": "look", "input_schema": TOOL}],
         "responses": [{"type": "function", "name": "look", "parameters": TOOL}]}


def redis_program():
    """The program and the name it goes by: it chooses its role by that."""
    for name in ("redis-server", "redis-check-rdb"):
        path = shutil.which(name)
        if path and b"Redis server" in subprocess.run(["redis-server", "--version"], executable=path, capture_output=True, check=False).stdout:
            return path
    return None


class Redis:
    def __init__(self, *arguments, port=None):
        self.arguments, self.dir = arguments, tempfile.TemporaryDirectory()
        self.port = port or free_port()
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.dir.name,
             "--logfile", os.path.join(self.dir.name, "log"), *self.arguments], executable=redis_program(), stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.02)

    def call(self, *words):
        """One command; nested lists, bytes, numbers and None as Redis has them."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
            return self.reply(connection.makefile("rb"))

    def reply(self, file):
        kind, rest = (line := file.readline())[:1], line[1:].strip()
        if kind == b"*":
            return [self.reply(file) for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
        return int(rest) if kind == b":" else rest

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.dir.cleanup()


def free_port():
    """One that stays free while nobody listens there: below those that the kernel gives to whoever asks for any."""
    while True:
        port = random.randrange(12000, 30000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def station_config(upstream, port, more="", cache_more=""):
    models = [model_line(kind, kind, kind, f"{kind}-up") for kind in APIS] + [model_line("slow", "openai", "openai", "slow-20")]
    providers = [provider_line(kind, kind, upstream) for kind in APIS]
    return configuration(models, providers, f"cache: {{max_mb: 16, ttl_s: 600, redis: \"redis://{more}127.0.0.1:{port}/3\"{cache_more}}}\n")


@contextlib.contextmanager
def station_with(upstream, port, up=True, data=None, **more):
    with Station(station_config(upstream, port, **more), ready=data is None, data=data) as station:
        if up:
            wait_up(station)
        yield station


def metric(station, name, key=None):
    text = station.request("GET", "/metrics", headers={"authorization": f"Bearer {key}"} if key else None).text
    match = re.search(rf"^pharos_cache_{name} (\S+)$", text, re.M)
    assert match, f"no {name} in {text[-2000:]}"
    return float(match.group(1))


def wait_for(condition, what, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def wait_up(station, up=1):
    wait_for(lambda: metric(station, "redis_up") == up, f"redis_up is not {up}: {station.log()}")


def is_hit(answer):
    return answer.headers.get("x-pharos-cache") == "hit"


class Late(AssertionError):
    """No hit, and the station says that Redis was late: on a busy machine 50 ms pass without anybody's fault."""


def right(station, prompt, stream=False, edge="openai", model="openai", hit=None, **more):
    answer = edges.ask(station.port, edge, model, prompt, stream, **more)
    assert answer.whole and answer.text == reply_text(prompt), f"{edge}: {answer}"
    if hit and not is_hit(answer):
        was_late(station, more.get("key"))
    assert hit is None or is_hit(answer) == hit, f"{edge}, {'stream' if stream else 'whole'}: {'no hit' if hit else 'a hit'}"
    return answer


def was_late(station, key=None):
    if metric(station, "redis_late_total", key) + metric(station, "redis_skipped_total", key):
        raise Late(station.log())


def patiently(check, upstream):
    for _ in range(5):
        try:
            return check(upstream)
        except Late as late:
            problem = late
    raise problem


def stored(redis, count):
    """Values are sent behind the reply."""
    wait_for(lambda: redis.call("DBSIZE") is not None and keys_of(redis) >= count, f"not {count} values in Redis")


def keys_of(redis):
    match = re.search(rb"db3:keys=(\d+)", redis.call("INFO", "keyspace"))
    return int(match.group(1)) if match else 0


# ---- What is shared

def plain(reply):
    """A reply without what is new in each: ids, times."""
    text = re.sub(r"\b(chatcmpl-|msg_|resp_|rs_|fc_|ctc_|item_)[A-Za-z0-9_]+", r"\1ID", reply.text)
    return re.sub(r'"(created|created_at|completed_at)": ?[0-9.]+', r'"\1":0', text)


def the_other_station_says_the_same(upstream):
    with Redis() as redis, station_with(upstream, redis.port) as one, station_with(upstream, redis.port) as two:
        for edge, path in edges.PATHS.items():
            for stream in (False, True):
                for what, more in (("words", {}), ("tools", {"tools": TOOLS[edge]})):
                    prompt = f"{what} for {edge} {stream}: use two tools, 25 tokens"
                    body = edges.body_of(edge, "openai", prompt, stream, **more)
                    before = keys_of(redis)
                    first = one.request("POST", path, body)
                    stored(redis, before + 1)
                    second = two.request("POST", path, body)
                    assert first.status == second.status == 200, (first.text, second.text)
                    if "x-pharos-cache" not in second.headers:
                        was_late(two)
                    assert "x-pharos-cache" not in first.headers and second.headers.get("x-pharos-cache") == "hit", (edge, stream, what)
                    assert plain(first) == plain(second), f"{first.text}\n{second.text}"
                    assert ("look" in first.text) == (what == "tools"), first.text
        assert metric(two, "redis_hits_total") == metric(two, "hits_total") == 12 and metric(one, "redis_stores_total") == 12


def streams_and_whole_replies_serve_each_other(upstream):
    with Redis() as redis, station_with(upstream, redis.port) as one, station_with(upstream, redis.port) as two:
        for edge in edges.PATHS:
            for stream in (False, True):
                prompt, before = f"turn {edge} {stream}: 30 tokens", keys_of(redis)
                first = right(one, prompt, stream, edge, hit=False)
                stored(redis, before + 1)
                other = right(two, prompt, not stream, edge, hit=True)
                assert edges.output_tokens(other) == edges.output_tokens(first) == 30, (first.usage, other.usage)
                right(two, prompt, stream, edge, hit=True)  # by now from its own memory
        assert metric(two, "redis_hits_total") == 6 and metric(two, "hits_total") == 12
        record = two.request("GET", f"/v1/routes/{other.headers['x-request-id']}").json
        assert record["cache"] == "redis" and record["cached"] is True, record


def a_station_that_restarts_remembers(upstream):
    with Redis() as redis:
        with station_with(upstream, redis.port) as station:
            right(station, "remember me", hit=False)
            stored(redis, 1)
        name, = redis_keys(redis)
        assert name.startswith(b"pharos:answer:1:") and 0 < ttl(redis, name) <= 600
        upstream.reset()
        with station_with(upstream, redis.port) as station:
            right(station, "remember me", True, hit=True)
            assert right(station, "remember me", hit=True).headers["x-pharos-route"].endswith("policy=cache")
        assert not upstream.meter()["requests"]


def in_database(redis, *words):
    with socket.create_connection(("127.0.0.1", redis.port), 10) as connection:
        file = connection.makefile("rb")
        for command in (("SELECT", "3"), words):
            command = [word if isinstance(word, bytes) else str(word).encode() for word in command]
            connection.sendall(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command))
            reply = redis.reply(file)
        return reply


def redis_keys(redis):
    return in_database(redis, "KEYS", "*")


def ttl(redis, name):
    return in_database(redis, "TTL", name)


def answers_belong_to_their_key(upstream):
    with Redis() as redis, tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two, tempfile.TemporaryDirectory() as three:
        keys = [json.loads(subprocess.run([PHAROS, "keys", "create", "--name", name, "--data", one, "--json"], check=True,
                                          capture_output=True, text=True).stdout)["key"] for name in "ab"]
        stranger = json.loads(subprocess.run([PHAROS, "keys", "create", "--name", "a", "--data", three, "--json"], check=True,
                                             capture_output=True, text=True).stdout)["key"]
        shutil.copy(os.path.join(one, "keys.jsonl"), two)
        with station_with(upstream, redis.port, up=False, data=one) as first, station_with(upstream, redis.port, up=False, data=two) as second, \
                station_with(upstream, redis.port, up=False, data=three) as third:
            for station, key in ((first, keys[0]), (second, keys[0]), (third, stranger)):
                wait_for(lambda: metric(station, "redis_up", key) == 1, "no Redis")
            right(first, "mine", key=keys[0], hit=False)
            stored(redis, 1)
            right(second, "mine", True, key=keys[0], hit=True)   # the same key, at another station
            right(second, "mine", key=keys[1], hit=False)        # another key
            right(third, "mine", key=stranger, hit=False)        # another station's key of the same name


def other_bytes_are_no_answer(upstream):
    """Cut, damaged, foreign, old, endless: each is a miss, and the next answer takes its place."""
    with Redis() as redis, station_with(upstream, redis.port) as teller:
        right(teller, "mine alone: 30 tokens", hit=False)
        stored(redis, 1)
        mine, = redis_keys(redis)
        right(teller, "another: 30 tokens", hit=False)
        stored(redis, 2)
        other, = set(redis_keys(redis)) - {mine}
        good, foreign = in_database(redis, "GET", mine), in_database(redis, "GET", other)
        values = [b"", b"x", b"PhA1", foreign, good[:-1], good + b"\0", good[:40] + bytes([good[40] ^ 1]) + good[41:], os.urandom(5000),
                  b"PhA1" + bytes(26), b"y" * 9_000_000]
        for value in values:
            with station_with(upstream, redis.port) as station:
                for name in (mine, other):
                    in_database(redis, "SET", name, value if value is not foreign or name == mine else good)
                right(station, "mine alone: 30 tokens", True, hit=False)
                right(station, "another: 30 tokens", hit=False)
                wait_for(lambda: ttl(redis, mine) > 0 and ttl(redis, other) > 0, "the right answers do not take their place")
        in_database(redis, "DEL", mine)
        in_database(redis, "LPUSH", mine, "a list")
        with station_with(upstream, redis.port) as station:
            right(station, "mine alone: 30 tokens", hit=False)
            assert metric(station, "redis_errors_total") >= 1
            assert "WRONGTYPE" in station.log()


# ---- What goes wrong with it

class Load:
    """Clients that ask without end, some questions again and again; every answer is checked."""

    def __init__(self, station, clients=6):
        self.station, self.problems, self.count, self.ends = station, [], 0, False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(clients)]

    def ask(self, number):
        turn = 0
        while not self.ends:
            turn += 1
            prompt = f"load {turn % 7 if turn % 3 else f'{number}-{turn}'}: 20 tokens"
            edge = list(edges.PATHS)[turn % 3]
            answer = edges.ask(self.station.port, edge, "openai", prompt, turn % 2 == 0)
            with self.lock:
                self.count += 1
                if not answer.whole or answer.text != reply_text(prompt):
                    self.problems.append(repr(answer))

    def pass_by(self, requests, seconds=30):
        """Until so many more requests were answered."""
        goal = self.count + requests
        wait_for(lambda: self.count >= goal, f"only {self.count} of {goal} answers", seconds)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.ends = True
        for thread in self.threads:
            thread.join()
        assert kind or not self.problems, f"{len(self.problems)} of {self.count}: {self.problems[:3]}"


def it_may_be_killed_under_load(upstream):
    with Redis() as redis, station_with(upstream, redis.port) as station:
        with Load(station) as load:
            for _ in range(3):
                load.pass_by(60)
                redis.kill()
                load.pass_by(60)
                redis.start()
                wait_up(station)
        assert metric(station, "redis_connects_total") >= 4 and metric(station, "redis_failures_total") >= 3
        assert station.log().count("not to be had") == 1, station.log()


def it_may_stop_and_go_on_under_load(upstream):
    with Redis() as redis, station_with(upstream, redis.port) as station:
        with Load(station) as load:
            load.pass_by(60)
            before = metric(station, "redis_late_total")
            redis.process.send_signal(signal.SIGSTOP)
            load.pass_by(300)
            late, skipped = metric(station, "redis_late_total") - before, metric(station, "redis_skipped_total")
            redis.process.send_signal(signal.SIGCONT)
            load.pass_by(60)
            wait_up(station)
        assert late <= 12 and skipped >= 100, f"{late} waited, {skipped} did not"  # about one a client
        right(station, "at peace", hit=False)
        stored(redis, 1)


def one_that_takes_and_never_answers(upstream):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        with station_with(upstream, listener.getsockname()[1], up=False) as station:
            start = time.monotonic()
            for i in range(40):
                right(station, f"wedged {i}", bool(i % 2), hit=False)
            assert time.monotonic() - start < 5 and metric(station, "redis_up") == 0
            right(station, "wedged 1", hit=True)  # its own memory


def one_that_comes_later_is_used(upstream):
    port = free_port()
    with station_with(upstream, port, up=False) as station:
        right(station, "before", hit=False)
        with Redis(port=port) as redis:
            wait_up(station)
            right(station, "after", hit=False)
            stored(redis, 1)
        assert f"127.0.0.1:{port} is not to be had" in station.log()


def leaving_and_stopping_while_it_is_asked(upstream):
    """Clients go, and the station is told to stop, while requests wait for a Redis that has been stopped."""
    with Redis() as redis, station_with(upstream, redis.port) as station:
        upstream.reset()
        for turn in range(5):
            wait_up(station)
            redis.process.send_signal(signal.SIGSTOP)
            for i in range(8):
                with socket.create_connection(("127.0.0.1", station.port)) as client:
                    body = json.dumps(edges.body_of("openai", "slow", f"leaving {turn} {i}: 500 tokens", True))
                    client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            redis.process.send_signal(signal.SIGCONT)
            wait_for(lambda: re.search(r"^pharos_http_exchanges 1$", station.request("GET", "/metrics").text, re.M), "exchanges are left over")
        redis.process.send_signal(signal.SIGSTOP)
        misses = metric(station, "misses_total")
        with socket.create_connection(("127.0.0.1", station.port)) as client:
            body = json.dumps(edges.body_of("openai", "openai", "the last one"))
            client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            wait_for(lambda: metric(station, "misses_total") > misses or "exchanges 2" in station.request("GET", "/metrics").text, "no request")
            station.signal()
            assert b"200 OK" in client.recv(65536)
        assert station.wait(10) == 0
        redis.process.send_signal(signal.SIGCONT)


# ---- How it is named

def passwords_are_used_and_kept(upstream):
    password = SECRET.replace("%25", "%")
    with Redis("--requirepass", password) as redis, tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, "password")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(password + "\n")
        os.environ["PHAROS_E2E_REDIS"] = SECRET
        ways = [{"more": f":{SECRET}@"}, {"more": ":${PHAROS_E2E_REDIS}@"}, {"more": f"default:{SECRET}@"},
                {"cache_more": f", redis_password: file:{path}"}, {"cache_more": f", redis_password: \"{password}\""}]
        for way in ways:
            with station_with(upstream, redis.port, **way) as station:
                right(station, "behind a password")
        for way, word in (({"more": ":wrong-horse@"}, "WRONGPASS"), ({}, "NOAUTH")):
            with station_with(upstream, redis.port, up=False, **way) as station:
                wait_for(lambda: "not to be had" in station.log(), station.log())
                right(station, "without a password", hit=False)
                assert word in station.log() and "horse" not in station.log(), station.log()


def wrong_addresses_are_refused(upstream):
    for url, words in (("http://127.0.0.1", "redis://HOST:PORT/NUMBER"), (f"rediss://:{SECRET}@there:6379", "TLS"),
                       (f"redis://:{SECRET}@there:0/0", "port"), (f"redis://:{SECRET}@/0", "host"),
                       (f"redis://:{SECRET}@there/zero", "number"), ("redis://:horse%2@there", "%25"), ("redis://horse@there", "password")):
        config = station_config(upstream, 1).replace('"redis://127.0.0.1:1/3"', f'"{url}"')
        with tempfile.TemporaryDirectory() as home:
            path = os.path.join(home, "station.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(config)
            done = subprocess.run([PHAROS, "serve", "--config", path, "--data", home], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1 and words in done.stderr and "horse" not in done.stderr, (url, done.stderr)


def main():
    if not redis_program():
        print("SKIP: stations that share a Redis: redis-server (Debian: redis-tools) is not here")
        return
    with Upstream() as upstream:
        for check in (the_other_station_says_the_same, streams_and_whole_replies_serve_each_other, a_station_that_restarts_remembers,
                      answers_belong_to_their_key, other_bytes_are_no_answer, it_may_be_killed_under_load, it_may_stop_and_go_on_under_load,
                      one_that_takes_and_never_answers, one_that_comes_later_is_used, leaving_and_stopping_while_it_is_asked,
                      passwords_are_used_and_kept, wrong_addresses_are_refused):
            if len(sys.argv) < 2 or check.__name__ in sys.argv[1:]:
                runner.run(check.__name__, lambda: patiently(check, upstream))
    runner.finish()


if __name__ == "__main__":
    main()
