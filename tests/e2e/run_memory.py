#!/usr/bin/env python3
"""Memory in the path of requests: what is stored, what a model gets to see, and that nobody sees another's.

Over the embedded store, then over PostgreSQL with a server of the tests' own (postgres.py), which is also taken away and given back
while a station runs. `run_memory.py [NAME...]` runs some of the checks, `sqlite` and `postgres` choose the store. The fake upstream answers and remembers what it was asked. With the official packages, where build/e2e has them, memory_clients.py and
memory_clients.mjs check more.
"""
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

from postgres import Missing, Server
from station import PHAROS, TINY, Runner, Station, Stream, request
from upstream import Upstream, reply_text

CONFIG = """
listen: 127.0.0.1:0
models:
  - {{id: m, provider: fake, upstream: fine, context: 8192}}
  - {{id: narrow, provider: fake, upstream: fine, context: 400}}
  - {{id: slow, provider: fake, upstream: slow-30, context: 8192}}
  - {{id: cut, provider: fake, upstream: fault-cut-4, context: 8192}}
  - {{id: claude, provider: claude, upstream: claude-3, context: 8192}}
providers:
  fake: {{api: openai, base_url: {openai}, key: k}}
  claude: {{api: anthropic, base_url: {anthropic}, key: k}}
{more}
"""


class Place:
    """Where the stations of the checks keep what they remember; its name is the first word of the counts."""

    def __init__(self, server=None):
        self.server = server
        self.name = "memory in postgres" if server else "memory"
        self.url = server.url.replace("pharos@", "pharos:geheim@") if server else None  # nobody asks for it, and nobody may tell it
        self.line = f'memory: {{store: "{self.url}"}}' if server else ""

    def empty(self):
        if self.server:
            self.server.sql("DROP SCHEMA IF EXISTS pharos CASCADE")

    def arguments(self, station):
        """For a command that looks into a station's store."""
        return ["--data", station.data, *(["--store", self.url] if self.server else [])]


place = Place()


def configuration(upstream, more=None):
    return CONFIG.format(openai=upstream.base_url("openai"), anthropic=upstream.base_url("anthropic"), more=place.line if more is None else more)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


class Talker:
    """One client of a station: asks in a dialect, reads what is kept."""

    def __init__(self, station, upstream, headers=None):
        self.station, self.upstream, self.headers = station, upstream, headers or {}

    def send(self, method, path, body=None, **headers):
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(self.station.port, method, path, body, {**self.headers, **more})

    def chat(self, conversation, *messages, model="m", status=200, **more):
        body = {"model": model, "messages": list(messages), **more}
        if conversation:
            body["metadata"] = {"conversation_id": conversation, **more.get("metadata", {})}
        reply = self.send("POST", "/v1/chat/completions", body)
        assert reply.status == status, (reply.status, reply.text)
        return reply

    def say(self, conversation, text, **more):
        """A turn; the reply's text, and what the model was sent."""
        reply = self.chat(conversation, user(text), **more)
        said = reply.json["choices"][0]["message"]["content"]
        return said, self.seen()

    def seen(self):
        """The messages that the model was sent last, as (role, text)."""
        body = self.upstream.control("/__bodies")[-1]
        body = body.get("body", body)
        return [(m["role"], m["content"]) for m in body["messages"]]

    def items(self, conversation, query="order=asc&limit=100"):
        reply = self.send("GET", f"/v1/conversations/{conversation}/items?{query}")
        assert reply.status == 200, reply.text
        return reply.json

    def wait_for_items(self, conversation, count):
        """What is stored when nobody waits for it."""
        until = time.monotonic() + 10
        while len(self.items(conversation)["data"]) < count and time.monotonic() < until:
            time.sleep(0.02)

    def kept(self, conversation):
        """[(role, text)] of all that is kept."""
        found = []
        for item in self.items(conversation)["data"]:
            if item["type"] == "message":
                found.append((item["role"], "".join(part.get("text", "?") for part in item["content"])))
            else:
                found.append((item["type"], item.get("name") or item.get("output") or ""))
        return found


def new_messages_and_whole_histories(t):
    one, _ = t.say("plain", "first question")
    two, seen = t.say("plain", "second question")
    assert seen == [("user", "first question"), ("assistant", one), ("user", "second question")], seen
    whole = [user("first question"), assistant(one), user("second question"), assistant(two), user("third question")]
    reply = t.chat("plain", *whole)
    three = reply.json["choices"][0]["message"]["content"]
    expected = [(m["role"], m["content"]) for m in whole]
    assert t.seen() == expected, t.seen()
    assert t.kept("plain") == expected + [("assistant", three)], t.kept("plain")
    assert "history=4/4; " not in reply.headers["x-pharos-route"] and "history=4/4" in reply.headers["x-pharos-route"]
    assert "strategy=all" in reply.headers["x-pharos-route"], reply.headers["x-pharos-route"]
    # the end of a history alone, with other white space
    t.chat("plain", assistant(three + "\n"), user("fourth"))
    assert len(t.kept("plain")) == 8


def questions_asked_again(t):
    t.chat("again", user("lost"), model="cut", status=502)
    assert t.kept("again")[0] == ("user", "lost"), t.kept("again")
    before = len(t.kept("again"))
    said, _ = t.say("again", "lost") if before == 1 else (None, None)
    if said:
        assert t.kept("again") == [("user", "lost"), ("assistant", said)], t.kept("again")
    said, _ = t.say("again", "lost")  # it has an answer now: it is said once more
    assert t.kept("again")[-2:] == [("user", "lost"), ("assistant", said)]


def edited_histories_are_branches(t):
    one, _ = t.say("edited", "a")
    two, _ = t.say("edited", "b")
    t.chat("edited", user("a"), assistant(one), user("b, but otherwise"))
    assert t.seen() == [("user", "a"), ("assistant", one), ("user", "b, but otherwise")]
    three, seen = t.say("edited", "c")
    assert ("user", "b") not in seen and ("assistant", two) not in seen and ("user", "b, but otherwise") in seen, seen
    assert ("user", "b") in t.kept("edited") and ("assistant", two) in t.kept("edited")  # kept for ever
    # an answer made anew
    t.chat("edited", *[{"role": role, "content": text} for role, text in seen])
    assert t.seen() == seen
    _, seen = t.say("edited", "d")
    assert seen.count(("user", "c")) == 1, seen


def system_messages_hold(t):
    t.chat("system", {"role": "system", "content": "speak low"}, user("hello"))
    _, seen = t.say("system", "hello again")
    assert seen[0] == ("system", "speak low"), seen
    t.chat("system", {"role": "system", "content": "speak low"}, user("and again"))
    assert [role for role, _ in t.kept("system")].count("system") == 1
    t.chat("system", {"role": "system", "content": "speak up"}, user("now"))
    assert [text for role, text in t.seen() if role == "system"] == ["speak up"]
    _, seen = t.say("system", "then")
    assert [text for role, text in seen if role == "system"] == ["speak up"], seen


def budgets(t):
    name = "budget"
    t.say(name, "My sister Ingrid keeps the lighthouse at Tromsø and her boat is called Vinterlyst.")
    for i in range(30):
        t.say(name, f"Tell me something about the number {i}, please, in a few words, as you always do.")
    reply = t.chat(name, user("What is the name of Ingrid's boat?"), metadata={"conversation_id": name, "context_budget_tokens": "300"})
    seen, route = t.seen(), reply.headers["x-pharos-route"]
    assert any("Vinterlyst" in text for _, text in seen), seen
    assert seen[-1] == ("user", "What is the name of Ingrid's boat?") and len(seen) < 30, seen
    assert "strategy=spt" in route and "/300;" in route, route
    tokens = int(route.split("context=")[1].split("/")[0])
    assert tokens <= 300, route
    kept = t.kept(name)
    assert seen[-4:-1] == kept[-5:-2], (seen[-4:], kept[-5:])  # the newest four, the first of them joined
    assert seen[-5][0] == kept[-6][0] and seen[-5][1].endswith(kept[-6][1]), (seen[-5], kept[-6])
    # a window is a budget too
    reply = t.chat(name, user("And the lighthouse, where is it?"), model="narrow", max_tokens=100)
    assert reply.status == 200 and "strategy=spt" in reply.headers["x-pharos-route"], reply.headers["x-pharos-route"]
    reply = t.send("POST", "/v1/chat/completions", {"model": "m", "messages": [user("x")]}, x_conversation_id=name, x_context_budget="200",
                   x_context_strategy="recent_only")
    assert "strategy=recent_only" in reply.headers["x-pharos-route"] and "/200;" in reply.headers["x-pharos-route"]
    for wrong in ({"context_budget_tokens": "many"}, {"context_strategy": "guess"}, {"context_keep_recent": -1}):
        reply = t.chat(name, user("x"), status=400, metadata={"conversation_id": name, **wrong})
        assert next(iter(wrong)) in reply.text, reply.text
    sent = t.upstream.control("/__bodies")[-1]
    assert "context_budget" not in json.dumps(sent)


def streams(t):
    for path, body in (("/v1/chat/completions", {"model": "m", "messages": [user("stream it")]}),
                       ("/v1/messages", {"model": "claude", "max_tokens": 100, "messages": [user("stream it")]}),
                       ("/v1/responses", {"model": "m", "input": "stream it"})):
        name = "stream" + path.replace("/", "-")
        reply = t.send("POST", path, {**body, "stream": True, "metadata": {"conversation_id": name}})
        assert reply.status == 200 and ("[DONE]" in reply.text or "message_stop" in reply.text or "response.completed" in reply.text)
        assert t.kept(name) == [("user", "stream it"), ("assistant", reply_text("stream it"))], t.kept(name)


def all_dialects_share_a_conversation(t):
    one, _ = t.say("shared", "by chat")
    reply = t.send("POST", "/v1/messages", {"model": "claude", "max_tokens": 50, "messages": [user("by anthropic")],
                                            "metadata": {"conversation_id": "shared"}})
    assert reply.status == 200, reply.text
    reply = t.send("POST", "/v1/responses", {"model": "m", "input": "by responses", "conversation": "shared"})
    assert reply.status == 200 and reply.json["conversation"] == {"id": "shared"}, reply.text
    assert [text for role, text in t.kept("shared") if role == "user"] == ["by chat", "by anthropic", "by responses"]
    assert t.seen()[0] == ("user", "by chat") and t.seen()[1] == ("assistant", one)


def whole_histories_go_as_they_came(t):
    """With all that their dialect says besides: marks for prompt caches, for one."""
    marked = {"role": "user", "content": [{"type": "text", "text": "a long text", "cache_control": {"type": "ephemeral"}}]}
    body = {"model": "claude", "max_tokens": 50, "messages": [marked], "metadata": {"conversation_id": "marked"}}
    said = t.send("POST", "/v1/messages", body).json["content"]
    body["messages"] += [{"role": "assistant", "content": said}, user("and now")]
    assert t.send("POST", "/v1/messages", body).status == 200
    sent = t.upstream.control("/__bodies")[-1]
    sent = sent.get("body", sent)
    assert sent["messages"] == body["messages"], sent
    assert len(t.kept("marked")) == 4


def tools(t):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    reply = t.chat("tools", user("use two tools"), tools=[tool])
    calls = reply.json["choices"][0]["message"]["tool_calls"]
    assert calls
    results = [{"role": "tool", "tool_call_id": call["id"], "content": f"result {n}"} for n, call in enumerate(calls)]
    reply = t.chat("tools", *results, tools=[tool])
    body = t.upstream.control("/__bodies")[-1]
    body = body.get("body", body)
    assert [m["role"] for m in body["messages"]] == ["user", "assistant"] + ["tool"] * len(calls), body["messages"]
    assert [c["id"] for c in body["messages"][1]["tool_calls"]] == [c["id"] for c in calls]
    kinds = [kind for kind, _ in t.kept("tools")]
    assert kinds == ["user"] + ["function_call"] * len(calls) + ["function_call_output"] * len(calls) + ["assistant"], kinds
    # the whole history is recognised
    said = reply.json["choices"][0]["message"]["content"]
    t.chat("tools", user("use two tools"), {"role": "assistant", "content": None, "tool_calls": calls}, *results, assistant(said), user("thanks"),
           tools=[tool])
    assert len(t.kept("tools")) == len(kinds) + 2, t.kept("tools")


def aborts_are_kept_as_cut(t):
    stream = Stream(t.station.port, "/v1/chat/completions",
                    {"model": "slow", "messages": [user("60 tokens")], "metadata": {"conversation_id": "abort"}})
    heard = ""
    for chunk in stream.events():
        heard += (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""
        if len(heard) > 20:
            break
    stream.close(reset=True)
    t.wait_for_items("abort", 2)
    question, reply = t.items("abort")["data"]
    assert reply["status"] == "incomplete" and question["status"] == "completed", reply
    text = reply["content"][0]["text"]
    assert text.startswith(heard) or heard.startswith(text), (heard, text)
    t.chat("abort", user("60 tokens"), assistant(heard), user("go on"))  # the client's own idea of it is recognised
    assert [role for role, _ in t.kept("abort")] == ["user", "assistant", "user", "assistant"], t.kept("abort")


def broken_streams_are_kept_as_cut(t):
    reply = None
    try:
        reply = t.send("POST", "/v1/chat/completions", {"model": "cut", "messages": [user("30 tokens")], "stream": True,
                                                        "metadata": {"conversation_id": "broken"}})
    except Exception:  # a broken connection is what it should be
        pass
    assert reply is None or "[DONE]" not in reply.text
    t.wait_for_items("broken", 2)
    assert [item["status"] for item in t.items("broken")["data"]] == ["completed", "incomplete"]


def responses(t):
    first = t.send("POST", "/v1/responses", {"model": "m", "input": "one", "instructions": "be short"}).json
    assert first["store"] is True and first["previous_response_id"] is None and first["conversation"] is None
    got = t.send("GET", f"/v1/responses/{first['id']}")
    assert got.status == 200 and got.json == first, got.text
    second = t.send("POST", "/v1/responses", {"model": "m", "input": "two", "previous_response_id": first["id"]}).json
    assert second["previous_response_id"] == first["id"]
    text = first["output"][0]["content"][0]["text"]
    assert t.seen() == [("user", "one"), ("assistant", text), ("user", "two")], t.seen()  # no instructions of before
    other = t.send("POST", "/v1/responses", {"model": "m", "input": "or else", "previous_response_id": first["id"], "stream": True})
    assert other.status == 200 and t.seen() == [("user", "one"), ("assistant", text), ("user", "or else")], t.seen()
    t.send("POST", "/v1/responses", {"model": "m", "input": "three", "previous_response_id": second["id"]})
    seen = t.seen()
    assert [m[1] for m in seen if m[0] == "user"] == ["one", "two", "three"], seen
    items = t.send("GET", f"/v1/responses/{second['id']}/input_items").json
    assert [item["content"][0]["text"] for item in items["data"]] == ["two"] and not items["has_more"], items
    gone = t.send("DELETE", f"/v1/responses/{second['id']}")
    assert gone.status == 200 and gone.json["deleted"] is True
    for reply in (t.send("GET", f"/v1/responses/{second['id']}"),
                  t.send("POST", "/v1/responses", {"model": "m", "input": "x", "previous_response_id": second["id"]})):
        assert reply.status == 404 and second["id"] in reply.json["error"]["message"], reply.text
    unkept = t.send("POST", "/v1/responses", {"model": "m", "input": "secret", "store": False}).json
    assert unkept["store"] is False and t.send("GET", f"/v1/responses/{unkept['id']}").status == 404
    for body in ({"input": "x", "conversation": "nowhere"}, {"input": "x", "previous_response_id": "resp_nothing"}):
        assert t.send("POST", "/v1/responses", {"model": "m", **body}).status == 404
    both = t.send("POST", "/v1/responses", {"model": "m", "input": "x", "conversation": "c", "previous_response_id": "r"})
    assert both.status == 400 and both.json["error"]["param"] == "previous_response_id"


def referred_items(t):
    """Items that an input only names."""
    def ask(*items, status=200, **more):
        reply = t.send("POST", "/v1/responses", {"model": "m", "input": list(items), **more})
        assert reply.status == status, (reply.status, reply.text)
        return reply.json

    def refer(item):
        return {"type": "item_reference", "id": item}

    first = ask(user("referred one"))
    said, text = first["output"][0]["id"], first["output"][0]["content"][0]["text"]
    asked = t.send("GET", f"/v1/responses/{first['id']}/input_items").json["data"][0]["id"]
    for unkept in (False, True):
        ask(refer(asked), {"id": said}, user("two"), store=not unkept)
        assert t.seen() == [("user", "referred one"), ("assistant", text), ("user", "two")], t.seen()
    called = ask(user("use a tool"), tools=[{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}])
    calls = [item for item in called["output"] if item["type"] == "function_call"]
    ask(user("use a tool"), *[refer(item["id"]) for item in called["output"]],
        *[{"type": "function_call_output", "call_id": call["call_id"], "output": "rain"} for call in calls])
    assert [role for role, _ in t.seen()] == ["user", "assistant"] + ["tool"] * len(calls), t.seen()
    # of a conversation that was imported or made by hand; by its place too, where that says enough
    t.say("referred", "three")
    items = t.items("referred")["data"]
    ask(refer(items[0]["id"]), user("again"), conversation="referred")
    assert [text for _, text in t.seen()][-1] == "again"
    made = t.send("POST", "/v1/conversations", {"items": [refer(said), user("end")]}).json
    assert t.kept(made["id"]) == [("assistant", text), ("user", "end")]
    more = t.send("POST", f"/v1/conversations/{made['id']}/items", {"items": [refer(asked)]})
    assert more.json["data"][0]["content"][0]["text"] == "referred one", more.text
    for missing in ("msg_nothing", said[:-1] + "7", "rs_1", "", "msg_0", "x" * 300):
        error = ask(refer(missing), user("x"), status=404)["error"]
        assert error["message"] == f"Item with id '{missing[:100]}' not found." and error["param"] == "input" and error["code"] is None, error
        assert error["type"] == "invalid_request_error", error
    assert t.send("POST", "/v1/conversations", {"items": [refer("msg_nothing")]}).json["error"]["param"] == "items"
    assert ask({"type": "item_reference"}, status=400)["error"]["param"] == "input[0].id"
    assert ask(*[refer(said)] * 1001, status=400)["error"]["param"] == "input"
    t.send("DELETE", f"/v1/conversations/{made['id']}")
    # pages of an input
    long = ask(*[user(f"part {n}") for n in range(5)])
    path = f"/v1/responses/{long['id']}/input_items?limit=2&order=asc"
    page = t.send("GET", path).json
    rest = t.send("GET", f"{path}&after={page['last_id']}&include[]=message.input_image.image_url").json
    assert [item["content"][0]["text"] for item in page["data"] + rest["data"]] == [f"part {n}" for n in range(4)] and rest["has_more"]
    assert t.send("GET", path + "&after=msg_nothing").status == 404


def unkept_turns(t):
    t.say("private", "kept")
    before = t.kept("private")
    reply = t.send("POST", "/v1/responses", {"model": "m", "input": "not kept", "conversation": "private", "store": False})
    assert reply.status == 200 and t.seen()[0] == ("user", "kept") and t.seen()[-1] == ("user", "not kept")
    assert t.kept("private") == before


def conversations(t):
    made = t.send("POST", "/v1/conversations", {"metadata": {"topic": "x"}, "items": [
        {"type": "message", "role": "user", "content": "hello"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://x/y.png"}]}]})
    assert made.status == 200, made.text
    made = made.json
    assert made["object"] == "conversation" and made["metadata"] == {"topic": "x"} and abs(made["created_at"] - time.time()) < 60
    path = f"/v1/conversations/{made['id']}"
    assert t.send("GET", path).json == made
    assert t.send("POST", path, {"metadata": {"topic": "y"}}).json["metadata"] == {"topic": "y"}
    added = t.send("POST", path + "/items", {"items": [
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so it is"}]}]})
    assert added.status == 200 and [i["type"] for i in added.json["data"]] == ["function_call", "function_call_output", "message"], added.text
    everything = t.items(made["id"])["data"]
    assert len(everything) == 5 and everything[1]["content"][1]["image_url"] == "https://x/y.png", everything
    back = t.items(made["id"], "limit=2")  # newest first
    assert [i["id"] for i in back["data"]] == [i["id"] for i in everything[:2:-1]] and back["has_more"] and back["last_id"] == everything[3]["id"]
    found, after = [], ""
    while True:
        page = t.items(made["id"], f"limit=2&order=asc&after={after}" if after else "limit=2&order=asc")
        found += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert found == everything, found
    for item in everything:
        assert t.send("GET", f"{path}/items/{item['id']}").json == item
    assert t.send("DELETE", f"{path}/items/{everything[0]['id']}").json["id"] == made["id"]
    assert t.send("GET", f"{path}/items/{everything[0]['id']}").status == 404
    assert len(t.items(made["id"])["data"]) == 4
    assert t.send("POST", path + "/items", {"items": []}).status == 400
    assert t.send("POST", path + "/items", {"items": [user("x")] * 21}).status == 400
    wrong = t.send("POST", path + "/items", {"items": [{"type": "message", "role": "nobody"}]})
    assert wrong.status == 400 and wrong.json["error"]["param"] == "items[0].role", wrong.text
    assert t.items(made["id"], "limit=1")["data"] and t.send("GET", path + "/items?limit=0").status == 400
    gone = t.send("DELETE", path)
    assert gone.json == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    for reply in (t.send("GET", path), t.send("GET", path + "/items"), t.send("DELETE", path), t.send("GET", path + "/items/msg_1")):
        assert reply.status == 404 and reply.json["error"]["code"] == "conversation_not_found", reply.text
    assert t.send("GET", path + "/nothing").status == 404 and t.send("PUT", path).status == 405


def contexts(t):
    name = "context"
    t.say(name, "The key of the boat house hangs behind the green clock.")
    for i in range(10):
        t.say(name, f"Something else, number {i}.")
    body = {"conversation": name, "query": "where is the key of the boat house", "budget_tokens": 120, "explain": True}
    reply = t.send("POST", "/v1/context", body)
    assert reply.status == 200, reply.text
    found = reply.json
    assert any("green clock" in item["content"] for item in found["items"]) and found["tokens"] <= 120, found
    assert found["budget_tokens"] == 120 and found["strategy"] == "spt" and found["elapsed_ms"] < 1000
    top = max(found["items"], key=lambda item: item["score"])
    assert top["why"] and all(isinstance(reason["what"], str) for reason in top["why"]), top
    assert {"id", "conversation", "role", "name", "content", "created_at", "metadata", "tokens", "score", "why"} == set(top)
    everywhere = t.send("POST", "/v1/context", {"user": "local", "query": "boat house", "budget_tokens": 60}).json
    assert any(item["conversation"] == name for item in everywhere["items"]), everywhere
    recent = t.send("POST", "/v1/context", {**body, "keep_recent": 2, "messages": [], "strategy": "recent_only"}).json
    assert recent["items"][-1]["content"] == t.kept(name)[-1][1]
    for wrong in ({"query": None}, {"strategy": "x"}, {"budget_tokens": -1}, {"model": "nobody"}):
        assert t.send("POST", "/v1/context", {**body, **wrong}).status in (400, 404)
    assert t.send("POST", "/v1/context", {**body, "conversation": "nowhere"}).status == 404
    # the command line, on the store and through the station
    arguments = ["--conversation", name, "--query", body["query"], "--budget", "120", "--explain", "--json"]
    for more in (place.arguments(t.station), ["--url", t.station.url]):
        run = subprocess.run([PHAROS, "context", *arguments, *more], capture_output=True, text=True, timeout=60, check=True)
        said = json.loads(run.stdout)
        assert [item["id"] for item in said["items"]] == [item["id"] for item in found["items"]], (more, run.stdout)
    run = subprocess.run([PHAROS, "context", *arguments[:-1], *place.arguments(t.station)], capture_output=True, text=True, timeout=60, check=True)
    assert "green clock" in run.stdout and "of 120 tokens" in run.stdout, run.stdout
    run = subprocess.run([PHAROS, "context", "--conversation", "nowhere", "--query", "x", *place.arguments(t.station)], capture_output=True,
                         text=True, timeout=60, check=False)
    assert run.returncode == 1 and "nowhere" in run.stderr, run


def feedback(t):
    reply = t.chat("judged", user("judge me"))
    sent = t.send("POST", "/v1/feedback", {"response_id": reply.json["id"], "score": 0.5, "note": "fine"})
    assert sent.status == 200 and sent.json["score"] == 0.5, sent.text
    response = t.send("POST", "/v1/responses", {"model": "m", "input": "judge"}).json
    assert t.send("POST", "/v1/feedback", {"response_id": response["id"], "score": 1}).status == 200
    assert t.send("POST", "/v1/feedback", {"response_id": "resp_nobody", "score": 1}).status == 404


def nothing_is_stored_without_a_name(upstream):
    with Station(configuration(upstream)) as station:
        t = Talker(station, upstream)
        t.chat(None, user("hello"))
        t.send("POST", "/v1/messages", {"model": "claude", "max_tokens": 9, "messages": [user("x")]})
        t.send("POST", "/v1/responses", {"model": "m", "input": "x", "store": False})
        assert not os.path.exists(os.path.join(station.data, "memory")), os.listdir(station.data)
        t.chat("named", user("hello"))
        assert os.path.exists(os.path.join(station.data, "memory"))
    for off in ("memory: {store: off}", "memory: {store: null}"):
        with Station(configuration(upstream, off)) as station:
            t = Talker(station, upstream)
            t.chat("named", user("hello"))
            assert t.send("POST", "/v1/responses", {"model": "m", "input": "x"}).json["store"] is False
            previous = t.send("POST", "/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_1"})
            assert previous.status == 400 and "memory" in previous.json["error"]["message"]
            assert t.send("GET", "/v1/conversations/named").json["error"]["code"] == "memory_off"
            assert not os.path.exists(os.path.join(station.data, "memory"))


def keys_create(data, *arguments):
    run = subprocess.run([PHAROS, "keys", "create", "--data", data, *arguments], capture_output=True, text=True, timeout=60, check=True)
    return {"authorization": "Bearer " + run.stdout.strip()}


def try_everything(mine, other, name, response_id, reply_id, item, own_query=""):
    """Every endpoint by which `other` could get at what `mine` has."""
    secret = "zauberwort"
    path = f"/v1/conversations/{name}"
    tries = [("GET", path, None), ("GET", path + "/items", None), ("GET", f"{path}/items/{item}", None), ("DELETE", f"{path}/items/{item}", None),
             ("POST", path, {"metadata": {"x": "y"}}), ("POST", path + "/items", {"items": [user("x")]}), ("DELETE", path, None),
             ("GET", f"/v1/responses/{response_id}", None), ("GET", f"/v1/responses/{response_id}/input_items", None),
             ("DELETE", f"/v1/responses/{response_id}", None),
             ("POST", "/v1/responses", {"model": "m", "input": "x", "previous_response_id": response_id}),
             ("POST", "/v1/responses", {"model": "m", "input": "x", "conversation": name}),
             ("POST", "/v1/context", {"conversation": name, "query": secret})]
    for body in ({"input": [{"type": "item_reference", "id": item}, user("x")]}, {"input": [{"id": item}], "conversation": name},
                 {"input": [{"id": response_id.replace("resp_", "msg_") + "_0"}]}):
        tries.append(("POST", "/v1/responses", {"model": "m", **body}))
    tries.append(("POST", "/v1/conversations", {"items": [{"type": "item_reference", "id": item}]}))
    for method, where, body in tries:
        reply = other.send(method, where + own_query, body)
        assert reply.status == 404 and secret not in reply.text, (method, where, reply.status, reply.text)
    for body in ({"query": secret}, {"query": secret, "user": "alice"}, {"query": secret, "user": "local"}, {"query": secret, "user": "team/alice"}):
        reply = other.send("POST", "/v1/context" + own_query, body)
        assert secret not in reply.text.replace('"query"', ""), (body, reply.text)
    reply = other.send("POST", "/v1/feedback" + own_query, {"response_id": reply_id, "score": -1})
    assert secret not in reply.text, reply.text
    routes = other.send("GET", f"/v1/routes/{reply_id}")
    assert secret not in routes.text
    if "authorization" in other.headers:  # what was asked with another's key is not there
        assert routes.status == 404 and reply.status == 404, (routes.text, reply.text)
    # the same name is another conversation
    body = {"model": "m", "messages": [user("what do you know")], "metadata": {"conversation_id": name}}
    for path, more in (("/v1/chat/completions", {}), ("/v1/messages", {"max_tokens": 50})):
        reply = other.send("POST", path + own_query, {**body, **more})
        assert reply.status == 200, reply.text
        assert secret not in json.dumps(other.upstream.control("/__bodies")[-1]), "another's message was sent to a model"
    assert any(secret in text for _, text in mine.kept(name)) and mine.send("GET", f"/v1/responses/{response_id}").status == 200


def two_keys_are_two_worlds(upstream):
    with tempfile.TemporaryDirectory() as data:
        alice = keys_create(data, "--name", "alice", "--scope", "chat", "--scope", "read")
        bob = keys_create(data, "--name", "bob")
        evil = keys_create(data, "--name", "team/alice")
        team = keys_create(data, "--name", "team")
        other = keys_create(data, "--name", "alice's other machine", "--user", "alice")
        with Station(configuration(upstream), data=data, ready=False) as station:
            for mine, others in ((alice, (bob, evil, team)),):
                a = Talker(station, upstream, mine)
                reply = a.chat("diary", user("zauberwort one"))
                item = a.items("diary")["data"][0]["id"]
                response = a.send("POST", "/v1/responses", {"model": "m", "input": "zauberwort two"}).json
                for headers in others:
                    try_everything(a, Talker(station, upstream, headers), "diary", response["id"], reply.json["id"], item)
                    for spoof in ("alice", "local", "team/alice", "../alice"):
                        try_everything(a, Talker(station, upstream, {**headers, "x-user-id": spoof}), "diary", response["id"], reply.json["id"], item)
                assert Talker(station, upstream, other).kept("diary") == a.kept("diary")  # the same user by another key
            # an end user of one key is not the key of that name
            t = Talker(station, upstream, {**team, "x-user-id": "alice"})
            t.chat("notes", user("of an end user"))
            assert Talker(station, upstream, evil).send("GET", "/v1/conversations/notes").status == 404
            assert Talker(station, upstream, alice).send("GET", "/v1/conversations/notes").status == 404
            assert t.send("GET", "/v1/conversations/notes").status == 200
            assert Talker(station, upstream).send("GET", "/v1/conversations/diary").status == 401


def two_users_are_two_worlds(upstream):
    with Station(configuration(upstream)) as station:
        a, b = Talker(station, upstream, {"x-user-id": "alice"}), Talker(station, upstream, {"x-user-id": "bob"})
        reply = a.chat("diary", user("zauberwort one"))
        item = a.items("diary")["data"][0]["id"]
        response = a.send("POST", "/v1/responses", {"model": "m", "input": "zauberwort two"}).json
        try_everything(a, b, "diary", response["id"], reply.json["id"], item)
        # `user` of the body is the same as the header
        plain = Talker(station, upstream)
        plain.chat("diary", user("more"), user="alice")
        assert ("user", "more") in a.kept("diary") and plain.send("GET", "/v1/conversations/diary?user=alice").status == 200
        # nobody said who: one owner's machine, whoever's it is; two of that name must be told apart
        assert plain.send("GET", "/v1/conversations/diary").status in (200, 400)
        b.chat("diary", user("mine"))
        unclear = plain.send("GET", "/v1/conversations/diary")
        assert unclear.status == 400 and "user" in unclear.json["error"]["message"], unclear.text


def a_killed_station_has_what_it_said(upstream):
    with tempfile.TemporaryDirectory() as data:
        expected = {}
        for round_ in range(5):
            station = Station(configuration(upstream), data=data)
            t = Talker(station, upstream)
            for name in list(expected):
                kept = t.kept(name)
                assert kept == expected[name], (name, kept, expected[name])
            for stream in (False, True):
                name = f"kill-{round_}-{stream}"
                t.chat(name, user(f"question {name}"), stream=stream)
                expected[name] = [("user", f"question {name}"), ("assistant", reply_text(f"question {name}"))]
            station.process.send_signal(signal.SIGKILL)  # right behind the final event
            station.discard()


def many_at_once(upstream):
    with Station(configuration(upstream)) as station:
        failures = []

        def talk(number):
            try:
                t = Talker(station, upstream, {"x-user-id": f"u{number % 4}"})
                for turn in range(8):
                    t.chat(f"c{number}", user(f"{number} says {turn}"), stream=turn % 2 == 0)
                kept = t.kept(f"c{number}")
                assert [text for role, text in kept if role == "user"] == [f"{number} says {turn}" for turn in range(8)], kept
            except Exception as error:  # told on the main thread
                failures.append(repr(error))
        threads = [threading.Thread(target=talk, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures


def a_store_that_fails_is_said(upstream):
    with Station(configuration(upstream)) as station:
        with open(os.path.join(station.data, "memory"), "w", encoding="utf-8"):
            pass  # where the folder should be
        t = Talker(station, upstream)
        for path, body in (("/v1/chat/completions", {"model": "m", "messages": [user("x")]}), ("/v1/responses", {"model": "m", "input": "x"})):
            reply = t.send("POST", path, {**body, "metadata": {"conversation_id": "c"}})
            assert reply.status == 503 and reply.json["error"]["code"] == "store_unavailable", reply.text
        t.chat(None, user("without a name all is well"))


def a_full_disk_is_said(upstream):
    """No end leaves of what could not be stored; when there is room again, all goes on."""
    with Station(configuration(upstream)) as station:
        t = Talker(station, upstream)
        said, _ = t.say("full", "there is room")
        memory = os.path.join(station.data, "memory")
        sizes = {name: os.path.getsize(os.path.join(memory, name)) for name in os.listdir(memory)}
        limits = resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, (max(1, min(sizes.values())), limits[1]))
        for path, body in (("/v1/chat/completions", {"model": "m", "messages": [user("lost")]}),
                           ("/v1/messages", {"model": "claude", "max_tokens": 50, "messages": [user("lost")]}),
                           ("/v1/responses", {"model": "m", "input": "lost"})):
            body["metadata"] = {"conversation_id": "full"}
            reply = t.send("POST", path, body)
            assert reply.status in (503, 529) and "store" in reply.text, (path, reply.status, reply.text)
            try:
                reply = t.send("POST", path, {**body, "stream": True})
                text = reply.text
            except http.client.IncompleteRead as error:
                text = error.partial.decode()
            except ConnectionError:
                text = ""
            for end in ("[DONE]", "message_stop", "response.completed", '"finish_reason":"stop"'):
                assert end not in text, (path, text)
        resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, limits)
        t.say("full", "there is room again")
        kept = t.kept("full")
        assert kept[:2] == [("user", "there is room"), ("assistant", said)] and ("user", "lost") not in kept, kept
        assert [text for role, text in kept if role == "user"] == ["there is room", "there is room again"], kept


def local_model(_upstream):
    """The model's own counts; the prompt fits its window."""
    config = f"listen: 127.0.0.1:0\nmodels:\n  - {{id: tiny, path: {TINY}, context: 256, sequences: 2}}\n"
    with Station(config) as station:
        t = Talker(station, None)
        for turn in range(12):
            reply = t.send("POST", "/v1/chat/completions", {"model": "tiny", "max_tokens": 12, "temperature": 0, "messages": [
                user(f"Once upon a time there was a dog, number {turn}.")], "metadata": {"conversation_id": "tale"}})
            assert reply.status == 200, reply.text
            assert reply.json["usage"]["prompt_tokens"] + 12 <= 256, reply.json["usage"]
        assert "strategy=spt" in reply.headers["x-pharos-route"], reply.headers["x-pharos-route"]
        assert len(t.kept("tale")) == 24
        run = subprocess.run([PHAROS, "chat", "--url", station.url, "--conversation", "typed"], input="Hello.\nAnd then?\n", capture_output=True,
                             text=True, timeout=60, check=True)
        assert run.stdout and [role for role, _ in t.kept("typed")] == ["user", "assistant"] * 2, t.kept("typed")
        subprocess.run([PHAROS, "chat", "--url", station.url, "--conversation", "typed"], input="Go on.\n", capture_output=True, text=True,
                       timeout=60, check=True)
        assert len(t.kept("typed")) == 6
        refused = subprocess.run([PHAROS, "chat", "--model", TINY, "--conversation", "x"], capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 2 and "station" in refused.stderr


def speed(upstream):
    """A conversation of 700 messages, from memory and cold: generous limits, for machines that are busy."""
    with tempfile.TemporaryDirectory() as data:
        def ask(station):
            began = time.monotonic()
            reply = request(station.port, "POST", "/v1/context", {"conversation": "long", "query": "boat house", "budget_tokens": 1024}, {})
            assert reply.status == 200, reply.text
            return (time.monotonic() - began) * 1000, reply.json["elapsed_ms"]
        with Station(configuration(upstream), data=data) as station:
            t = Talker(station, upstream)
            made = t.send("POST", "/v1/conversations/x", {})
            assert made.status == 404
            history = [user(f"question {i} about boats") if i % 2 == 0 else assistant(f"answer {i}, houses") for i in range(700)]
            t.chat("long", *history, user("and now"))
            ask(station)
            hot = sorted(ask(station)[1] for _ in range(50))
        with Station(configuration(upstream), data=data) as station:
            cold = ask(station)[1]
        print(f"memory: a context of 702 messages took {hot[25]:.2f} ms (p95 {hot[47]:.2f}), cold with its index {cold:.1f} ms", flush=True)
        assert hot[47] < 50 and cold < 1000, (hot, cold)


def clients(upstream, runner):
    here = os.path.dirname(os.path.abspath(__file__))
    build = os.path.join(here, "..", "..", "build", "e2e")
    python, node = os.path.join(build, "venv", "bin", "python"), os.path.join(build, "node")
    found = [(os.path.exists(python), "Python", [python, os.path.join(here, "memory_clients.py")]),
             (os.path.isdir(os.path.join(node, "node_modules", "openai")), "Node", ["node", os.path.join(here, "memory_clients.mjs")])]
    for is_there, name, command in found:
        if not is_there:
            print(f"SKIP: memory with the official package for {name}: it is not installed", flush=True)
            continue

        def check(command=command):
            with Station(configuration(upstream)) as station:
                run = subprocess.run([*command, station.url], capture_output=True, text=True, timeout=120, check=False,
                                     env={**os.environ, "PHAROS_NODE": node})
                assert run.returncode == 0, run.stdout + run.stderr
        runner.run(f"the official package for {name}", check)


# ---- A server that goes away and comes back, under a station that stays

AWAY_S = 45  # within this a request has its answer: a read and a write may each wait 20 s for the server


def a_restart_is_waited_for(upstream):
    """Whoever talks when the server is restarted notices nothing, and all is kept once."""
    with Station(configuration(upstream)) as station:
        t = Talker(station, upstream)
        t.say("talk", "turn 0")
        for how in ("fast", "immediate", "kill"):
            failures, before = [], len(t.kept("talk"))

            def talk(how=how):
                try:
                    for turn in range(6):
                        t.chat("talk", user(f"{how} {turn}"), stream=turn % 2 == 0)
                except Exception as error:  # told on the main thread
                    failures.append(repr(error))
            thread = threading.Thread(target=talk)
            thread.start()
            t.wait_for_items("talk", before + 2)
            place.server.kill() if how == "kill" else place.server.stop(how)
            place.server.start()
            thread.join()
            assert not failures, (how, failures, station.log())
            said = [text for role, text in t.kept("talk")[before:] if role == "user"]
            assert said == [f"{how} {turn}" for turn in range(6)], (how, said)


def no_end_leaves_before_the_server_has_it(upstream):
    with Station(configuration(upstream)) as station:
        t = Talker(station, upstream)
        t.say("slow", "begin")
        stream = Stream(station.port, "/v1/chat/completions", {"model": "slow", "messages": [user("30 tokens")], "stream": True,
                                                               "metadata": {"conversation_id": "slow"}})
        events = stream.events()
        next(events)
        place.server.stop("immediate")
        until = time.monotonic() + 3  # the answer takes one second
        ended = threading.Event()

        def read():
            for _ in events:
                pass
            ended.set()
        threading.Thread(target=read, daemon=True).start()
        ended.wait(until - time.monotonic())
        early = ended.is_set()
        place.server.start()
        assert ended.wait(60) and stream.done and not early, (early, stream.done, station.log())
        assert [role for role, _ in t.kept("slow")] == ["user", "assistant"] * 2, t.kept("slow")


def a_server_that_stays_away_is_said(upstream):
    with Station(configuration(upstream)) as station:
        t = Talker(station, upstream)
        t.say("away", "before")
        response = t.send("POST", "/v1/responses", {"model": "m", "input": "kept"}).json
        kept = t.kept("away")
        place.server.stop("fast")
        tries = [("POST", "/v1/chat/completions", {"model": "m", "messages": [user("lost")], "metadata": {"conversation_id": "away"}}),
                 ("POST", "/v1/chat/completions", {"model": "m", "messages": [user("lost")], "metadata": {"conversation_id": "unseen"}}),
                 ("POST", "/v1/responses", {"model": "m", "input": "lost", "previous_response_id": response["id"]}),
                 ("POST", "/v1/conversations", {}), ("GET", "/v1/conversations/away", None),
                 ("POST", "/v1/context", {"user": "local", "query": "before", "budget_tokens": 100})]
        answers = {}

        def ask(number, method, path, body):
            began = time.monotonic()
            reply = t.send(method, path, body)
            answers[number] = reply.status, reply.text, time.monotonic() - began
        threads = [threading.Thread(target=ask, args=(number, *one)) for number, one in enumerate(tries)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        t.chat(None, user("without a name all is well"))
        assert time.monotonic() - began < 5, "who names no conversation waits for the store"
        for thread in threads:
            thread.join()
        for number, (method, path, _) in enumerate(tries):
            status, text, seconds = answers[number]
            if path == "/v1/context" and status == 200:  # what it knows, it knows
                continue
            assert status == 503 and "store_unavailable" in text and seconds < AWAY_S, (method, path, status, text, seconds)
        assert place.server.folder in station.log() and "geheim" not in station.log(), station.log()
        assert not any("geheim" in text for _, text, _ in answers.values()), answers
        place.server.start()
        assert t.kept("away") == kept, (t.kept("away"), kept)
        said, seen = t.say("away", "after")
        assert t.kept("away") == [*kept, ("user", "after"), ("assistant", said)] and ("user", "before") in seen, seen
        assert t.send("POST", "/v1/responses", {"model": "m", "input": "on", "previous_response_id": response["id"]}).status == 200


# ---- All of it

def is_wanted(check, only):
    names = [name for name in only if name not in ("sqlite", "postgres")]
    return not names or check.__name__ in names


def run_all(upstream, only, alone):
    """The checks that share a station, then those that start their own."""
    runner = Runner(place.name)
    together = [check for check in (
        new_messages_and_whole_histories, questions_asked_again, edited_histories_are_branches, system_messages_hold, budgets, streams,
        all_dialects_share_a_conversation, whole_histories_go_as_they_came, tools, aborts_are_kept_as_cut, broken_streams_are_kept_as_cut, responses,
        referred_items, unkept_turns, conversations, contexts, feedback) if is_wanted(check, only)]
    place.empty()
    with Station(configuration(upstream)) as station:
        talker = Talker(station, upstream)
        for check in together:
            runner.run(check.__name__.replace("_", " "), lambda check=check: check(talker))
    for check in alone:
        if is_wanted(check, only):
            place.empty()
            runner.run(check.__name__.replace("_", " "), lambda check=check: check(upstream))
    if not only:
        place.empty()
        clients(upstream, runner)
    return runner


EVERYWHERE = [two_keys_are_two_worlds, two_users_are_two_worlds, a_killed_station_has_what_it_said, many_at_once]
EMBEDDED = [nothing_is_stored_without_a_name, a_store_that_fails_is_said, a_full_disk_is_said, *([local_model] if os.path.exists(TINY) else []), speed]
SERVED = [a_restart_is_waited_for, no_end_leaves_before_the_server_has_it, a_server_that_stays_away_is_said]


def run_on_postgres(upstream, only):
    global place
    try:
        with Server() as server:
            place = Place(server)
            return [run_all(upstream, only, EVERYWHERE + SERVED)]
    except Missing as why:
        print(f"SKIP: a station's memory in PostgreSQL: {why}", flush=True)
        return []


def main():
    only, runners = sys.argv[1:], []
    with Upstream() as upstream:
        if "postgres" not in only:
            runners.append(run_all(upstream, only, EVERYWHERE + EMBEDDED))
        if "sqlite" not in only:
            runners += run_on_postgres(upstream, only)
    for runner in runners:
        runner.tell()
    sys.exit(any(runner.failed for runner in runners))


if __name__ == "__main__":
    main()
