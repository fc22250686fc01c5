"""Starts stations for the end-to-end tests, speaks HTTP to them, and counts what passes.

Only Python's own library is used here, so that these tests run where no packages can be had.
"""
import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.path.join(HERE, "..", "..", "..", "shared")
STORIES = os.path.join(SHARED, "models", "stories3M-Q8_0.gguf")
TINY = os.path.join(SHARED, "conformance", "models", "stories260K-Q8_0.gguf")
PHAROS = os.environ.get("PHAROS", os.path.join(HERE, "..", "..", "build", "pharos"))

os.environ["PHAROS_DATA"] = tempfile.mkdtemp(prefix="pharos-e2e-")  # nobody's real keys and ledger
atexit.register(shutil.rmtree, os.environ["PHAROS_DATA"], True)

CONFIG = f"""
listen: 127.0.0.1:0
models:
  - {{id: stories, path: {STORIES}}}
  - {{id: tiny, path: {TINY}, context: 256, sequences: 1, queue: 1}}
"""


class Station:
    """A running station on a free port. Use as a context manager; leaving it stops it and checks exit code 0."""

    def __init__(self, config=CONFIG, arguments=(), ready=True, data=None):
        self.dir = tempfile.TemporaryDirectory()
        path = os.path.join(self.dir.name, "station.yaml")
        if "\nthermal:" not in config:  # tests make a machine hot: what they ask is not to depend on that
            config += "\nthermal: {enabled: false}\n"
        with open(path, "w", encoding="utf-8") as file:
            file.write(config)
        self.stderr = open(os.path.join(self.dir.name, "stderr"), "w+", encoding="utf-8")
        self.started = time.monotonic()
        self.data = data or os.path.join(self.dir.name, "data")
        self.process = subprocess.Popen([PHAROS, "serve", "--config", path, "--data", self.data, *arguments],
                                        stdout=subprocess.PIPE, stderr=self.stderr, text=True)
        line = self.process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not match:
            raise AssertionError(f"no startup line: {line!r} {self.log()}")
        self.port = int(match.group(1))
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        if ready:
            self.wait_ready()

    def log(self):
        self.stderr.flush()
        with open(self.stderr.name, encoding="utf-8") as file:
            return file.read()

    def wait_ready(self, seconds=60):
        until = time.monotonic() + seconds
        while self.request("GET", "/ready").status != 200:
            if time.monotonic() > until or self.process.poll() is not None:
                raise AssertionError(f"not ready: {self.log()}")
            time.sleep(0.02)

    def request(self, method, path, body=None, headers=None, timeout=120):
        return request(self.port, method, path, body, headers, timeout)

    def metrics(self):
        """{series: value}, the series as written."""
        found = {}
        for line in self.request("GET", "/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def wait_idle(self, seconds=30):
        """Waits until no sequence runs and every page is free again; the last metrics."""
        until = time.monotonic() + seconds
        while True:
            metrics = self.metrics()
            busy = {name: value for name, value in metrics.items() if value and name.startswith(
                ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"))}
            if not busy:
                return metrics
            if time.monotonic() > until:
                raise AssertionError(f"still busy: {busy}")
            time.sleep(0.02)

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds=30):
        return self.process.wait(seconds)

    def discard(self):
        """Ends it whatever it is doing, for tests that end it badly themselves."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.stderr.close()
        self.dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if self.process.poll() is None:
                self.signal()
            try:
                code = self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                code = "killed after 30 s"
            if kind is None and code != 0:
                raise AssertionError(f"the station ended with {code}: {self.log()}")
            if kind is not None:
                print(self.log()[-4000:], file=sys.stderr)
        finally:
            self.stderr.close()
            self.dir.cleanup()


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.body)


def request(port, method, path, body=None, headers=None, timeout=120):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method, path, body.encode() if isinstance(body, str) else body, headers or {})
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()


class Stream:
    """A streamed reply on a raw socket: read by the event, or dropped rudely."""

    def __init__(self, port, path, body, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(120)
        self.socket.connect(("127.0.0.1", port))
        body = json.dumps({**body, "stream": True}).encode()
        self.socket.sendall(f"POST {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                            + body)
        self.file = self.socket.makefile("rb")
        self.status = None
        self.done = False

    def begin(self):
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass
        return self.status

    def events(self):
        """Chunks until [DONE] or the end of the connection; `done` says which."""
        if self.status is None:
            self.begin()
        for line in self.file:
            if line.startswith(b"data: [DONE]"):
                self.done = True
            elif line.startswith(b"data: "):
                yield json.loads(line[6:])

    def text(self):
        pieces = {}
        for chunk in self.events():
            for choice in chunk.get("choices", []):
                piece = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
                pieces[choice["index"]] = pieces.get(choice["index"], "") + piece
        return pieces.get(0, "")

    def close(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.file.close()
        self.socket.close()


def values_at(error):
    """The variables of the tests' functions that it went through, each cut to a line: what failed once may not fail again."""
    lines = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "<module>" or os.path.dirname(os.path.abspath(frame.f_code.co_filename)) != HERE:
            continue
        lines.append(f"  in {frame.f_code.co_name}, line {line}:")
        for name, value in frame.f_locals.items():
            shown = repr(value)
            lines.append(f"    {name} = {shown if len(shown) <= 400 else shown[:200] + ' ... ' + shown[-200:]}")
    return "\n".join(lines) + "\n"


class Runner:
    """Runs named checks and prints a line for each that fails; last, the counts."""

    def __init__(self, name):
        self.name, self.passed, self.failed = name, 0, 0

    def run(self, name, check):
        try:
            check()
            self.passed += 1
        except Exception as error:  # a failing check must not hide the others
            self.failed += 1
            print(f"FAILED {self.name}: {name}\n{traceback.format_exc()}{values_at(error)}", flush=True)

    def tell(self):
        print(f"{self.name}: {self.passed} passed, {self.failed} failed", flush=True)

    def finish(self):
        self.tell()
        sys.exit(1 if self.failed else 0)
