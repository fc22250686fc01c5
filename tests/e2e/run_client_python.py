#!/usr/bin/env python3
"""The official OpenAI package for Python against a running station (PHAROS_URL)."""
import asyncio
import os
import time
import urllib.request

import openai

from station import Runner

URL = os.environ["PHAROS_URL"]
MESSAGES = [{"role": "user", "content": "Once upon a time"}]
GREEDY = {"model": "stories", "temperature": 0, "max_tokens": 24}
ENDLESS = {"model": "stories", "max_tokens": 450, "extra_body": {"ignore_eos": True}}

runner = Runner("python")
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0)


def metric(series):
    with urllib.request.urlopen(f"{URL}/metrics") as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
    return 0.0


def until_idle():
    until = time.monotonic() + 30
    while metric('vllm:num_requests_running{model_name="stories"}') or \
            metric('vllm:kv_cache_usage_perc{model_name="stories"}'):
        assert time.monotonic() < until, "sequences keep running"
        time.sleep(0.02)


def complete():
    reply = client.chat.completions.create(**GREEDY, messages=MESSAGES)
    assert reply.choices[0].finish_reason == "length" and reply.choices[0].message.role == "assistant"
    assert reply.usage.completion_tokens == 24 and reply._request_id
    return reply.choices[0].message.content


def stream():
    chunks = list(client.chat.completions.create(**GREEDY, messages=MESSAGES, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 24
    assert chunks[-2].choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == complete()


def stream_helper():  # it refuses replies that end at max_tokens, so a stop string ends them
    text = complete()
    word = text.split()[5]
    with client.chat.completions.stream(**GREEDY, messages=MESSAGES, stop=word) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    assert final.choices[0].message.content == text[:text.index(word)]
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds


def stream_helper_logprobs():
    with client.chat.completions.stream(**GREEDY, messages=MESSAGES, logprobs=True, top_logprobs=3,
                                        stop=complete().split()[5]) as events:
        final = events.get_final_completion()
    content = final.choices[0].logprobs.content
    assert len(content) >= 5 and len(content[0].top_logprobs) == 3


def choices():
    reply = client.chat.completions.create(model="stories", messages=MESSAGES, n=3, seed=5, max_tokens=10)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1


def stop():
    word = complete().split()[4]
    reply = client.chat.completions.create(**GREEDY, messages=MESSAGES, stop=[word])
    assert reply.choices[0].finish_reason == "stop" and word not in reply.choices[0].message.content


def completions():
    reply = client.completions.create(**GREEDY, prompt="Once upon a time", logprobs=2, echo=False)
    assert len(reply.choices[0].logprobs.top_logprobs) == 24
    pieces = client.completions.create(**GREEDY, prompt="Once upon a time", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == reply.choices[0].text
    many = client.completions.create(**GREEDY, prompt=[[1, 403, 407], [1, 403]])
    assert len(many.choices) == 2


def models():
    assert [model.id for model in client.models.list()] == ["stories", "tiny"]
    assert client.models.retrieve("stories").object == "model"


def expect(kind, code, param, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, type(error)
        assert (error.code, error.param, error.type) == (code, param, "invalid_request_error"), error.body
        assert error.request_id
        return
    raise AssertionError("no error")


def errors():
    chat = client.chat.completions.create
    expect(openai.NotFoundError, "model_not_found", "model", lambda: chat(model="nope", messages=MESSAGES))
    expect(openai.BadRequestError, None, "messages", lambda: chat(model="stories", messages=[]))
    expect(openai.BadRequestError, None, "top_p", lambda: chat(model="stories", messages=MESSAGES, top_p=2))
    expect(openai.BadRequestError, "context_length_exceeded", "messages",
           lambda: chat(model="stories", messages=[{"role": "user", "content": "word " * 900}], stream=True))
    expect(openai.NotFoundError, "unknown_url", None, lambda: client.moderations.create(input="x"))
    expect(openai.BadRequestError, "unsupported", "model", lambda: client.embeddings.create(model="stories", input="x"))


def cancel():
    with client.chat.completions.create(**ENDLESS, messages=MESSAGES, stream=True) as reply:
        for index, _ in enumerate(reply):
            if index == 5:
                break
    until_idle()


def time_out():
    impatient = client.with_options(timeout=0.05)
    try:
        impatient.chat.completions.create(**ENDLESS, messages=MESSAGES, n=8)
        raise AssertionError("it was that quick?")
    except openai.APITimeoutError:
        pass
    until_idle()


def unknown_fields():
    reply = client.chat.completions.create(
        **GREEDY, messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "joe"}],
        user="u", metadata={"a": "b"}, store=False, parallel_tool_calls=False, service_tier="auto",
        extra_body={"zzz": [1, {"y": None}], "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1})
    assert reply.choices[0].message.content


def asynchronous():
    async def one(async_client, seed):
        reply = await async_client.completions.create(model="stories", prompt="Once", seed=seed, max_tokens=20,
                                                      stream=True)
        return "".join([chunk.choices[0].text async for chunk in reply])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0) as async_client:
            together = await asyncio.gather(*(one(async_client, seed) for seed in range(32)))
            alone = [await one(async_client, seed) for seed in (0, 13, 31)]
        return together, alone
    together, alone = asyncio.run(all_of_them())
    assert [together[seed] for seed in (0, 13, 31)] == alone


for check in (complete, stream, stream_helper, stream_helper_logprobs, choices, stop, completions, models, errors,
              cancel, time_out, unknown_fields, asynchronous):
    runner.run(check.__name__, check)
runner.finish()
