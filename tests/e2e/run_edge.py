#!/usr/bin/env python3
"""The edge of a station under abuse: slow requests, too large ones, malformed ones, and thousands of open connections.

What run_wire.py has (a body of 413, nonsense, pipelining) is not repeated. Deadlines are the station's own, so a slow
client takes its ten seconds; all slow clients run side by side.
"""
import concurrent.futures
import json
import os
import resource
import socket
import time

from behind import TIME_OUTS, configuration, model_line, provider_line
from station import PHAROS, Runner, Station
from upstream import Upstream, reply_text

runner = Runner("edge")
CHAT = "/v1/chat/completions"
IDLE = int(os.environ.get("EDGE_IDLE", "5000"))
STREAMS = int(os.environ.get("EDGE_STREAMS", "1000"))
HEADER_DEADLINE_S = 10
HOST = b"host: localhost\r\n"

PATIENT = "connect_timeout_s: 60, timeout_s: 60, silence_timeout_s: 60"  # one upstream of Python writes a thousand streams


def body_of(model="gpt", prompt="Say hello", **more):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], **more}).encode()


def connect(station):
    connection = socket.create_connection(("127.0.0.1", station.port), timeout=30)
    return connection


def exchange(station, data):
    """The status and the body of what comes back until the connection ends; 0: it ended without a word."""
    with connect(station) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return status_and_body(read_all(connection))


def read_all(connection):
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except (ConnectionResetError, socket.timeout):
        pass
    return data


def status_and_body(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head.startswith(b"HTTP/1.") else 0, body


# ---- Slow clients

def trickle(station, data, step_s):
    """Sends a byte now and then until the station has had enough: seconds that took, and what it said."""
    start = time.monotonic()
    with connect(station) as connection:
        connection.settimeout(step_s)
        said = b""
        for byte in data:
            try:
                connection.sendall(bytes([byte]))
                said += connection.recv(65536) or b""
                if said:
                    break
            except socket.timeout:
                continue
            except OSError:
                break
            if not said:
                break
        connection.settimeout(5)
        said += read_all(connection)
    return time.monotonic() - start, status_and_body(said)[0]


def slow_heads_are_cut_off_while_others_are_served(station):
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"x-pad: " + b"a" * 4000
    worst = 0
    with concurrent.futures.ThreadPoolExecutor(70) as pool:
        slow = [pool.submit(trickle, station, head, 0.1) for _ in range(60)]
        while not all(each.done() for each in slow):
            start = time.monotonic()
            reply = station.request("POST", CHAT, body_of(), timeout=10)
            worst = max(worst, time.monotonic() - start)
            assert reply.status == 200, reply.text
            time.sleep(0.2)
    for each in slow:
        seconds, status = each.result()
        assert status in (0, 408), status
        assert seconds < HEADER_DEADLINE_S + 8, f"a slow head lived for {seconds:.1f} s"
    assert worst < 2, f"others waited {worst:.2f} s"


# ---- Malformed and oversized

def malformed_requests_are_refused(station):
    body = body_of()
    length = b"content-length: %d\r\n" % len(body)
    post = b"POST " + CHAT.encode() + b" HTTP/1.1\r\n"
    cases = {
        "two lengths": (post + HOST + length + b"content-length: 5\r\n\r\n" + body, {400}),
        "length and chunked": (post + HOST + length + b"transfer-encoding: chunked\r\n\r\n" + body, {400}),
        "negative length": (post + HOST + b"content-length: -1\r\n\r\n", {400}),
        "length with a sign": (post + HOST + b"content-length: +5\r\n\r\n12345", {400}),
        "huge length": (post + HOST + b"content-length: 99999999999999999999999\r\n\r\n", {400, 413}),
        "space before the colon": (post + b"host : x\r\n\r\n", {400}),
        "folded header": (post + HOST + b"a: b\r\n c\r\n\r\n", {400}),
        "bare CR": (post + HOST + b"a: b\rc: d\r\n\r\n", {400}),
        "NUL in a header": (post + HOST + b"a: b\0c\r\n\r\n", {400}),
        "unknown coding": (post + HOST + b"transfer-encoding: gzip\r\n\r\n", {400, 501}),
        "bad chunk size": (post + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", {400}),
        "chunk size too large": (post + HOST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", {400, 413}),
        "two hosts": (post + HOST + HOST + length + b"\r\n" + body, {400}),
        "no host": (post + length + b"\r\n" + body, {400}),
        "HTTP/2.0": (b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n", {400, 505}),
        "long target": (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414}),
        "many headers": (post + HOST + b"".join(b"h%d: 1\r\n" % i for i in range(5000)) + b"\r\n", {431}),
        "long header": (post + HOST + b"a: " + b"b" * 100000 + b"\r\n\r\n", {431}),
    }
    wrong = []
    for name, (data, statuses) in cases.items():
        status, reply = exchange(station, data)
        try:
            said = json.loads(reply)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = None
        if status not in statuses or not said:
            wrong.append(f"{name}: {status} {reply[:100]}")
    assert not wrong, "\n".join(wrong)


def bodies_that_are_no_requests(station):
    """On both edges: an error in the dialect's shape, and the station lives."""
    deep = b'{"model":"gpt","messages":' + b"[" * 100000
    bodies = (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"messages": 1}', b'{"model": {}, "messages": []}', deep,
              b'{"model":"gpt","max_tokens":5,"messages":[null]}', b'{"model":"gpt","max_tokens":5,"messages":[{"role":"user"}]}',
              b'{"model":"gpt","max_tokens":-5,"messages":[{"role":"user","content":"x"}]}',
              b'{"model":"gpt","max_tokens":5,"messages":[{"role":"user","content":[{"type":"image_url"}]}]}',
              b'{"model":"gpt","max_tokens":5,"tools":7,"messages":[{"role":"user","content":"x"}]}',
              b'{"model":"gpt","max_tokens":5,"messages":[{"role":"user","content":"\\ud800"}]}'[:-2])
    wrong = []
    for path in (CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings"):
        for body in bodies:
            reply = station.request("POST", path, body)
            try:
                error = reply.json["error"]
                fine = isinstance(error["message"], str) and error["type"] and 400 <= reply.status < 500
                fine = fine and ("messages" not in path[3:] or reply.json["type"] == "error")
            except (ValueError, KeyError, TypeError):
                fine = False
            if not fine:
                wrong.append(f"{path} {body[:60]}: {reply.status} {reply.text[:100]}")
    assert not wrong, "\n".join(wrong)
    assert station.request("POST", CHAT, body_of()).status == 200


def large_prompts_go_through(station):
    prompt = "long " * 200_000  # a million bytes
    reply = station.request("POST", CHAT, body_of(prompt=prompt + "5 tokens", model="wide"))
    assert reply.status == 200, reply.text[:300]
    assert reply.json["choices"][0]["message"]["content"] == reply_text(prompt + "5 tokens")


# ---- Many connections

def idle_connections_and_streams_are_held(station, upstream):
    """Thousands of idle connections beside a thousand open streams: all are there, and answer, at the end."""
    before = station.memory_kib()
    idle = [connect(station) for _ in range(IDLE)]
    streams = []
    request = body_of("slow", "600 tokens", stream=True)
    for _ in range(STREAMS):
        connection = connect(station)
        connection.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % len(request) + request)
        streams.append(connection)
    heads = [connection.recv(4096) for connection in streams]
    refused = [head for head in heads if not head.startswith(b"HTTP/1.1 200")]
    assert not refused, f"{len(refused)} of {STREAMS} streams were refused: {refused[0][:300]}"
    running = upstream.meter()["running"]
    assert running >= STREAMS * 0.98, f"{running} streams run upstream"
    held = station.memory_kib()
    assert station.request("POST", CHAT, body_of()).status == 200
    for connection in idle:
        connection.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
    answered = sum(connection.recv(4096).startswith(b"HTTP/1.1 200") for connection in idle)
    assert answered == IDLE, f"{answered} of {IDLE} idle connections answered"
    for connection in idle + streams:
        connection.close()
    until = time.monotonic() + 20
    while upstream.meter()["running"]:
        assert time.monotonic() < until, "streams go on upstream though their clients have gone"
        time.sleep(0.2)
    print(f"{IDLE} idle connections and {STREAMS} streams: {held - before} KiB more than before")


def a_reader_that_stops_reading_is_cut_off_in_the_end(station, upstream):
    """It holds up nobody, and what waits for it is bounded."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", station.port))
    request = body_of("fast", "60000 tokens", stream=True, max_tokens=60000)
    connection.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % len(request) + request)
    before = station.memory_kib()
    time.sleep(2)
    grown = station.memory_kib() - before
    sent = upstream.meter()["requests"][-1]["output"]
    connection.close()
    bound = 24 if "san-" not in PHAROS else 256  # MiB; sanitizers keep what was freed
    assert grown < bound * 1024, f"{grown} KiB for one reader that does not read"
    assert sent < 60000, "all of it was fetched for a reader that does not read"


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Upstream() as upstream:
        config = configuration(
            [model_line("gpt", "openai", "openai", "gpt-up"), model_line("slow", "openai", "openai", "slow-500", more=f"concurrency: {STREAMS + 8}"),
             model_line("fast", "openai", "openai", "fast-up"),
             model_line("wide", "openai", "openai", "wide-up").replace("context: 100000", "context: 4000000")],
            [provider_line("openai", "openai", upstream).replace(TIME_OUTS, PATIENT)])
        with Station(config) as station:
            for check in (malformed_requests_are_refused, bodies_that_are_no_requests, large_prompts_go_through):
                runner.run(check.__name__, lambda: check(station))
            runner.run("slow heads are cut off", lambda: slow_heads_are_cut_off_while_others_are_served(station))
            for check in (a_reader_that_stops_reading_is_cut_off_in_the_end, idle_connections_and_streams_are_held):
                runner.run(check.__name__, lambda: check(station, upstream))
    runner.finish()


if __name__ == "__main__":
    main()
