#!/usr/bin/env python3
"""The request log: a line of JSON for each answer; with what was asked and said only where that was asked for; never a secret."""
import json
import os
import stat
import subprocess
import tempfile

import edges
from behind import APIS, configuration, model_line, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text

LIMIT = 64 << 10
PROVIDER_KEY = "kluger-rabe-77-geheim"  # the shape of no provider's key
HEADER_SECRET = "header-value-of-ours-12"
WEATHER = {"name": "weather", "description": "w", "parameters": {"type": "object", "properties": {}}}


class Logged:
    """A station over all kinds of providers that logs to a file; `lines` after it has stopped."""

    def __init__(self, upstream, log="request_log: {{path: {path}, bodies: true}}\n", more="", mode=None):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "requests.jsonl")
        if mode is not None:
            with open(self.path, "wb"):
                os.chmod(self.path, mode)
        models = [model_line(kind, kind, kind, f"{kind}-up", more="capabilities: [tools, images, json, choices]") for kind in APIS]
        providers = [provider_line(kind, kind, upstream, key=PROVIDER_KEY, more="headers: {x-extra: " + HEADER_SECRET + "}") for kind in APIS]
        self.station = Station(configuration(models, providers, more + log.format(path=self.path)), data=os.path.join(self.folder.name, "data"))
        self.port, self.lines, self.text, self.said = self.station.port, [], "", ""

    def __enter__(self):
        return self

    def __exit__(self, *trace):
        self.said = self.station.log()
        self.station.__exit__(*trace)
        with open(self.path, encoding="utf-8") as file:
            self.text = file.read()
        self.mode = stat.S_IMODE(os.stat(self.path).st_mode)
        self.lines = [json.loads(line) for line in self.text.splitlines()]
        self.folder.cleanup()


def without_bodies(upstream):
    for log in ("request_log: {path}\n", "request_log: {{path: {path}}}\n", "request_log: {{path: {path}, bodies: false}}\n"):
        with Logged(upstream, log) as logged:
            assert edges.ask(logged.port, "openai", "openai", "a secret of 5 tokens", True).whole
        (line,) = logged.lines
        assert line["model"] == "openai" and line["attempts"][0]["completion_tokens"] == 5, line
        assert "request" not in line and "reply" not in line and "a secret" not in logged.text
        assert "written to" not in logged.said and logged.mode == 0o600, (logged.said, oct(logged.mode))


def with_bodies(upstream):
    """Every edge, every provider, streamed and whole: the body as it came, the texts joined."""
    asked = []
    with Logged(upstream, mode=0o644) as logged:
        for edge in edges.PATHS:
            for kind in APIS:
                for stream in (False, True):
                    prompt = f"{edge} {kind} {stream}: “ü” \n\t\\ 🙂, 31 tokens"
                    more = {"an_unknown_member": [1.50, None, {"x": 12345678901234567890}], "temperature": 1e0}
                    assert edges.ask(logged.port, edge, kind, prompt, stream, **more).whole
                    asked.append((kind, prompt, edges.body_of(edge, kind, prompt, stream, **more)))
    assert [(line["model"], line["request"], line["reply"][0]["text"]) for line in logged.lines] == \
        [(kind, body, reply_text(prompt)) for kind, prompt, body in asked]
    assert "12345678901234567890" in logged.text and "truncated" not in logged.text
    assert logged.mode == 0o600, oct(logged.mode)
    (said,) = [line for line in logged.said.splitlines() if "written to" in line]
    assert logged.path in said, said


def calls_choices_and_hits(upstream):
    with Logged(upstream, more="cache: {max_mb: 4}\n") as logged:
        tool = {"tools": [{"type": "function", "function": WEATHER}]}
        for stream in (False, True, True):  # the third is a hit
            edges.ask(logged.port, "openai", "openai", "use two tools " + str(stream), stream, **tool)
    for line in logged.lines:
        (reply,) = line["reply"]
        calls = [call.split(" ", 1) for call in reply["tool_calls"].splitlines()]
        assert reply["text"] == "" and [name for name, _ in calls] == ["weather"], reply
        assert json.loads(calls[0][1])["n"] == 1, calls
        assert line["request"]["tools"] == tool["tools"]
    assert len(logged.lines) == 3 and "cache" in json.dumps(logged.lines[2]), logged.lines


def no_secret(upstream):
    """Keys in headers, in texts, in escapes, in member names, across deltas and at the place where a text is cut."""
    client = "mein-eigenes-kennwort-9"
    shaped = "sk-ant-api03-" + "Ab1" * 12
    made = subprocess.run([PHAROS, "keys", "create", "--name", "x", "--data", tempfile.mkdtemp()], capture_output=True, text=True, check=True)
    ours = made.stdout.strip()
    secrets = [PROVIDER_KEY, HEADER_SECRET, client, shaped, ours]
    with Logged(upstream) as logged:
        for secret in secrets:
            body = {"model": "openai", secret: {"deep": [secret]}, "user": f"\n{secret}",
                    "messages": [{"role": "user", "content": f"is {secret}\0or {secret} right?\t{secret}"}]}
            text = json.dumps(body).replace(secret[3:6], "".join(f"\\u{ord(c):04x}" for c in secret[3:6]), 2)
            for name, value in (("authorization", "Bearer " + client), ("x-api-key", client)):
                assert logged.station.request("POST", edges.PATHS["openai"], text, {name: value}).status == 200
        for secret in secrets:
            for at in range(LIMIT - 64, LIMIT + 1100, 37):  # where the text of the request ends in the log
                filler = "x " * (at // 2)
                edges.ask(logged.port, "openai", "openai", f"{filler}{secret} {'y ' * 2000}", key=client)
    assert len(logged.lines) > 100, len(logged.lines)
    for secret in secrets:
        for part in (secret, secret[:10], secret[-10:]):
            assert part not in logged.text or part in ("sk-ant-api", "sk-pharos-") and secret not in logged.text, (secret, part)
    first = logged.lines[0]["request"]
    assert first["messages"][0]["content"] == "is [key]\0or [key] right?\t[key]", first
    assert first["user"] == "\n[key]" and first["[key]"] == {"deep": ["[key]"]}, first


def replies_are_scrubbed(upstream):
    """Arguments of a tool that repeat what was said, seven letters in a delta."""
    tools = [{"type": "function", "function": WEATHER}]
    with Logged(upstream) as logged:
        for stream in (False, True):
            edges.ask(logged.port, "openai", "openai", f"use a tool for {PROVIDER_KEY} please", stream, tools=tools)
    for line in logged.lines:
        assert line["reply"][0]["tool_calls"] == 'weather {"about":"use a tool for [key] please","n":1}', line["reply"]


def bounded(upstream):
    with Logged(upstream) as logged:
        edges.ask(logged.port, "openai", "openai", "long " * 30000 + "of 5 tokens")
        edges.ask(logged.port, "openai", "openai", "a long one of 20000 tokens", True)
        many = {"model": "openai", "messages": [{"role": "user", "content": f"piece {i} of 5 tokens"} for i in range(5000)]}
        assert logged.station.request("POST", edges.PATHS["openai"], many).status == 200
        edges.ask(logged.port, "openai", "openai", "ü🙂" * 40000 + "of 5 tokens")
    long, said, pieces, wide = logged.lines
    assert long["request_truncated"] and long["request"].startswith('{"model":"openai","messages":[{"role":"user","content":"long long'), long
    assert LIMIT - 8 <= len(long["request"]) <= LIMIT and "reply_truncated" not in long
    text = said["reply"][0]["text"]
    assert said["reply_truncated"] and reply_text("a long one of 20000 tokens").startswith(text)
    assert LIMIT - 2100 <= len(text.encode()) <= LIMIT and "request_truncated" not in said
    assert pieces["request_truncated"] and len(pieces["request"]) <= LIMIT and pieces["request"].startswith('{"model":"openai"')
    assert wide["request_truncated"] and len(wide["request"].encode()) <= LIMIT and "\ufffd" not in wide["request"]


def failures_too(upstream):
    with Logged(upstream) as logged:
        upstream.control("/__script", {"model": "openai-up", "faults": ["cut-3", "context"]})
        edges.ask(logged.port, "openai", "openai", "cut, 9 tokens", True)
        edges.ask(logged.port, "openai", "openai", "broken, 9 tokens", True)
        edges.ask(logged.port, "openai", "openai", "left, 9 tokens", True, stop_after=2, reset=True)
    cut, broken, _left = logged.lines
    assert cut["error"] and cut["request"]["messages"][0]["content"] == "cut, 9 tokens"
    assert cut["reply"][0]["text"] and reply_text("cut, 9 tokens").startswith(cut["reply"][0]["text"])
    assert broken["error"] and broken["reply"] == [{"text": ""}]


def configuration_errors(upstream):
    for log, words in (("request_log: {bodies: true}\n", ("request_log", "path")),
                       ("request_log: {path: /tmp/x, body: true}\n", ("body", "bodies")),
                       ("request_log: {path: /tmp/x, bodies: perhaps}\n", ("bodies", "perhaps")),
                       ("request_log: /nowhere/at/all\n", ("request_log", "/nowhere/at/all"))):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "station.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(configuration([model_line("m", "openai", "openai", "up")], [provider_line("openai", "openai", upstream)], log))
            done = subprocess.run([PHAROS, "serve", "--config", path, "--data", folder], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and all(word in done.stderr for word in words), (log, done.stderr)


def main():
    runner = Runner("log")
    with Upstream() as upstream:
        for check in (without_bodies, with_bodies, calls_choices_and_hits, no_secret, replies_are_scrubbed, bounded, failures_too,
                      configuration_errors):
            upstream.reset()
            runner.run(check.__name__, lambda: check(upstream))
    runner.finish()


if __name__ == "__main__":
    main()
