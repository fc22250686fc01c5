#!/usr/bin/env python3
"""The official packages for Python, OpenAI's, Anthropic's and LangChain's, against a station with the fake upstream behind it.

PHAROS_URL and UPSTREAM_URL name the two (behind.py). With PHAROS_DIRECT the clients talk to the upstream itself.
"""
import base64
import json
import os
import time
import urllib.request

import anthropic
import openai

from behind import MODELS
from station import Runner
from upstream import reply_text

STATION, UPSTREAM = os.environ.get("PHAROS_URL"), os.environ["UPSTREAM_URL"]
DIRECT = bool(os.environ.get("PHAROS_DIRECT"))
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Looks up", "parameters": {
    "type": "object", "properties": {"about": {"type": "string"}, "n": {"type": "integer"}}}}}]
THEIR_TOOLS = [{"name": "look_up", "input_schema": TOOLS[0]["function"]["parameters"]}]
CALL = {"about": "use tools", "n": 1}
USE_TOOLS = [{"role": "user", "content": "use tools"}]

runner = Runner("gateway python")


def upstream(path):
    with urllib.request.urlopen(UPSTREAM + path, timeout=30) as reply:
        return json.loads(reply.read())


def last_metered():
    return upstream("/__meter")["requests"][-1]


def until_hung_up():
    until = time.monotonic() + 10
    while (meter := upstream("/__meter"))["running"]:
        assert time.monotonic() < until, "the upstream goes on and on"
        time.sleep(0.02)
    entry = meter["requests"][-1]
    assert entry["end"] in ("hung up", "reset") and entry["output"] < 100, entry


def openai_client(kind="openai"):
    return openai.OpenAI(base_url=f"{UPSTREAM}/{kind}/v1" if DIRECT else f"{STATION}/v1", api_key="any", max_retries=0)


def anthropic_client():
    return anthropic.Anthropic(base_url=f"{UPSTREAM}/anthropic" if DIRECT else STATION, api_key="any", max_retries=0)


def named(model):
    return f"{model}-upstream" if DIRECT else model


def usage_is_metered(prompt, output):
    entry = last_metered()
    assert (prompt, output) == (entry["prompt"], entry["output"]), (prompt, output, entry)


# ---- OpenAI

def openai_text(model):
    client, prompt = openai_client(MODELS[model]), f"Python asks {model}"
    messages = [{"role": "user", "content": prompt}]
    reply = client.chat.completions.create(model=named(model), messages=messages)
    assert reply.choices[0].message.content == reply_text(prompt)
    usage_is_metered(reply.usage.prompt_tokens, reply.usage.completion_tokens)
    chunks = list(client.chat.completions.create(model=named(model), messages=messages, stream=True,
                                                 stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == reply_text(prompt)
    usage_is_metered(chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)
    if not DIRECT:
        with client.chat.completions.stream(model=model, messages=messages) as events:
            assert events.get_final_completion().choices[0].message.content == reply_text(prompt)


def openai_tools(model):
    client = openai_client(MODELS[model])
    reply = client.chat.completions.create(model=named(model), messages=USE_TOOLS, tools=TOOLS)
    call = reply.choices[0].message.tool_calls[0]
    assert reply.choices[0].finish_reason == "tool_calls" and json.loads(call.function.arguments) == CALL
    after = client.chat.completions.create(model=named(model), tools=TOOLS, messages=[
        *USE_TOOLS, reply.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "closed"}])
    assert after.choices[0].message.content
    pieces = [call for chunk in client.chat.completions.create(model=named(model), messages=USE_TOOLS, tools=TOOLS, stream=True)
              if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    assert pieces[0].id and pieces[0].function.name == "look_up"
    assert json.loads("".join(piece.function.arguments or "" for piece in pieces)) == CALL


def openai_cancel(model):
    client = openai_client(MODELS[model])
    with client.chat.completions.create(model="slow-20" if DIRECT else f"slow-{model}", stream=True,
                                        messages=[{"role": "user", "content": "200 tokens"}]) as reply:
        for index, _ in enumerate(reply):
            if index == 4:
                break
    until_hung_up()


def openai_embeddings():
    client = openai_client()
    for model in ("embedder",) if DIRECT else ("embedder", "floats"):
        silent = client.embeddings.create(model=model, input=["one", "two"])
        floats = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
        assert len(silent.data) == 2 and len(silent.data[0].embedding) == 16
        for a, b in zip(silent.data, floats.data):
            assert all(abs(x - y) < 1e-6 for x, y in zip(a.embedding, b.embedding))
        coded = client.embeddings.create(model=model, input="one", encoding_format="base64").data[0].embedding
        assert DIRECT or len(base64.b64decode(coded)) == 64


def openai_responses(model):
    client, prompt = openai_client(), f"A response of {model}"
    reply = client.responses.create(model=model, input=prompt)
    assert reply.output_text == reply_text(prompt) and reply.status == "completed"
    usage_is_metered(reply.usage.input_tokens, reply.usage.output_tokens)
    with client.responses.stream(model=model, input=prompt) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events.get_final_response()
    assert text == final.output_text == reply_text(prompt)


def openai_errors():
    client = openai_client()
    for model, kind, code in (("nowhere", openai.NotFoundError, "model_not_found"), ("busy", openai.RateLimitError, "rate_limit_exceeded"),
                              ("long", openai.BadRequestError, "context_length_exceeded"), ("broken", openai.InternalServerError, None)):
        for stream in (False, True):
            try:
                client.chat.completions.create(model=model, messages=USE_TOOLS, stream=stream)
                raise AssertionError(f"{model}: no error")
            except openai.APIStatusError as error:
                assert type(error) is kind and (code is None or error.code == code), (model, type(error), error.body)
                assert error.request_id and error.body["message"]
    try:
        list(client.chat.completions.create(model="torn", messages=[{"role": "user", "content": "10 tokens"}], stream=True))
        raise AssertionError("a torn stream seems whole")
    except (openai.APIError, openai.APIConnectionError):
        pass


# ---- Anthropic

def anthropic_text(model):
    client, prompt = anthropic_client(), f"Python asks Claude's way for {model}"
    request = {"model": named(model), "max_tokens": 100, "messages": [{"role": "user", "content": prompt}]}
    reply = client.messages.create(**request)
    assert reply.content[0].text == reply_text(prompt) and reply.stop_reason == "end_turn"
    usage_is_metered(reply.usage.input_tokens, reply.usage.output_tokens)
    with client.messages.stream(**request) as stream:
        assert "".join(stream.text_stream) == reply_text(prompt)
        final = stream.get_final_message()
    assert final.usage.output_tokens == last_metered()["output"]
    assert 3 <= client.messages.count_tokens(model=named(model), messages=request["messages"]).input_tokens < 100


def anthropic_tools(model):
    client = anthropic_client()
    request = {"model": named(model), "max_tokens": 100, "tools": THEIR_TOOLS}
    reply = client.messages.create(**request, messages=USE_TOOLS)
    call = next(block for block in reply.content if block.type == "tool_use")
    assert reply.stop_reason == "tool_use" and call.input == CALL
    after = client.messages.create(**request, messages=[*USE_TOOLS, {"role": "assistant", "content": reply.content}, {
        "role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "closed"}]}])
    assert after.content[0].text == reply_text("closed")
    with client.messages.stream(**request, messages=USE_TOOLS) as stream:
        assert any(block.type == "tool_use" and block.input == CALL for block in stream.get_final_message().content)


def anthropic_errors():
    client = anthropic_client()
    for model, status, kind in (("nowhere", 404, "not_found_error"), ("busy", 429, "rate_limit_error"), ("crowded", 529, "overloaded_error"),
                                ("long", 400, "invalid_request_error")):
        try:
            client.messages.create(model=model, max_tokens=9, messages=USE_TOOLS)
            raise AssertionError(f"{model}: no error")
        except anthropic.APIStatusError as error:
            assert error.status_code == status and error.body["error"]["type"] == kind, (model, error.status_code, error.body)
            assert error.request_id
    try:
        with client.messages.stream(model="half", max_tokens=99, messages=[{"role": "user", "content": "10 tokens"}]) as stream:
            stream.get_final_message()
        raise AssertionError("a torn stream seems whole")
    except (anthropic.APIError, anthropic.APIConnectionError):
        pass


# ---- LangChain

def langchain(model):
    from langchain_openai import ChatOpenAI
    base_url = f"{UPSTREAM}/openai/v1" if DIRECT else f"{STATION}/v1"
    chat, prompt = ChatOpenAI(model=named(model), base_url=base_url, api_key="any", max_retries=0), f"A chain for {model}"
    reply = chat.invoke(prompt)
    assert reply.content == reply_text(prompt)
    usage_is_metered(reply.usage_metadata["input_tokens"], reply.usage_metadata["output_tokens"])
    assert "".join(chunk.content for chunk in chat.stream(prompt)) == reply_text(prompt)
    called = chat.bind_tools(TOOLS).invoke("use tools")
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [("look_up", CALL)]


def main():
    per_model = [(check, model) for model in MODELS for check in (openai_text, openai_tools, openai_cancel)
                 if not DIRECT or model in ("gpt", "llama")]
    per_model += [(check, model) for model in (("claude",) if DIRECT else MODELS) for check in (anthropic_text, anthropic_tools)]
    per_model += [(langchain, model) for model in (("gpt",) if DIRECT else MODELS)]
    if not DIRECT:
        per_model += [(openai_responses, model) for model in MODELS]
    for check, model in per_model:
        runner.run(f"{check.__name__}, {model}", lambda: check(model))
    for check in (openai_embeddings,) if DIRECT else (openai_embeddings, openai_errors, anthropic_errors):
        runner.run(check.__name__, check)
    runner.finish()


if __name__ == "__main__":
    main()
