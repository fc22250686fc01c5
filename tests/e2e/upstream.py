#!/usr/bin/env python3
"""A fake upstream: OpenAI, Together, Anthropic and Gemini under /openai, /together, /anthropic, /gemini of one port.

Usage: upstream.py [--pace-ms N] [--tls]; prints one line of JSON: the ports, and with --tls the certificate to trust. A test
starts it with `Upstream()` below. Python's own library only; the HTTP/1.1 server is here, because its faults are the point.

Text, tools, usage: upstream_formats.py. It meters what it sends, one delta a token, request by request: that is what it bills.
A client that goes (shuts its half, or resets) stops its stream, and pays for what was sent until then. A whole reply is
generated and billed even when the client has gone; a reply that fails is billed for the tokens that went out in good form,
and for its prompt when there was one. "told_prompt": it has said how many tokens the prompt has; "unclear": it broke before
anybody could know whether it bills the prompt (it does not).

Faults come by the model's name ("fault-cut-5"), by script (POST /__script {"model": M, "faults": ["500", "ok", ...]}, one
a request, then none), or by chance (POST /__chaos {"rate": R, "seed": S, "faults": [...]}). They are:
  401 402 403 429 429-retry quota 500 overloaded model context filter credit   the provider's own errors (-retry: in 1 s)
  502-html          what a proxy in front of it says         wrong-type      200 with a page of HTML
  hang              nothing comes, ever                      reset           the connection breaks before a reply
  stall-N           N tokens, then nothing                   cut-N           N tokens, then the connection ends
  half-json-N       N tokens, then half a line of JSON       error-N         N tokens, then an error event
  endless           a body that has no end                   no-finish-N     N tokens, then an end that is none
  200-error         status 200, an error in the body         empty           status 200, no body
  no-usage          all is well but the sums are missing     rush            heeds no max_tokens, never ends
  runaway           as rush, but sends a delta when the one before it has been read
Keys: "bad..." is a wrong one, "broke..." has no credit, "forbidden..." is not allowed, "busy..." has used up its rate.
Elsewhere in a model's name: "slow-N" waits N ms a delta, "clump-N" sends N tokens in each delta of text, "noprefix" won't go on from an answer's beginning, "cache"
remembers prompts. GET /__meter: {"requests": [...], "sums": {...}}; POST /__reset; GET /__bodies: the last requests' bodies;
POST /__text {"prompt": P}: the answer's tokens; POST /__pace {"ms": N}.
"""
import argparse
import asyncio
import collections
import json
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request

from unread import unread_bytes
from upstream_formats import FORMATS, Answer, Refused, reply_text, reply_tokens  # noqa: F401: tests take them from here

HERE = os.path.dirname(os.path.abspath(__file__))
WITH_COUNT = {"stall", "cut", "half-json", "error", "no-finish"}
PLAIN_ERRORS = {"401", "402", "403", "429", "quota", "500", "overloaded", "model", "context", "filter", "credit"}
KEY_FAULTS = {"bad": "bad_key", "broke": "402", "forbidden": "403", "busy": "429"}
HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
           422: "Unprocessable Entity", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
           503: "Service Unavailable", 529: "Overloaded"}


class Gone(Exception):
    """The client has gone."""


class Connection(asyncio.Protocol):
    """One client: requests one after the other, each answered by a task."""

    def __init__(self, upstream):
        self.upstream, self.bytes, self.transport = upstream, b"", None
        self.gone, self.lost, self.task = asyncio.Event(), False, None
        self.can_write = asyncio.Event()
        self.can_write.set()

    def connection_made(self, transport):
        self.transport = transport
        if not transport.get_extra_info("ssl_object"):
            transport.set_write_buffer_limits(high=0)  # what is counted as sent is in the kernel
        self.upstream.connections.add(self)
        self.upstream.connections_total += 1

    def connection_lost(self, _error):
        self.lost = True
        self.upstream.connections.discard(self)
        self.gone.set()
        self.can_write.set()

    def eof_received(self):
        self.gone.set()
        if not self.task and not self.bytes:
            return None  # nothing is being answered: close
        return self.transport.get_extra_info("ssl_object") is None

    def pause_writing(self):
        self.can_write.clear()

    def resume_writing(self):
        self.can_write.set()

    def data_received(self, data):
        self.bytes += data
        if not self.task:
            self.next_request()

    def next_request(self):
        head, found, rest = self.bytes.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if headers.get("transfer-encoding"):
            raise ValueError("a client that sends chunks")
        if len(rest) < length:
            return
        body, self.bytes = rest[:length], rest[length:]
        self.task = asyncio.get_running_loop().create_task(self.answer(method, target, headers, body))

    async def answer(self, method, target, headers, body):
        try:
            await self.upstream.handle(self, method, target, headers, body)
        except Gone:
            self.transport.close()
        except Exception:
            self.transport.abort()
            raise
        finally:
            self.task = None
        if self.gone.is_set():
            self.transport.close()
        elif self.bytes:
            self.next_request()

    async def write(self, data):
        """False: the connection is lost; what was written is on its way."""
        if self.lost:
            return False
        self.transport.write(data)
        await self.can_write.wait()
        return not self.lost

    async def pause(self, seconds):
        """Raises Gone when the client goes meanwhile, or had gone."""
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            try:
                await asyncio.wait_for(self.gone.wait(), seconds)
            except asyncio.TimeoutError:
                pass
        if self.gone.is_set():
            raise Gone

    def unread(self):
        """Bytes on the wire that the client has not read. Who is billed for those tells of the machine's load, not of the client."""
        return unread_bytes(self.transport.get_extra_info("sockname"), self.transport.get_extra_info("peername"))

    async def reply(self, status, body, content_type="application/json", headers=None):
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
        await self.write(self.head(status, content_type, {**(headers or {}), "content-length": str(len(body))}) + body)

    def head(self, status, content_type, headers):
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Other')}", f"content-type: {content_type}",
                 *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def begin_stream(self, content_type="text/event-stream; charset=utf-8", headers=None):
        await self.write(self.head(200, content_type, {**(headers or {}), "transfer-encoding": "chunked"}))

    async def chunk(self, data):
        if data:
            await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self):
        await self.write(b"0\r\n\r\n")

    def cut(self):
        self.transport.abort()


class Fault:
    def __init__(self, text):
        match = re.fullmatch(r"(.+?)-(\d+)", text or "ok")
        self.name, self.after = (match.group(1), int(match.group(2))) if match and match.group(1) in WITH_COUNT else (text or "ok", 0)

    def of(self, *names):
        return self.name in names


class Server:
    def __init__(self, pace_ms):
        self.pace_ms = pace_ms
        self.connections, self.connections_total = set(), 0
        self.reset()

    def reset(self):
        self.meter, self.bodies, self.scripts = [], collections.deque(maxlen=64), {}
        self.chaos, self.seen, self.delay_ms = None, set(), 0

    # ---- Requests

    async def handle(self, connection, method, target, headers, body):
        path, _, query = target.partition("?")
        if path.startswith("/__"):
            return await self.control(connection, path, body)
        format = FORMATS.get(path.split("/")[1])
        if not format:
            return await connection.reply(404, {"error": {"message": f"no such path {path}"}})
        if method == "GET":
            return await connection.reply(200, {"object": "list", "data": [{"id": "any", "object": "model"}]})
        entry = {"n": len(self.meter), "kind": format.kind, "path": path, "key": format.key(headers, query), "model": None,
                 "id": None, "request_id": headers.get("x-request-id"), "stream": False, "status": 0, "fault": "ok",
                 "prompt": 0, "cached": 0, "cache_write": 0, "output": 0, "told_prompt": False, "unclear": False, "end": "running"}
        self.meter.append(entry)
        try:
            await self.respond(connection, format, entry, path, query, headers, body)
        except Gone:
            entry["end"] = "reset" if connection.lost else "hung up"
            raise
        finally:
            if entry["end"] == "running":
                entry["end"] = "reset" if connection.lost else "whole" if entry["fault"] == "ok" else "fault"

    async def respond(self, connection, format, entry, path, query, headers, body):
        try:
            parsed = json.loads(body)
            ask = format.parse(path, query, parsed)
        except Refused as refusal:
            return await self.refuse(connection, format, entry, refusal.name, refusal.message)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return await self.refuse(connection, format, entry, "bad", f"cannot read that: {error!r}")
        self.bodies.append({"n": entry["n"], "path": path, "headers": headers, "body": parsed})
        entry.update(model=ask.model, id=ask.id, stream=ask.stream, operation=ask.operation, asked=ask.last()[:200])
        fault = self.fault_of(ask.model)
        if self.chaos and fault.of("no-usage") and not ask.stream:
            fault = Fault("ok")  # nobody could count a whole reply without sums
        entry["fault"] = fault.name
        entry["unclear"] = fault.of("reset", "hang") or (not ask.stream and fault.of("stall", "cut", "endless", "error", "no-finish", "half-json"))
        if not entry["key"]:
            return await self.refuse(connection, format, entry, "bad_key")
        for start, name in KEY_FAULTS.items():
            if entry["key"].startswith(start):
                return await self.refuse(connection, format, entry, name)
        if await self.fails_before(connection, format, entry, fault):
            return None
        self.remember(ask, entry)
        if ask.operation == "count":
            counts = {"input_tokens": ask.prompt_tokens} if format.kind == "anthropic" else {"totalTokens": ask.prompt_tokens}
            return await connection.reply(200, counts)
        if ask.operation == "embed":
            entry.update(status=200, prompt=ask.prompt_tokens, told_prompt=True)
            return await connection.reply(200, format.embeddings(ask))
        answer = Answer(ask)
        entry["wrong_beginning"] = answer.wrong_beginning
        entry["went_on"] = bool(ask.begins_with) and not answer.wrong_beginning
        send = self.send_stream if ask.stream else self.send_whole
        return await send(connection, format, entry, ask, answer, fault)

    def fault_of(self, model):
        if self.scripts.get(model):
            return Fault(self.scripts[model].pop(0))
        match = re.search(r"fault-([a-z0-9-]+)", model)
        if match:
            return Fault(match.group(1))
        if self.chaos and self.chaos["random"].random() < self.chaos["rate"]:
            return Fault(self.chaos["random"].choice(self.chaos["faults"]))
        return Fault("ok")

    async def refuse(self, connection, format, entry, name, message=None, headers=None, **more):
        status, body = format.error(name, message, **more)
        entry.update(status=status, end="refused", why=message or name)
        await connection.reply(status, body, headers=headers)

    async def fails_before(self, connection, format, entry, fault):
        """Faults before the first token. True: that was the reply."""
        if fault.name in PLAIN_ERRORS:
            name = fault.name if fault.name in format.errors else "429" if fault.of("quota") else "402"
            await self.refuse(connection, format, entry, name)
        elif fault.of("429-retry"):
            more = {"seconds": 1} if format.kind == "gemini" else {}
            await self.refuse(connection, format, entry, "429", headers=format.rate_headers(1), **more)
        elif fault.of("502-html"):
            entry["status"] = 502
            await connection.reply(502, HTML, "text/html")
        elif fault.of("wrong-type"):
            entry["status"] = 200
            await connection.reply(200, b"<!doctype html><title>Sign in</title><p>Please sign in to the hotel's network.", "text/html")
        elif fault.of("200-error"):
            entry["status"] = 200
            await connection.reply(200, format.error("500")[1])
        elif fault.of("empty"):
            entry["status"] = 200
            await connection.reply(200, b"")
        elif fault.of("reset"):
            connection.cut()
        elif fault.of("hang"):
            await self.sleep_for_ever(connection)
        else:
            return False
        return True

    async def sleep_for_ever(self, connection):
        await connection.gone.wait()
        raise Gone

    def remember(self, ask, entry):
        """Prompt caches: Anthropic's where it is marked, the others' by the beginning of the conversation."""
        mark = getattr(ask, "cache_mark", None)
        if "cache" in ask.model and not mark and len(ask.messages) > 1:
            mark = repr(ask.messages[:-1])
        if mark:
            size = max(1, ask.prompt_tokens - 3)
            if (ask.model, mark) in self.seen:
                ask.cached = size
            elif hasattr(ask, "cache_mark"):
                ask.cache_write = size
            self.seen.add((ask.model, mark))
        entry.update(cached=ask.cached, cache_write=ask.cache_write)

    # ---- Replies

    def pace(self, ask):
        slow = self.number_in(ask, "slow")
        return (self.pace_ms if slow is None else slow) / 1000

    def number_in(self, ask, name):
        match = re.search(rf"{name}-(\d+)", ask.model)
        return int(match.group(1)) if match else None

    async def send_whole(self, connection, format, entry, ask, answer, fault):
        try:
            await connection.pause(self.pace(ask) * answer.count)
        except Gone:
            if connection.lost:
                raise
        value = format.whole(ask, answer)
        if fault.of("no-usage"):
            value.pop("usage", None)
            value.pop("usageMetadata", None)
        body = json.dumps(value, ensure_ascii=False).encode()
        entry["status"] = 200
        if fault.of("stall", "cut", "endless", "error", "no-finish"):
            size = len(body) + (1 << 40 if fault.of("endless") else 0)
            await connection.write(connection.head(200, format_type(format), {"content-length": str(size)}) + body[:len(body) // 2])
            if fault.of("stall"):
                await self.sleep_for_ever(connection)
            while fault.of("endless") and await connection.write(b" " * 65536):
                await connection.pause(0)
            return connection.cut()
        if fault.of("half-json"):
            return await connection.reply(200, body[:len(body) // 2])
        entry.update(prompt=ask.prompt_tokens, output=answer.count, told_prompt=not fault.of("no-usage"))
        return await connection.reply(200, body)

    async def send_stream(self, connection, format, entry, ask, answer, fault):
        as_array = format.kind == "gemini" and not ask.sse
        await connection.begin_stream("application/json; charset=UTF-8" if as_array else "text/event-stream; charset=utf-8")
        entry["status"] = 200
        if fault.of("endless"):
            await connection.chunk(b'data: {"endless": "')
            while await connection.write(b"10000\r\n%b\r\n" % (b"x" * 65536)):
                await connection.pause(0)
            raise Gone
        await self.send_tokens(connection, format, entry, ask, answer, fault)
        if fault.of("stall"):
            await self.sleep_for_ever(connection)
        if fault.of("cut"):
            return connection.cut()
        if fault.of("half-json"):
            await connection.chunk(b'data: {"id":"x","choi\n\n')
        elif fault.of("error"):
            await connection.chunk(format.error_event())
        elif not fault.of("no-finish"):
            end = format.end(ask, answer, entry["output"])
            if fault.of("no-usage"):
                end = re.sub(rb'"(usage|usageMetadata)":\{(?:[^{}]|\{[^{}]*\})*\}', rb'"\1":null', end)
            entry.update(prompt=ask.prompt_tokens, told_prompt=entry["told_prompt"] or not fault.of("no-usage"))
            await connection.chunk(end)
        return await connection.end_stream()

    async def send_tokens(self, connection, format, entry, ask, answer, fault):
        """One write a delta; what was written is what is billed."""
        pace, limit = self.pace(ask), fault.after if fault.name in WITH_COUNT else 1 << 60
        pieces = self.endless_pieces(answer) if fault.of("rush", "runaway") else answer.pieces()
        await connection.chunk(format.begin(ask, answer))
        if format.kind == "anthropic":  # it has said the prompt's size
            entry.update(prompt=ask.prompt_tokens, told_prompt=True)
        for what, index, text, tokens in clumps(pieces, self.number_in(ask, "clump") or 1):
            if what != "call":
                if entry["output"] >= limit:
                    break
                entry["prompt"] = ask.prompt_tokens  # it was read, also for a client that goes now
                await connection.pause(pace)
                while fault.of("runaway") and connection.unread():
                    await connection.pause(0.001)
            sent = entry["output"] + tokens
            if not await connection_write(connection, format.piece(ask, what, index, text, sent)):
                raise Gone
            entry.update(output=sent, prompt=ask.prompt_tokens,
                         told_prompt=entry["told_prompt"] or format.kind == "gemini")

    def endless_pieces(self, answer):
        while True:
            yield from (piece for piece in answer.pieces() if piece[0] == "text")

    # ---- Control

    async def control(self, connection, path, body):
        value = json.loads(body) if body else {}
        if path == "/__meter":
            running = sum(entry["end"] == "running" for entry in self.meter)
            reply = {"requests": self.meter, "sums": self.sums(), "running": running,
                     "connections": len(self.connections), "connections_total": self.connections_total}
        elif path == "/__bodies":
            reply = list(self.bodies)
        elif path == "/__reset":
            self.reset()
            reply = {}
        elif path == "/__script":
            self.scripts[value["model"]] = list(value["faults"])
            reply = {}
        elif path == "/__chaos":
            self.chaos = {**value, "random": random.Random(value.get("seed", 1))} if value.get("rate") else None
            reply = {}
        elif path == "/__text":
            reply = {"tokens": reply_tokens(value["prompt"]), "text": reply_text(value["prompt"])}
        elif path == "/__pace":
            self.pace_ms = value["ms"]
            reply = {}
        else:
            return await connection.reply(404, {"error": f"no control {path}"})
        return await connection.reply(200, reply)

    def sums(self):
        sums = {}
        for entry in self.meter:
            row = sums.setdefault(f"{entry['kind']}/{entry['model']}", collections.Counter())
            row.update({name: entry[name] for name in ("prompt", "cached", "cache_write", "output")})
            row["requests"] += 1
        return sums


def clumps(pieces, size):
    """(what, index, text, tokens) with up to `size` tokens of text in one."""
    texts = []
    for what, index, text in pieces:
        if what == "text":
            texts.append(text)
        if texts and (what != "text" or len(texts) == size):
            yield "text", 0, "".join(texts), len(texts)
            texts = []
        if what != "text":
            yield what, index, text, int(what != "call")
    if texts:
        yield "text", 0, "".join(texts), len(texts)


def format_type(format):
    return "application/json; charset=UTF-8" if format.kind == "gemini" else "application/json"


async def connection_write(connection, data):
    if connection.lost:
        return False
    if data:
        connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        await connection.can_write.wait()
    return True


# ---- Certificates, made with openssl where they are needed

def make_certificates(directory):
    """An authority, a certificate of its for 127.0.0.1 and localhost, and one for another name."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=Test authority",
            "-keyout", "ca.key", "-out", "ca.pem")
    for name, names in (("good", "IP:127.0.0.1,DNS:localhost"), ("wrong", "DNS:elsewhere.example")):
        with open(os.path.join(directory, name + ".ext"), "w", encoding="ascii") as file:
            file.write(f"subjectAltName={names}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", name + ".key",
                "-out", name + ".csr")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", name + ".ext", "-out", name + ".pem")


def tls_context(directory, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(directory, name + ".pem"), os.path.join(directory, name + ".key"))
    return context


async def serve(options):
    loop = asyncio.get_running_loop()
    server = Server(options.pace_ms)

    async def listen(context=None):
        listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, ssl=context, backlog=4096)
        return listener.sockets[0].getsockname()[1]
    said = {"port": await listen()}
    with tempfile.TemporaryDirectory() as directory:
        if options.tls:
            make_certificates(directory)
            said.update(tls_port=await listen(tls_context(directory, "good")), ca=os.path.join(directory, "ca.pem"),
                        wrong_tls_port=await listen(tls_context(directory, "wrong")))
        print(json.dumps(said), flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()


class Upstream:
    """The fake upstream as a process of its own, for tests. Use as a context manager."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "upstream.py"), *arguments],
                                        stdout=subprocess.PIPE, text=True)
        said = json.loads(self.process.stdout.readline())
        self.port, self.tls_port = said["port"], said.get("tls_port")
        self.wrong_tls_port, self.ca = said.get("wrong_tls_port"), said.get("ca")
        self.url = f"http://127.0.0.1:{self.port}"

    def base_url(self, kind, url=None):
        return f"{url or self.url}/{kind}/{'v1beta' if kind == 'gemini' else 'v1'}"

    def control(self, path, value=None):
        body = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data=body), timeout=60) as reply:
            return json.loads(reply.read())

    def meter(self):
        return self.control("/__meter")

    def reset(self):
        self.control("/__reset", {})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pace-ms", type=float, default=0)
    parser.add_argument("--tls", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
