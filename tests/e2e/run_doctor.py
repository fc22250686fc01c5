#!/usr/bin/env python3
"""pharos doctor over set-ups that are broken in one way each: the line that names it, what it advises, the exit code."""
import http.server
import json
import os
import socket
import sqlite3
import subprocess
import tempfile
import threading

from station import PHAROS, TINY, Runner, Station

runner = Runner("doctor")


def doctor(*arguments, env=None):
    """Exit code, and the lines."""
    done = subprocess.run([PHAROS, "doctor", "--json", *arguments], capture_output=True, timeout=60, text=True, env={**os.environ, **(env or {})})
    said = json.loads(done.stdout)
    counts = {level: sum(line["level"] == level for line in said["checks"]) for level in ("ok", "warn", "fail", "skip")}
    assert counts == {level: said[level] for level in counts}, said
    assert done.returncode == (1 if said["fail"] else 0), (done.returncode, said)
    assert all(line["do"] for line in said["checks"] if line["level"] in ("warn", "fail")), said
    return done.returncode, said["checks"]


def of(lines, check):
    return [line for line in lines if line["check"] == check]


class Upstream(http.server.BaseHTTPRequestHandler):
    keys = []

    def do_GET(self):
        key = self.headers.get("authorization")
        Upstream.keys.append(key)
        status = 200 if key in (None, "Bearer sk-good") else 401
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Home:
    """A sound station's files; the configuration is text that a test may change."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.data, self.config, self.key, self.model = (os.path.join(self.folder.name, name) for name in ("data", "c.yaml", "key", "m.gguf"))
        os.mkdir(self.data, 0o700)
        line = {"id": "c", "user": "u", "messages": [{"role": "user", "content": "hello " * 50, "created_at": i} for i in range(400)]}
        with open(os.path.join(self.folder.name, "in"), "w", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        subprocess.run([PHAROS, "store", "import", file.name, "--data", self.data], check=True, capture_output=True)
        subprocess.run([PHAROS, "keys", "create", "--name", "me", "--data", self.data], check=True, capture_output=True)
        with open(self.key, "w", encoding="utf-8") as file:
            file.write("sk-good\n")
        os.chmod(self.key, 0o600)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.text = (f"listen: 127.0.0.1:0\nproviders:\n  up: {{base_url: \"{self.url}\", key: \"file:{self.key}\"}}\n"
                     "models:\n  - {id: far, provider: up, upstream: x}\n")
        if os.path.exists(TINY):
            with open(TINY, "rb") as source, open(self.model, "wb") as target:
                target.write(source.read())
            self.text += f"  - {{id: tiny, path: {self.model}}}\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()

    def look(self, *more, **options):
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(self.text)
        return doctor("--config", self.config, "--data", self.data, *more, **options)

    def finds(self, check, words, *more, level="fail", **options):
        _, lines = self.look(*more, **options)
        found = [line for line in of(lines, check) if line["level"] == level]
        assert any(words in line["what"] + " -> " + line["do"] for line in found), (check, words, lines)


def a_sound_one_is_sound():
    with Home() as home:
        Upstream.keys.clear()
        for more in ((), ("--full",)):
            code, lines = home.look(*more)
            assert code == 0 and not [line for line in lines if line["level"] == "fail"], lines
            checks = {line["check"] for line in lines}
            assert checks == {"config", "keys", "data", "secrets", "models", "port", "disk", "clock", "providers", "store", "libraries",
                              "sensors"}, checks
            assert all(line["level"] == "ok" for check in ("config", "keys", "data", "secrets", "providers", "store") for line in of(lines, check))
        assert Upstream.keys == [None, None], "a key was sent without being asked for"
        assert "every message" in of(lines, "store")[0]["what"], lines


def configurations():
    with Home() as home:
        sound = home.text
        for text, words in ((sound + "lsten: x\n", 'did you mean "listen"'), (sound.replace("upstream", "upsteam"), "upsteam"),
                            (sound + "memory: {store: mysql}\n", "memory.store"), ("models: [", "c.yaml:"),
                            (sound.replace("provider: up", "provider: down"), "no provider down"), (sound + "ca_file: ${NOT_SET_AT_ALL}\n", "NOT_SET")):
            home.text = text
            home.finds("config", words)


def files():
    with Home() as home:
        def broken(path, words, check, content=None, mode=None, level="fail", more=()):
            keep = open(path, "rb").read() if os.path.isfile(path) else None
            keep_mode = os.stat(path).st_mode & 0o777
            if mode is not None:
                os.chmod(path, mode)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
            home.finds(check, words, *more, level=level)
            if keep is not None:
                with open(path, "wb") as file:
                    file.write(keep)
            os.chmod(path, keep_mode)
        keys, store = (os.path.join(home.data, name) for name in ("keys.jsonl", "memory/store.db"))
        broken(home.data, "chmod 700", "data", mode=0o777)
        broken(home.data, "chmod 700", "data", mode=0o750, level="warn")
        broken(keys, "chmod 600", "keys", mode=0o644)
        broken(keys, "restore it", "keys", content=b"{nonsense\n")
        broken(home.key, "chmod 600", "secrets", mode=0o640)
        broken(store, "restore it", "store", content=b"SQLite format 3\0" + bytes(5000))
        if os.path.exists(TINY):
            whole = open(home.model, "rb").read()
            broken(home.model, "fetch the file again", "models", content=whole[:len(whole) // 2])
            broken(home.model, "fetch the file again", "models", content=b"<html>")
        os.remove(home.key)
        home.finds("secrets", "cannot look at")
        database = sqlite3.connect(store)  # a message disappears behind the store's back
        database.execute("PRAGMA foreign_keys = OFF")
        table = [name for name, in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'messages'")][0]
        database.execute(f"DELETE FROM {table} WHERE seq % 7 = 3")
        database.commit()
        database.close()
        assert of(home.look()[1], "store")[0]["level"] == "ok"  # quick does not count
        home.finds("store", "backup", "--full")


def ports():
    with Home() as home, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        home.finds("port", "choose another", "--listen", f"127.0.0.1:{port}")
        home.finds("port", "another program has it", "--listen", f"127.0.0.1:{home.server.server_port}")
        home.finds("port", "choose another", "--listen", "192.0.2.1:8080")
        os.remove(os.path.join(home.data, "keys.jsonl"))
        home.finds("keys", "pharos keys create", "--listen", "0.0.0.0:0")
    if not os.path.exists(TINY):
        print("SKIP: the port of a running station: ../shared is not here")
        return
    with Home() as home, Station(f"listen: 127.0.0.1:0\nmodels:\n  - {{id: tiny, path: {TINY}}}\n", data=home.data) as station:
        home.finds("port", "a station (", "--listen", f"127.0.0.1:{station.port}", level="ok")
        assert home.look("--listen", f"127.0.0.1:{station.port}", "--full")[0] == 0  # beside a running station


def providers():
    with Home() as home:
        home.finds("providers", "takes the key", "--online", level="ok")
        with open(home.key, "w", encoding="utf-8") as file:
            file.write("sk-bad\n")
        home.finds("providers", "refuses the key", "--online")
        assert not any("sk-" in json.dumps(line) for line in home.look("--online")[1])
        sound = home.text
        with socket.socket() as mute, socket.socket() as gone:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            gone.bind(("127.0.0.1", 0))
            for url, words in ((f"http://127.0.0.1:{gone.getsockname()[1]}/v1", "is it running"),
                               (f"http://127.0.0.1:{mute.getsockname()[1]}/v1", "try again later"),
                               (home.url.replace("http:", "https:"), "ca_file"), ("http://name.invalid/v1", "look up names")):
                home.text = sound.replace(home.url, url)
                home.finds("providers", words)


def clocks():
    home = Home()
    with home:
        code, lines = home.look()
        clock = of(lines, "clock")
        assert len(clock) == 1 and clock[0]["level"] in ("ok", "warn", "skip") and code == 0, lines


for test in (a_sound_one_is_sound, configurations, files, ports, providers, clocks):
    runner.run(test.__name__, test)
runner.finish()
