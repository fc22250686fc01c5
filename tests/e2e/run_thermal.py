#!/usr/bin/env python3
"""Heat, end to end: a station reads a made-up sysfs (and a made-up NVML) whose temperatures change step by step, and does what
docs/OPERATIONS.md says, no more: fewer at a time, none and elsewhere, stopped, and back again. /metrics tells it.

The engine that the station starts is this file with --engine: it notes how many requests it has at a time and holds them until
it is told. Nothing here waits for a time: only for a level to be reached.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = "as you wish"


class Answers(BaseHTTPRequestHandler):
    """An OpenAI-compatible server of few words. With a folder: an engine whose requests wait for DIR/go."""
    protocol_version = "HTTP/1.1"
    folder = None
    lock, running, most = threading.Lock(), 0, 0

    def log_message(self, *_):
        pass

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply({"data": []})

    def note(self, change):
        kind = type(self)
        with kind.lock:
            kind.running += change
            kind.most = max(kind.most, kind.running)
            write(os.path.join(kind.folder, "seen"), f"{kind.running} {kind.most}")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        who = "cloud"
        if self.folder:
            who = "engine"
            self.note(1)
            while not os.path.exists(os.path.join(self.folder, "go")):
                time.sleep(0.01)
            self.note(-1)
        self.reply({"id": "x", "object": "chat.completion", "created": 1, "model": who, "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"{who}: {WORDS}"}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})


def write(path, text):
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(text)
    os.replace(path + ".new", path)


def engine(port, folder):
    Answers.folder = folder
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


if sys.argv[1:2] == ["--engine"]:
    engine(int(sys.argv[2]), sys.argv[3])

from station import HERE, PHAROS, Runner, Station, Stream  # noqa: E402: an engine needs none of it

runner = Runner("thermal")
NVML = os.path.abspath(os.environ.get("FAKE_NVML", os.path.join(os.path.dirname(PHAROS), "tests", "fake_nvml.so")))
MODEL = os.path.abspath(os.path.join(HERE, "..", "..", "models", "default.gguf"))
NEVER = 86400
LEVELS = ["normal", "warn", "admit less", "hold", "stop"]


def wait_for(what, condition, seconds=60):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"in vain for {seconds} s: {what}"
        time.sleep(0.02)
    return value


class Oven:
    """A folder with a CPU's sensor, an engine and a cloud, and a station that heeds them."""

    def __init__(self, nvml=False, **limits):
        self.dir = tempfile.TemporaryDirectory()
        self.sysfs = os.path.join(self.dir.name, "sys")
        self.chip = os.path.join(self.sysfs, "class", "hwmon", "hwmon0")
        os.makedirs(self.chip)
        write(os.path.join(self.chip, "name"), "coretemp\n")
        self.heat(50)
        self.gpu = os.path.join(self.dir.name, "gpu")
        write(self.gpu, "1 40 100000 10 0\n")
        os.environ["FAKE_NVML_STATE"] = self.gpu
        self.csv = os.path.join(self.dir.name, "heat.csv")
        self.cloud = ThreadingHTTPServer(("127.0.0.1", 0), type("Cloud", (Answers,), {}))
        threading.Thread(target=self.cloud.serve_forever, daemon=True).start()
        times = {"interval_s": 0.05, "admit_less_after_s": NEVER, "stop_after_s": NEVER, "resume_after_s": 0, **limits}
        settings = ", ".join(f"{name}: {value}" for name, value in times.items())
        command = f"exec {sys.executable} {os.path.abspath(__file__)} --engine {{port}} {self.dir.name}"
        self.station = Station(f"""
listen: 127.0.0.1:0
models:
  - {{id: hot, tier: local, command: {json.dumps(command)}, context: 512, concurrency: 4, health: /health}}
  - {{id: here, path: {MODEL}, context: 4096, sequences: 2}}
  - {{id: cloud, tier: subscription, provider: cloud}}
providers:
  cloud: {{api: openai, base_url: "http://127.0.0.1:{self.cloud.server_address[1]}/v1", key: sk-none}}
routes:
  - {{model: auto, policy: fallback, order: [hot, cloud]}}
thermal: {{{settings}, sysfs: {self.sysfs}, csv: {self.csv}{f', nvml: {NVML}' if nvml else ''}}}
""")
        self.pool = ThreadPoolExecutor(16)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.go()
        self.station.__exit__(kind, value, trace)
        self.pool.shutdown()
        self.cloud.shutdown()
        self.cloud.server_close()
        self.dir.cleanup()

    def heat(self, celsius):
        write(os.path.join(self.chip, "temp1_input"), f"{int(celsius * 1000)}\n")

    def level(self, part="cpu"):
        return LEVELS[int(self.station.metrics()[f'pharos_thermal_level{{part="{part}"}}'])]

    def reach(self, level, part="cpu"):
        wait_for(f"{part}: {level}", lambda: self.level(part) == level)

    def changes(self, part="cpu"):
        metrics = self.station.metrics()
        counts = {name: metrics[f'pharos_thermal_changes_total{{part="{part}",level="{name}"}}'] for name in LEVELS}
        return {name: int(count) for name, count in counts.items() if count}

    def metric(self, name, model="hot", more=""):
        return self.station.metrics()[f'{name}{{model_name="{model}"{more}}}']

    def ask(self, model="auto"):
        return self.station.request("POST", "/v1/chat/completions", {
            "model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8})

    def ask_many(self, count, model="auto"):
        return [self.pool.submit(self.ask, model) for _ in range(count)]

    def who(self, model="auto"):
        return who(self.ask(model))

    def seen(self):
        """Requests that the engine has now, and the most it had."""
        try:
            with open(os.path.join(self.dir.name, "seen"), encoding="ascii") as file:
                return [int(word) for word in file.read().split()]
        except FileNotFoundError:
            return [0, 0]

    def go(self):
        write(os.path.join(self.dir.name, "go"), "")

    def wait(self):
        os.remove(os.path.join(self.dir.name, "go"))


def who(reply):
    assert reply.status == 200, (reply.status, reply.text)
    return reply.json["choices"][0]["message"]["content"].split(":")[0]


# ---- The levels

def warn_is_said_and_changes_nothing():
    with Oven() as oven:
        asked = oven.ask_many(4)
        wait_for("four at the engine", lambda: oven.seen()[0] == 4)
        oven.heat(85)
        oven.reach("warn")
        oven.go()
        assert {who(future.result()) for future in asked} == {"engine"}
        assert oven.who() == "engine" and oven.changes() == {"warn": 1}
        assert "cpu: coretemp has 85.0 degrees, so warn" in oven.station.log()
        for celsius in (80.1, 84.9, 85.1, 81, 86):  # within the margin: nothing moves
            oven.heat(celsius)
            wait_for("it was read", lambda: oven.station.metrics()[
                'pharos_temperature_celsius{part="cpu",sensor="coretemp"}'] == celsius)
        assert oven.changes() == {"warn": 1}
        oven.heat(79)
        oven.reach("normal")
        assert oven.changes() == {"warn": 1, "normal": 1}


def less_is_admitted():
    with Oven(admit_less_after_s=0) as oven:
        oven.go()
        assert oven.who("hot") == "engine"
        oven.heat(86)
        oven.reach("admit less")
        oven.wait()
        asked = oven.ask_many(6, "hot")
        wait_for("two at the engine", lambda: oven.seen()[0] == 2)
        oven.go()
        assert {who(future.result()) for future in asked} == {"engine"}
        assert oven.seen()[1] == 2, oven.seen()  # a share of 0.5 of 4, from the first to the last
        assert oven.metric("pharos_thermal_model_level") == 2 and oven.metric("pharos_thermal_model_level", "here") == 2
        oven.heat(70)
        oven.reach("normal")
        oven.wait()
        asked = oven.ask_many(6, "hot")
        wait_for("four at the engine", lambda: oven.seen()[0] == 4)
        oven.go()
        assert {who(future.result()) for future in asked} == {"engine"}
        assert oven.seen()[1] == 4 and oven.changes() == {"warn": 1, "admit less": 1, "normal": 1}


def new_work_goes_elsewhere():
    with Oven() as oven:
        running = oven.ask_many(4)
        wait_for("four at the engine", lambda: oven.seen()[0] == 4)
        waiting = oven.ask_many(3)
        oven.heat(90)
        oven.reach("hold")
        assert {who(future.result()) for future in waiting} == {"cloud"}  # also those that waited for their turn
        assert oven.who() == "cloud"
        refused = oven.ask("hot")
        assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1, refused.headers
        assert "CPU is too hot" in refused.json["error"]["message"], refused.text
        assert refused.json["error"]["code"] == "model_unavailable", refused.text
        assert oven.ask("here").status == 503
        oven.go()
        assert {who(future.result()) for future in running} == {"engine"}  # what runs goes on
        assert oven.metric("pharos_engine_up") == 1 and oven.seen()[1] == 4
        oven.heat(84)
        oven.reach("admit less")
        assert oven.who() == "engine"
        oven.heat(60)
        oven.reach("normal")
        assert oven.who() == "engine" and oven.ask("here").status == 200
        assert oven.changes() == {"hold": 1, "admit less": 1, "normal": 1}
        assert oven.station.metrics()["pharos_thermal_halts_total"] == 0


def the_engine_is_stopped_and_comes_back():
    with Oven(stop_after_s=0) as oven:
        running = oven.ask_many(2)
        wait_for("two at the engine", lambda: oven.seen()[0] == 2)
        oven.heat(95)
        oven.reach("stop")
        assert {who(future.result()) for future in running} == {"cloud"}  # nothing of theirs had been said yet
        wait_for("it has ended", lambda: oven.metric("pharos_engine_ends_total", more=',reason="halt"') == 1)
        assert oven.metric("pharos_engine_up") == 0 and oven.who() == "cloud" and oven.ask("hot").status == 503
        assert oven.metric("pharos_engine_starts_total") == 1
        oven.heat(60)
        oven.reach("normal")
        oven.go()
        assert oven.who() == "engine" and oven.metric("pharos_engine_starts_total") == 2
        assert oven.changes() == {"hold": 1, "stop": 1, "admit less": 1, "normal": 1}
        assert oven.station.metrics()["pharos_thermal_halts_total"] == 2  # the engine, and the model in this process
        with open(oven.csv, encoding="utf-8") as file:
            lines = file.read().splitlines()
        assert lines[0].startswith("time,part,sensor") and lines[-1].endswith(",normal"), (lines[0], lines[-1])
        assert any(",cpu,\"coretemp\",95.0," in line for line in lines), lines[-3:]


def a_model_in_this_process_is_stopped():
    with Oven(stop_after_s=0) as oven:
        stream = Stream(oven.station.port, "/v1/completions", {
            "model": "here", "prompt": "Once", "max_tokens": 4000, "ignore_eos": True})
        assert next(stream.events())
        oven.heat(95)
        oven.reach("stop")
        said = []
        try:
            for event in stream.events():
                said.append(event)
        except ConnectionResetError:  # never a clean end
            pass
        assert not stream.done and len(said) < 3900, (stream.done, len(said))
        assert "CPU is too hot" in said[-1]["error"]["message"], said[-1]
        stream.close()
        assert oven.ask("here").status == 503
        oven.station.wait_idle()
        oven.heat(60)
        oven.reach("normal")
        assert oven.ask("here").status == 200


def a_gpu_stops_engines_and_nothing_else():
    with Oven(nvml=True) as oven:
        oven.go()
        assert oven.who() == "engine"
        write(oven.gpu, "1 91 650000 99 64\n")
        oven.reach("hold", "gpu")
        assert oven.level() == "normal" and oven.who() == "cloud" and oven.ask("here").status == 200
        metrics, sensor = oven.station.metrics(), 'sensor="NVIDIA H100 80GB HBM3 0000:1b:00.0"'
        assert metrics[f'pharos_temperature_celsius{{part="gpu",{sensor}}}'] == 91
        assert metrics[f'pharos_power_watts{{part="gpu",{sensor}}}'] == 650
        assert metrics[f'pharos_throttled_by_heat{{{sensor}}}'] == 1
        write(oven.gpu, "1 50 100000 10 0\n")
        oven.reach("normal", "gpu")
        assert oven.who() == "engine"


# ---- What is not there

def without_sensors_all_is_as_ever():
    with tempfile.TemporaryDirectory() as empty:
        config = f"listen: 127.0.0.1:0\nmodels:\n  - {{id: here, path: {MODEL}, context: 256}}\nthermal: {{sysfs: {empty}}}\n"
        with Station(config) as station:
            wait_for("it is said", lambda: "no temperature of a CPU or GPU can be read here" in station.log())
            assert station.metrics()['pharos_thermal_level{part="cpu"}'] == 0
        with Station(config.replace(f"sysfs: {empty}", "enabled: false")) as station:
            assert not [name for name in station.metrics() if "thermal" in name]


def wrong_settings_are_named():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "station.yaml")
        for settings, told in (("warn_c: 90, critical_c: 90", "warn_c (90) is not below critical_c (90)"),
                               ("gpu: {critical_c: 80}", "for the gpu"), ("margin_c: 0", "margin_c"),
                               ("nvml: /nowhere/nvml.so", "/nowhere/nvml.so"), ("csv: /nowhere/heat.csv", "/nowhere/heat.csv"),
                               ("hot: true", "hot")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"listen: 127.0.0.1:0\nmodels:\n  - {{id: here, path: {MODEL}}}\nthermal: {{{settings}}}\n")
            run = subprocess.run([PHAROS, "serve", "--config", path, "--data", os.path.join(folder, "data")],
                                 capture_output=True, text=True, timeout=60, check=False)
            assert run.returncode == 1 and told in run.stderr, (settings, run)


for case in (warn_is_said_and_changes_nothing, less_is_admitted, new_work_goes_elsewhere, the_engine_is_stopped_and_comes_back,
             a_model_in_this_process_is_stopped, a_gpu_stops_engines_and_nothing_else, without_sensors_all_is_as_ever,
             wrong_settings_are_named):
    runner.run(case.__name__, case)
runner.finish()
