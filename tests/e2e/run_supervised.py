#!/usr/bin/env python3
"""Engines that a station starts: real ones, llama.cpp behind the OpenAI API (engine.mjs; PHAROS_ENGINE names its packages).

Started once however many ask, compared with the station's own engine on the same file, killed, starved, stopped when idle or when
their memory is needed, and never left behind.
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import edges
from station import HERE, SHARED, Runner, Station

runner = Runner("supervised")
ENGINE = os.path.join(HERE, "engine.mjs")
DEFAULT = os.path.abspath(os.path.join(HERE, "..", "..", "models", "default.gguf"))
STORIES = os.path.abspath(os.path.join(SHARED, "models", "stories3M-F32.gguf"))
MODEL = STORIES if os.path.exists(STORIES) else DEFAULT
PROMPTS = ["Tell me a story", "Once upon a time there was a small dragon", "Lily and Ben went to the park. Then"]
STUBBORN = "(trap '' TERM; while :; do sleep 1; done) & "  # a child that does not want to end
TOKENS = 40


class Work:
    """A folder of its own, and the engines that run in it."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="pharos-engines-")
        self.data = os.path.join(self.dir, "data")
        os.environ["PHAROS_WORK"] = self.dir  # what a station of this folder starts has it from its first moment

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.members():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.dir, True)

    def command(self, before="", model=MODEL, **settings):
        more = "".join(f" --{name.replace('_', '-')} {value}" for name, value in settings.items())
        return f"{before}exec node {ENGINE} --model {model} --port {{port}}{more}"

    def engine(self, name, before="", model=MODEL, options="", **settings):
        return self.line(name, self.command(before, model, **settings), options)

    @staticmethod
    def line(name, command, options=""):
        return f"  - {{id: {name}, tier: local, command: {json.dumps(command)}, context: 512{', ' + options if options else ''}}}\n"

    def station(self, *models, rest=""):
        config = "listen: 127.0.0.1:0\nmodels:\n" + "".join(models) + rest
        return Station(config, data=self.data)

    def members(self):
        """Every process that a station of this folder has started, its watchers too, told by their environment."""
        mark = f"PHAROS_WORK={self.dir}".encode()
        found = []
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(path.split("/")[2]))
            except OSError:
                pass
        return [pid for pid in found if not command_line(pid).split(b"\0")[0].endswith(b"pharos")]

    def engines(self):
        """Of them, the engines proper."""
        return [pid for pid in self.members() if b"engine.mjs" in command_line(pid)]

    def log(self, name, suffix=""):
        with open(os.path.join(self.data, "logs", f"{name}.log{suffix}"), encoding="utf-8", errors="replace") as file:
            return file.read()


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def local(name, more=""):
    return f"  - {{id: {name}, path: {MODEL}, context: 512{more}}}\n"


def wait_for(what, condition, seconds=30):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"in vain for {seconds} s: {what}"
        time.sleep(0.02)
    return value


def ask(station, model, prompt=PROMPTS[0], stream=False, edge="openai", **more):
    return edges.ask(station.port, edge, model, prompt, stream, **{"max_tokens": TOKENS, "temperature": 0, **more})


def right(station, model, prompt=PROMPTS[0], stream=False, edge="openai", **more):
    answer = ask(station, model, prompt, stream, edge, **more)
    assert answer.whole, answer
    return answer


def metric(station, name, model, more=""):
    return station.metrics()[f'{name}{{model_name="{model}"{more}}}']


def ends(station, model, reason):
    return metric(station, "pharos_engine_ends_total", model, f',reason="{reason}"')


# ---- What it says

def the_same_text_as_our_own_engine():
    models = [STORIES, DEFAULT] if MODEL == STORIES else [DEFAULT]
    for path in models:
        with Work() as work:
            with work.station(work.engine("there", model=path), local("here").replace(MODEL, path)) as station:
                for prompt in PROMPTS:
                    for edge in ("openai", "anthropic", "responses"):
                        for stream in (False, True):
                            here, there = (right(station, name, prompt, stream, edge) for name in ("here", "there"))
                            case = (os.path.basename(path), prompt, edge, stream)
                            assert here.text == there.text and here.text, (case, here.text, there.text)
                            assert here.finish == there.finish, (case, here.finish, there.finish)
                            for name in here.usage.keys() & {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"}:
                                assert here.usage[name] == there.usage[name], (case, here.usage, there.usage)


# ---- Starting

def twenty_requests_start_one_engine():
    with Work() as work:
        with work.station(work.engine("slow", load_ms=11500), local("here")) as station:
            assert not work.members(), "it was started before anybody asked"
            expected = right(station, "here").text
            seen, over = [], threading.Event()

            def watch():
                while not over.wait(0.05):
                    seen.append(len(work.engines()))

            watcher = threading.Thread(target=watch)
            watcher.start()
            with ThreadPoolExecutor(21) as pool:
                hurried = pool.submit(ask, station, "slow", headers={"x-request-timeout": "2"})
                asked = [pool.submit(ask, station, "slow", stream=number % 2 == 0, timeout=60,
                                     edge="anthropic" if number % 4 == 0 else "openai") for number in range(20)]
                hurried = hurried.result()
                assert hurried.status == 503 and int(hurried.headers["retry-after"]) > 0, (hurried, hurried.headers)
                assert "still being started" in hurried.error["message"], hurried.error
                answers = [one.result() for one in asked]
            over.set()
            watcher.join()
            for number, answer in enumerate(answers):
                assert answer.whole and answer.text == expected, (number, answer, expected)
                if number % 4 == 2:
                    assert answer.comments > 0, f"stream {number} heard nothing while it waited"
            assert max(seen) == 1 and len(work.engines()) == 1, f"engines at once: {max(seen)}"
            assert metric(station, "pharos_engine_starts_total", "slow") == 1


def a_start_that_fails_shows_its_log():
    with Work() as work:
        gone = os.path.join(work.dir, "gone.gguf")
        wrong = work.line("wrong", "/no/such/llama-server --port {port}")
        with work.station(work.engine("broken", model=gone), wrong) as station:
            for model, words in (("broken", "cannot load the model"), ("wrong", "not found")):
                for edge, status in (("openai", 503), ("anthropic", 529)):
                    answer = ask(station, model, stream=True, edge=edge)
                    assert answer.status == status and int(answer.headers["retry-after"]) > 0, answer
                    assert "did not start" in answer.error["message"] and words in answer.error["message"], answer.error
                assert words in work.log(model), work.log(model)
            assert ends(station, "broken", "failed") >= 1 and not work.members()


def a_port_that_was_taken_is_left():
    with Work() as work:
        flag = os.path.join(work.dir, "taken")
        squat = "import socket,sys,time; s=socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(4)"
        before = (f"[ -e {flag} ] || {{ touch {flag}; setsid python3 -c \"{squat}\" {{port}} >/dev/null 2>&1 & sleep 0.5; }}; ")
        with work.station(work.engine("late", before)) as station:
            right(station, "late")
            assert "has taken port" in station.log(), station.log()
            assert "EADDRINUSE" in work.log("late", ".1"), work.log("late", ".1")
            assert metric(station, "pharos_engine_starts_total", "late") == 2


def logs_are_bounded():
    with Work() as work:
        with work.station(work.engine("loud", "yes 'a line of a log' | head -c 40000000; ")) as station:
            right(station, "loud")
            wait_for("a short log", lambda: os.path.getsize(os.path.join(work.data, "logs", "loud.log")) < 1 << 20)
            kept = os.path.getsize(os.path.join(work.data, "logs", "loud.log.1"))
            assert (15 << 20) < kept <= (17 << 20), kept
            right(station, "loud")


# ---- Dying

def kill_in_a_stream(station, work, model, **more):
    """The answer of a stream whose engine is killed when its first words have come."""
    with ThreadPoolExecutor(1) as pool:
        before = station.metrics().get("pharos_continuations_total", 0)
        asked = pool.submit(ask, station, model, stream=True, **more)
        time.sleep(0.7)
        assert not asked.done(), asked.result()
        for pid in work.engines():
            os.kill(pid, signal.SIGKILL)
        return asked.result(), station.metrics()["pharos_continuations_total"] - before


def a_killed_engine_is_started_anew_and_goes_on():
    with Work() as work:
        with work.station(work.engine("mine", token_ms=60), local("here")) as station:
            expected = right(station, "here").text
            right(station, "mine", max_tokens=2)
            for number, edge in ((1, "openai"), (2, "anthropic")):
                first = work.engines()
                answer, continued = kill_in_a_stream(station, work, "mine", edge=edge)
                assert answer.whole and answer.text == expected and continued == 1, (answer, expected, continued)
                assert metric(station, "pharos_engine_restarts_total", "mine") == number
                assert len(work.engines()) == 1 and work.engines() != first
            assert ends(station, "mine", "died") == 2
            log = station.log()
            assert "started anew in 1 s" in log and "started anew in 2 s" in log, log


def who_cannot_go_on_says_so():
    with Work() as work:
        with work.station(work.engine("mine", token_ms=60, options="capabilities: [completion]")) as station:
            right(station, "mine", max_tokens=2)
            for edge in ("openai", "anthropic"):
                answer, _ = kill_in_a_stream(station, work, "mine", edge=edge)
                assert answer.error and answer.text and not answer.said_end and not answer.clean, answer
                wait_for("a new engine", lambda: metric(station, "pharos_engine_up", "mine") == 1)


def a_killed_engine_is_continued_by_the_next():
    with Work() as work:
        route = "routes:\n  - {model: both, policy: fallback, order: [mine, here]}\n"
        with work.station(work.engine("mine", token_ms=60), local("here"), rest=route) as station:
            expected = right(station, "here").text
            right(station, "mine", max_tokens=2)
            for edge in ("openai", "anthropic"):
                wait_for("the engine", lambda: metric(station, "pharos_engine_up", "mine") == 1)
                answer, continued = kill_in_a_stream(station, work, "both", edge=edge)
                assert answer.whole and continued == 1, (answer, continued)
                assert answer.text == expected, (answer.text, expected)


# ---- Stopping

def group_is_gone(work, seconds):
    wait_for(f"the end of {work.members()}", lambda: not work.members(), seconds)


def an_idle_engine_is_stopped_with_all_its_children():
    with Work() as work:
        with work.station(work.engine("brief", STUBBORN, options="ttl_s: 1")) as station:
            right(station, "brief")
            assert len(work.members()) >= 3, work.members()
            group_is_gone(work, 12)
            wait_for("its end", lambda: ends(station, "brief", "idle") == 1, 2)
            right(station, "brief")
            assert metric(station, "pharos_engine_starts_total", "brief") == 2


def a_station_that_stops_leaves_no_engine():
    with Work() as work:
        with work.station(work.engine("mine", STUBBORN)) as station:
            right(station, "mine")
        assert not work.members(), "an engine outlived its station"


def a_station_that_is_killed_leaves_no_engine():
    with Work() as work:
        station = work.station(work.engine("mine", STUBBORN))
        right(station, "mine")
        station.signal(signal.SIGKILL)
        station.discard()
        group_is_gone(work, 8)


def what_outlives_station_and_watcher_is_ended_by_the_next_station():
    with Work() as work:
        station = work.station(work.engine("mine", STUBBORN))
        right(station, "mine")
        with open(os.path.join(work.data, "logs", "mine.pid"), encoding="ascii") as file:
            watcher = int(file.read().split()[0])
        os.kill(watcher, signal.SIGKILL)
        station.signal(signal.SIGKILL)
        station.discard()
        time.sleep(0.3)
        assert len(work.members()) >= 2, "the test has no orphans"
        with work.station(work.engine("mine", STUBBORN)) as second:
            group_is_gone(work, 3)
            assert "left behind" in second.log()


# ---- Memory

def idle_engines_make_room():
    with Work() as work:
        limit = "engines: {memory_mb: 300}\n"
        models = [work.engine(name, options=f"memory_mb: {need}") for name, need in (("a", 150), ("b", 150), ("c", 200), ("d", 400))]
        with work.station(*models, rest=limit) as station:
            for name in ("a", "b", "a"):
                right(station, name)
            assert len(work.engines()) == 2 and ends(station, "a", "memory") == 0
            right(station, "c")  # b is the least recently used, and is not enough
            assert ends(station, "a", "memory") == ends(station, "b", "memory") == 1 and len(work.engines()) == 1
            right(station, "a", edge="anthropic")
            assert ends(station, "c", "memory") == 1
            right(station, "b")
            right(station, "a")
            right(station, "b")
            assert ends(station, "a", "memory") == 1 and ends(station, "b", "memory") == 1, "there was room for both"
            answer = ask(station, "d")
            assert answer.status == 503 and int(answer.headers["retry-after"]) > 0, answer
            words = answer.error["message"]
            assert "needs 400 MiB" in words and "300 MiB" in words, words
            assert len(work.engines()) == 2, "somebody was stopped in vain"


def busy_engines_are_waited_for():
    with Work() as work:
        models = [work.engine("busy", options="memory_mb: 200", token_ms=80), work.engine("next", options="memory_mb: 200"), local("here")]
        with work.station(*models, rest="engines: {memory_mb: 300}\n") as station:
            expected = right(station, "here").text
            right(station, "busy", max_tokens=2)
            with ThreadPoolExecutor(4) as pool:
                long = pool.submit(ask, station, "busy", stream=True)
                time.sleep(0.3)
                hurried = pool.submit(ask, station, "next", headers={"x-request-timeout": "1"})
                waiting = [pool.submit(ask, station, "next", stream=stream) for stream in (True, False)]
                wait_for("a wait for memory", lambda: metric(station, "pharos_engine_waits_for_memory", "next") == 1, 5)
                assert hurried.result().status == 503 and "retry-after" in hurried.result().headers, hurried.result()
                assert not long.done() and len(work.engines()) == 1
                assert long.result().whole and long.result().text == expected, long.result()
                for one in waiting:
                    assert one.result().whole and one.result().text == expected, one.result()
            assert ends(station, "busy", "memory") == 1 and len(work.engines()) == 1


def what_was_measured_counts_the_next_time():
    with Work() as work:
        big = work.engine("big", ballast_mb=200)
        with work.station(big) as station:
            right(station, "big")
            wait_for("a measurement", lambda: metric(station, "pharos_engine_memory_bytes", "big") > 200 << 20)
            measured = metric(station, "pharos_engine_memory_bytes", "big")
        with work.station(big, rest="engines: {memory_mb: 150}\n") as station:
            assert metric(station, "pharos_engine_memory_need_bytes", "big") >= measured
            answer = ask(station, "big")
            assert answer.status == 503 and "150 MiB" in answer.error["message"], answer
        with work.station(big) as station:  # and without a limit of ours there is enough of it
            right(station, "big")


for check in (the_same_text_as_our_own_engine, twenty_requests_start_one_engine, a_start_that_fails_shows_its_log,
              a_port_that_was_taken_is_left, logs_are_bounded, a_killed_engine_is_started_anew_and_goes_on, who_cannot_go_on_says_so,
              a_killed_engine_is_continued_by_the_next, an_idle_engine_is_stopped_with_all_its_children,
              a_station_that_stops_leaves_no_engine, a_station_that_is_killed_leaves_no_engine,
              what_outlives_station_and_watcher_is_ended_by_the_next_station, idle_engines_make_room, busy_engines_are_waited_for,
              what_was_measured_counts_the_next_time):
    if len(sys.argv) < 2 or check.__name__ in sys.argv[1:]:
        runner.run(check.__name__.replace("_", " "), check)
runner.finish()
