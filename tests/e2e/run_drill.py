#!/usr/bin/env python3
"""pharos drill as an operator runs it: a station survives its drill beside a user's traffic, of which nothing changes; one that
does not survive is found out; and whoever can't run one is told what to do.
"""
import http.client
import http.server
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

import edges
from behind import configuration, model_line, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text

CELLS = 23 * 4 * 3 * 2 * 2  # faults, APIs, dialects, streamed or whole, with a second provider or without
runner = Runner("drill")


def drill(*arguments, code=0, key=None, timeout=120):
    """What it printed on stdout and stderr."""
    environment = {name: value for name, value in os.environ.items() if name != "PHAROS_KEY"}
    if key:
        environment["PHAROS_KEY"] = key
    done = subprocess.run([PHAROS, "drill", *arguments], capture_output=True, timeout=timeout, text=True, env=environment, check=False)
    assert done.returncode == code, (arguments, done.returncode, done.stdout[-2000:], done.stderr)
    return done.stdout, done.stderr


def station_of(upstream, rest="drills: true\n"):
    provider = provider_line("openai", "openai", upstream).replace("connect_timeout_s: 2, timeout_s: 5, silence_timeout_s: 2", "timeout_s: 60")
    return configuration([model_line("gpt", "openai", "openai", "gpt-upstream")], [provider],
                         "budgets: {premium_usd_month: 100}\n" + rest)


def cost_total(data):
    done = subprocess.run([PHAROS, "cost", "report", "--by", "model,provider", "--json", "--data", data], capture_output=True, check=True)
    assert b"drill" not in done.stdout, done.stdout
    return json.loads(done.stdout)["total"]


def wait_for(what, seconds=10):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)


class User(threading.Thread):
    """Somebody who goes on working meanwhile."""

    def __init__(self, station):
        super().__init__()
        self.station, self.over, self.answers = station, threading.Event(), []

    def run(self):
        while not self.over.wait(0.1):
            prompt = f"question {len(self.answers)}"
            self.answers.append((prompt, edges.ask(self.station.port, "openai", "gpt", prompt, stream=len(self.answers) % 2 == 1)))


def a_station_survives_and_nobody_notices():
    with Upstream() as upstream, Station(station_of(upstream)) as station:
        user = User(station)
        user.start()
        try:
            out, said = drill("--url", station.url, "--json")
        finally:
            user.over.set()
            user.join()
        result = json.loads(out)
        assert not said and result["requests"] == CELLS and result["failed"] == 0, (said, result["failed"])
        assert len(result["results"]) == CELLS and all(cell["ok"] for cell in result["results"])
        assert result["seconds"] < 120, result["seconds"]
        assert len(user.answers) > 20, len(user.answers)
        for prompt, answer in user.answers:
            assert answer.whole and answer.text == reply_text(prompt), answer
        asked = upstream.meter()["requests"]
        assert len(asked) == len(user.answers), "the drill has asked a provider, or a user's request was repeated"
        wait_for(lambda: cost_total(station.data)["requests"] == len(asked))
        total = cost_total(station.data)
        assert total["output_tokens"] == sum(entry["output"] for entry in asked), total
        assert not [name for name in station.metrics() if "drill" in name]
        wait_for(lambda: not os.path.exists(os.path.join(station.data, "drill")))
        assert edges.ask(station.port, "openai", "drill/openai/500/1", "x").status == 404


def a_table_for_people():
    with Upstream() as upstream, Station(station_of(upstream)) as station:
        out, said = drill("--url", station.url + "/v1/", "--fault", "cut", "--fault", "401", "--api", "gemini")
        lines = out.splitlines()
        assert not said and len(lines) == 4, out
        assert lines[0].split()[:2] == ["fault", "gemini"] and lines[1].split()[:2] == ["401", "ok"], out
        assert lines[2].split()[:2] == ["cut", "ok"] and lines[3].startswith("24 of 24 requests ended as they should"), out
    assert len(drill("--fault", "list")[0].splitlines()) == 23


class Mending(http.server.BaseHTTPRequestHandler):
    """A proxy that waits for all of a reply and passes on what came of it as if it were whole, as some do."""
    protocol_version = "HTTP/1.1"

    def forward(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.station_port, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        reply = connection.getresponse()
        try:
            body = reply.read()
        except http.client.IncompleteRead as cut:
            body = cut.partial
        except ConnectionError:
            body = b""
        connection.close()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "date"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = forward

    def log_message(self, *_):
        pass


def what_mends_broken_streams_is_found_out():
    with Upstream() as upstream, Station(station_of(upstream)) as station:
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mending)
        proxy.daemon_threads, proxy.station_port = True, station.port
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        arguments = ["--url", url, "--fault", "cut", "--fault", "500", "--api", "openai"]
        out, said = drill(*arguments, code=1)
        failed = [line for line in out.splitlines() if line.startswith("FAILED ")]
        assert len(failed) == 3 and all("openai cut, alone" in line and "streamed: " in line for line in failed), out
        assert "3 of 12 fail" in out and "21 of 24 requests ended as they should" in out and not said, out
        result = json.loads(drill(*arguments, "--json", code=1)[0])
        bad = [cell for cell in result["results"] if not cell["ok"]]
        assert result["failed"] == len(bad) == 3, result["failed"]
        assert all(cell["stream"] and cell["fault"] == "cut" and not cell["second_provider"] and cell["problem"] for cell in bad), bad
        proxy.shutdown()
        proxy.server_close()


def off_is_off():
    with Upstream() as upstream, Station(station_of(upstream, "")) as station:
        out, said = drill("--url", station.url, code=1)
        assert not out and said.count("\n") == 1 and "drills: true" in said, said
        answer = edges.ask(station.port, "openai", "drill/openai/500/1", "x")
        assert answer.status == 404 and answer.error["code"] == "model_not_found", answer


def keys_decide_who_may():
    with Upstream() as upstream, tempfile.TemporaryDirectory() as data:
        def key(*arguments):
            return subprocess.run([PHAROS, "keys", "create", "--data", data, *arguments], capture_output=True, text=True,
                                  check=True).stdout.strip()
        chat, admin = key("--name", "me"), key("--name", "drill", "--scope", "admin", "--rpm", "2", "--budget-usd-month", "0.001")
        with Station(station_of(upstream), data=data, ready=False) as station:
            some = ["--url", station.url, "--fault", "500", "--api", "openai"]
            assert "--key" in drill(*some, code=1)[1]
            said = drill(*some, "--key", chat, code=1)[1]
            assert "--scope admin" in said and chat not in said, said
            path = os.path.join(data, "key")
            with open(path, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(admin + "\n")
            drill(*some, key=admin)  # its two requests a minute are not touched
            begun = station.request("POST", "/v1/drills", "{}", {"authorization": f"Bearer {admin}"})
            while begun.status == 409 and begun.json["error"]["code"] == "drill_ending":
                time.sleep(0.1)
                begun = station.request("POST", "/v1/drills", "{}", {"authorization": f"Bearer {admin}"})
            assert begun.status == 200, begun.text
            body = {"model": "drill/openai/500+ok/1", "messages": [{"role": "user", "content": "echo this"}]}
            reply = station.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {chat}"})
            assert reply.status == 404, reply.text
            reply = station.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {admin}"})
            assert reply.status == 200 and reply.json["choices"][0]["message"]["content"] == "echo this", reply.text
            record = station.request("GET", "/v1/routes/" + reply.json["id"], None, {"authorization": f"Bearer {admin}"}).json
            assert [attempt["outcome"] for attempt in record["attempts"]] == ["failed", "answered"], record
            said = drill(*some, "--key", "file:" + path, code=1)[1]
            assert "a drill is on already" in said, said
            for who, status in ((chat, 403), (admin, 200)):
                assert station.request("DELETE", "/v1/drills/" + begun.json["id"], None, {"authorization": f"Bearer {who}"}).status == status
            drill(*some, "--key", "file:" + path)


def what_cannot_be_is_said():
    for arguments, code, words in ((["--url", "http://127.0.0.1:1"], 1, "pharos serve"), (["--url", "ftp://x"], 1, "not the address"),
                                   (["--fault", "none"], 2, "--fault list"), (["--api", "cohere"], 2, "gemini"), (["--key"], 2, "--key")):
        out, said = drill(*arguments, code=code)
        assert not out and words in said, (arguments, said)
    with Upstream() as upstream:  # it speaks HTTP, and is no station
        assert "no station that does drills" in drill("--url", upstream.url, code=1)[1]


def it_can_be_interrupted():
    with Upstream() as upstream, Station(station_of(upstream)) as station:
        process = subprocess.Popen([PHAROS, "drill", "--url", station.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: os.path.exists(os.path.join(station.data, "drill")))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 1 and not out, (process.returncode, out)
        drill("--url", station.url, "--fault", "reset")  # the next one need not wait


def a_station_stops_in_the_middle_of_one():
    with Upstream() as upstream, Station(station_of(upstream)) as station:
        process = subprocess.Popen([PHAROS, "drill", "--url", station.url, "--fault", "hang", "--fault", "cut"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        wait_for(lambda: os.path.exists(os.path.join(station.data, "drill")))
        station.signal()
        assert station.wait() == 0, station.log()
        assert not os.path.exists(os.path.join(station.data, "drill"))
        process.communicate(timeout=60)
        assert process.returncode == 1


def main():
    for check in (a_station_survives_and_nobody_notices, a_table_for_people, what_mends_broken_streams_is_found_out, off_is_off,
                  keys_decide_who_may, what_cannot_be_is_said, it_can_be_interrupted, a_station_stops_in_the_middle_of_one):
        runner.run(check.__name__, check)
    runner.finish()


if __name__ == "__main__":
    main()
