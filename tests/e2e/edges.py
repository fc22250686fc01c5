"""Asks a station in OpenAI's, Anthropic's or the Responses dialect, over a plain socket, and says exactly how the reply went.

The client packages hide how a stream ended; here a reply has its text, its error, and whether it was whole: the dialect's own
last word was said, and the connection ended as HTTP wants it.
"""
import http.client
import json
import socket

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "responses": "/v1/responses"}


class Answer:
    def __init__(self):
        self.status, self.headers = 0, {}
        self.text, self.error, self.usage, self.finish = "", None, None, None
        self.said_end = False   # [DONE], message_stop, response.completed; a whole body
        self.clean = False      # HTTP's own end
        self.comments = 0
        self.deltas = 0         # pieces of text

    @property
    def whole(self):
        return self.status == 200 and self.error is None and self.said_end and self.clean

    def __repr__(self):
        return (f"status {self.status}, text {self.text[:60]!r}, error {self.error}, finish {self.finish}, "
                f"said its end {self.said_end}, clean {self.clean}")


def body_of(edge, model, prompt, stream=False, max_tokens=None, **more):
    if edge == "responses":
        body = {"model": model, "input": prompt, "stream": stream, **more}
        return body if max_tokens is None else {**body, "max_output_tokens": max_tokens}
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream, **more}
    if edge == "anthropic":
        return {"max_tokens": max_tokens or 4096, **body}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body if max_tokens is None else {**body, "max_tokens": max_tokens}


def ask(port, edge, model, prompt, stream=False, key="any", stop_after=None, reset=False, timeout=60, headers=None,
        **more):
    """One request. stop_after N: the client goes after N pieces of a stream, or N seconds of waiting for a whole reply."""
    body = json.dumps(body_of(edge, model, prompt, stream, **more))
    wait = stop_after if stop_after is not None and not stream else timeout
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait)
    answer = Answer()
    try:
        connection.request("POST", PATHS[edge], body, {"content-type": "application/json", "authorization": f"Bearer {key}",
                                                       **(headers or {})})
        reply = connection.getresponse()
        answer.status, answer.headers = reply.status, {name.lower(): value for name, value in reply.getheaders()}
        if reply.status == 200 and stream:
            read_stream(edge, reply, answer, stop_after)
        else:
            read_whole(edge, json.loads(reply.read()), answer)
            answer.clean = True
    except (ConnectionError, http.client.HTTPException, socket.timeout) as problem:
        answer.problem = repr(problem)
    finally:
        if reset and connection.sock:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    return answer


def read_whole(edge, body, answer):
    if "error" in body and body["error"]:
        answer.error = body["error"]
        if edge == "anthropic":
            assert body["type"] == "error", body
        return
    answer.said_end, answer.usage = True, body["usage"]
    if edge == "openai":
        answer.text, answer.finish = body["choices"][0]["message"]["content"] or "", body["choices"][0]["finish_reason"]
    elif edge == "anthropic":
        answer.text = "".join(block.get("text", "") for block in body["content"])
        answer.finish = body["stop_reason"]
    else:
        answer.text = "".join(part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"])
        answer.finish = body["status"]


def lines_of(reply):
    """By read1, which tells a body that was cut from one that ended; iteration over the reply does not."""
    rest = b""
    while data := reply.read1(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


def read_stream(edge, reply, answer, stop_after):
    read = {"openai": read_openai, "anthropic": read_anthropic, "responses": read_responses}[edge]
    pieces = 0
    for line in lines_of(reply):
        if line.startswith(b":"):
            answer.comments += 1
        if not line.startswith(b"data: "):
            continue
        data = line[6:].strip()
        pieces += 1
        if data == b"[DONE]":
            answer.said_end = True
        else:
            read(json.loads(data), answer)
        if stop_after is not None and pieces >= stop_after:
            return
    answer.clean = True


def add(answer, text):
    answer.text += text
    answer.deltas += bool(text)


def read_openai(event, answer):
    if event.get("error"):
        answer.error = event["error"]
        return
    for choice in event["choices"]:
        add(answer, choice["delta"].get("content") or "")
        answer.finish = choice["finish_reason"] or answer.finish
    answer.usage = event.get("usage") or answer.usage


def read_anthropic(event, answer):
    if event["type"] == "error":
        answer.error = event["error"]
    elif event["type"] == "message_start":
        answer.usage = dict(event["message"]["usage"])
    elif event["type"] == "content_block_delta":
        add(answer, event["delta"].get("text", ""))
    elif event["type"] == "message_delta":
        answer.finish = event["delta"]["stop_reason"]
        answer.usage.update({name: value for name, value in event["usage"].items() if value is not None})
    elif event["type"] == "message_stop":
        answer.said_end = True


def read_responses(event, answer):
    if event["type"] == "response.output_text.delta":
        add(answer, event["delta"])
    elif event["type"] in ("response.completed", "response.incomplete"):
        answer.said_end, answer.finish, answer.usage = True, event["response"]["status"], event["response"]["usage"]
    elif event["type"] == "response.failed":
        answer.error = event["response"]["error"]
    elif event["type"] == "error":
        answer.error = event


def output_tokens(answer):
    usage = answer.usage or {}
    return usage.get("completion_tokens", usage.get("output_tokens"))
