#!/usr/bin/env python3
"""pharos chat: against stations that follow a script, a real station, and a model in its own process."""
import http.server
import json
import os
import signal
import subprocess
import threading

from station import PHAROS, STORIES, Runner, Station

runner = Runner("chat")


class FakeStation:
    """Answers each request with the next script: a list of raw pieces; None holds the connection open."""

    def __init__(self, *scripts):
        self.scripts, self.requests, self.held = list(scripts), [], threading.Event()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                fake.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.close_connection = True
                for piece in fake.scripts.pop(0):
                    if piece is None:
                        fake.held.set()
                        try:
                            while self.connection.recv(1):
                                pass
                        except OSError:
                            pass
                        return
                    self.wfile.write(piece.encode())
                    self.wfile.flush()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def chunk(text):
    return f"{len(text.encode()):x}\r\n{text}\r\n"


HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = chunk("data: [DONE]\n\n") + "0\r\n\r\n"


def says(text):
    return chunk("data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) + "\n\n")


def chat(*arguments, lines):
    return subprocess.run([PHAROS, "chat", *arguments], input=lines, capture_output=True, text=True, timeout=300,
                          check=False)


def history_is_kept():
    # The second reply comes cut into bytes, with a comment line, and without chunks.
    plain = "HTTP/1.1 200 OK\r\n\r\n: keep-alive\n\n" + \
        "data: " + json.dumps({"choices": [{"delta": {"content": "two"}}]}) + "\r\n\r\ndata: [DONE]\n\n"
    with FakeStation([HEAD, says("o"), says("ne"), END], list(plain), [HEAD, says("3"), END]) as fake:
        done = chat("--url", fake.url + "/v1/", "--model", "m", "--system", "S", lines="a\nb \\\nc\n/new\nd\n/exit\ne\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n3\n", ""), done
    assert fake.requests[0]["model"] == "m" and fake.requests[0]["stream"] is True
    assert fake.requests[1]["messages"] == [
        {"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "one"},
        {"role": "user", "content": "b \nc"}]
    assert fake.requests[2]["messages"][1:] == [{"role": "user", "content": "d"}]


def terminals_are_not_driven():
    with FakeStation([HEAD, says("a\x1b[2J\x07b\u00e9"), END]) as fake:
        done = chat("--url", fake.url, lines="x\n")
    assert done.stdout == "a?[2J?b\u00e9\n", done


def failures_are_said():
    error = '{"error":{"message":"no such thing","type":"t","param":null,"code":null}}'
    refused = f"HTTP/1.1 404 Not Found\r\ncontent-length: {len(error)}\r\n\r\n{error}"
    for script, text in (([refused], "no such thing"), ([HEAD, says("a"), chunk(f"data: {error}\n\n")], "no such thing"),
                         ([HEAD, says("a")], "hung up"), ([HEAD, says("a"), "0\r\n\r\n"], "no end"),
                         (["HTTP/1.1 500 Oops\r\n\r\n<html>"], "500"), (["SSH-2.0-OpenSSH\r\n"], "HTTP"),
                         ([HEAD, "zz\r\n"], "damaged"), ([], "hung up")):
        with FakeStation(script) as fake:
            done = chat("--url", fake.url, lines="x\n")
        assert done.returncode == 1 and text in done.stderr and len(done.stderr.splitlines()) == 1, (script, done)
    for url, text in (("https://127.0.0.1:1", "http"), ("http://127.0.0.1:1", "refused"), ("http://", "address")):
        done = chat("--url", url, lines="x\n")
        assert done.returncode == 1 and text in done.stderr, done


def interrupted(arguments, seen):
    """Asks, interrupts once the reply has begun, asks again; the finished process and its output."""
    process = subprocess.Popen([PHAROS, "chat", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdin.write("Once upon a time\n")
    process.stdin.flush()
    first = process.stdout.read(1)
    seen()
    process.send_signal(signal.SIGINT)
    process.stdin.write("/new\nGoodbye\n")
    process.stdin.close()
    rest = process.stdout.read()
    errors = process.stderr.read()
    return process.wait(60), first + rest, errors


def interrupts_end_the_reply_only():
    with FakeStation([HEAD, says("abc"), None], [HEAD, says("next"), END]) as fake:
        code, text, errors = interrupted(["--url", fake.url], lambda: fake.held.wait(20))
    assert (code, text, errors) == (0, "abc\nnext\n", ""), (code, text, errors)
    assert fake.requests[1]["messages"] == [{"role": "user", "content": "Goodbye"}]
    with Station() as station:
        code, text, errors = interrupted(["--url", station.url], lambda: None)
        assert code == 0 and text.count("\n") >= 2 and not errors, (code, text, errors)
        station.wait_idle()
    code, text, errors = interrupted(["--model", STORIES], lambda: None)
    assert code == 0 and text.count("\n") >= 2 and not errors, (code, text, errors)


def a_model_in_the_process_answers():
    done = chat("--model", STORIES, lines="Once upon a time\n")
    assert done.returncode == 0 and len(done.stdout) > 2, done
    done = chat("--model", os.path.abspath(__file__) + ".gguf", "--url", "http://127.0.0.1:1", lines="x\n")
    assert done.returncode == 1
    done = chat("--model", os.path.abspath(__file__), lines="x\n")
    assert done.returncode == 1 and "GGUF" in done.stderr, done


for check in (history_is_kept, terminals_are_not_driven, failures_are_said, interrupts_end_the_reply_only,
              a_model_in_the_process_answers):
    runner.run(check.__name__, check)
runner.finish()
