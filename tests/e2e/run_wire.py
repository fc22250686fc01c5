#!/usr/bin/env python3
"""The wire itself: requests as data, then streams, abuse, load and the station's life, with Python's own library only."""
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import time

from station import CONFIG, HERE, PHAROS, STORIES, Runner, Station, Stream

runner = Runner("wire")
LONG = {"prompt": "Once upon a time", "max_tokens": 480, "ignore_eos": True}


def look_up(value, path):
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def check_case(station, case):
    method, path, *rest = case["request"]
    body = rest[0] if rest else None
    if "repeat_prompt" in case:
        body = {"prompt": [1] * case["repeat_prompt"]}
    reply = station.request(method, path, body, case.get("send"))
    assert reply.status == case["status"], f"{reply.status}: {reply.text[:500]}"
    assert reply.headers["x-request-id"]
    if reply.status >= 400 and method != "HEAD":
        error = reply.json["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], error
    for name, value in case.get("headers", {}).items():
        assert reply.headers.get(name) == value, f"{name}: {reply.headers.get(name)}"
    for place, value in case.get("expect", {}).items():
        assert look_up(reply.json, place) == value, f"{place}: {reply.text[:500]}"
    for text in case.get("contains", []):
        assert text in reply.text, f"{text}: {reply.text[:500]}"


# ---- Replies

def whole_and_streamed_are_equal(station):
    body = {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 40, "temperature": 0}
    whole = station.request("POST", "/v1/chat/completions", body).json
    stream = Stream(station.port, "/v1/chat/completions", body)
    chunks = list(stream.events())
    assert stream.done
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(set(chunk) == {"id", "object", "created", "model", "choices"} for chunk in chunks), chunks[0]
    assert all(choice["finish_reason"] is None for chunk in chunks[:-1] for choice in chunk["choices"])
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def usage_comes_last_and_alone(station):
    stream = Stream(station.port, "/v1/completions",
                    {"prompt": "Once", "max_tokens": 5, "stream_options": {"include_usage": True}})
    chunks = list(stream.events())
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["completion_tokens"] == 5 and usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def stops_cut_the_text(station):
    body = {"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}
    free = station.request("POST", "/v1/completions", body).json["choices"][0]["text"]
    word = free.split()[6]  # spans tokens and begins somewhere in the middle
    for stop in (word, [word], ["zzzz", word[1:]]):
        needle = stop if isinstance(stop, str) else stop[-1]
        choice = station.request("POST", "/v1/completions", {**body, "stop": stop}).json["choices"][0]
        assert choice["finish_reason"] == "stop", choice
        assert choice["text"] == free[:free.index(needle)], (choice["text"], stop)
        assert Stream(station.port, "/v1/completions", {**body, "stop": stop}).text() == choice["text"]


def choices_are_told_apart(station):
    body = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 1, "seed": 7, "n": 4}
    reply = station.request("POST", "/v1/completions", body).json
    texts = [choice["text"] for choice in sorted(reply["choices"], key=lambda choice: choice["index"])]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert len(set(texts)) > 1, "four samples are all the same"
    assert reply["usage"]["completion_tokens"] == 48 and reply["usage"]["prompt_tokens"] == 5
    again = station.request("POST", "/v1/completions", body).json
    assert [choice["text"] for choice in again["choices"]] == texts, "a seed must repeat"
    first = station.request("POST", "/v1/completions", {**body, "n": 1}).json["choices"][0]["text"]
    assert first == texts[0], "the first of n is what n = 1 says"


def prompts_in_four_shapes(station):
    body = {"max_tokens": 8, "temperature": 0}

    def texts(prompt):
        reply = station.request("POST", "/v1/completions", {**body, "prompt": prompt}).json
        return [choice["text"] for choice in reply["choices"]]
    one, two = texts("Once upon a time")[0], texts("Lily and Ben")[0]
    assert one.startswith((",", " ")) and one != two
    assert texts(["Once upon a time", "Lily and Ben"]) == [one, two]
    ids = station.request("POST", "/tokenize", {"content": "Once upon a time", "add_special": True}).json["tokens"]
    assert texts(ids) == [one] and texts([ids, ids]) == [one, one]
    echoed = station.request("POST", "/v1/completions", {**body, "prompt": "Once upon a time", "echo": True}).json
    assert echoed["choices"][0]["text"] == "Once upon a time" + one


def completion_logprobs(station):
    body = {"prompt": "Once upon a time", "max_tokens": 6, "temperature": 0, "logprobs": 3}
    choice = station.request("POST", "/v1/completions", body).json["choices"][0]
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["text_offset"]) == 6
    assert "".join(logprobs["tokens"]) == choice["text"]
    for token, value, top, offset in zip(*(logprobs[key] for key in (
            "tokens", "token_logprobs", "top_logprobs", "text_offset"))):
        assert value <= 0 and len(top) == 3 and max(top.values()) == value == top[token]
        assert choice["text"][offset:].startswith(token)


def chat_logprobs(station):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0, "logprobs": True,
            "top_logprobs": 2}
    content = station.request("POST", "/v1/chat/completions", body).json["choices"][0]["logprobs"]["content"]
    assert len(content) == 5
    for token in content:
        assert bytes(token["bytes"]).decode() == token["token"] and token["logprob"] <= 0
        assert len(token["top_logprobs"]) == 2 and token["top_logprobs"][0]["logprob"] == token["logprob"]
    streamed = [token for chunk in Stream(station.port, "/v1/chat/completions", body).events()
                for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert streamed == content


def logit_bias_forbids(station):
    body = {"prompt": "Once upon a time", "max_tokens": 1, "temperature": 0}
    first = station.request("POST", "/v1/completions", body).json["choices"][0]["text"]
    ids = station.request("POST", "/tokenize", {"content": "time" + first}).json["tokens"]
    biased = station.request("POST", "/v1/completions", {**body, "logit_bias": {str(ids[-1]): -100}}).json
    assert biased["choices"][0]["text"] != first
    forced = station.request("POST", "/v1/completions", {**body, "logit_bias": {"403": 100}}).json
    assert forced["choices"][0]["text"].strip() == "Once"


# ---- Load and abuse

def streams_together_equal_streams_alone(station):
    bodies = [{"prompt": prompt, "max_tokens": 40, "temperature": 0.9, "seed": seed}
              for seed, prompt in enumerate(["Once upon a time", "Lily saw a cat", "The dog ran", "One day"] * 8)]
    alone = [Stream(station.port, "/v1/completions", body).text() for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda body: Stream(station.port, "/v1/completions", body).text(), bodies))
    different = [i for i, (a, b) in enumerate(zip(alone, together)) if a != b]
    assert not different, f"{len(different)} of 32 texts depend on their neighbours"


def a_client_that_goes_frees_its_pages(station):
    for reset in (False, True):
        stream = Stream(station.port, "/v1/completions", LONG)
        assert next(stream.events())
        metrics = station.metrics()
        assert metrics['vllm:num_requests_running{model_name="stories"}'] == 1
        assert metrics['vllm:kv_cache_usage_perc{model_name="stories"}'] > 0
        stream.close(reset)
        station.wait_idle()
    # One that never read its reply, and one that was not streaming at all.
    Stream(station.port, "/v1/completions", LONG).close(True)
    connection = socket.create_connection(("127.0.0.1", station.port))
    body = json.dumps({**LONG, "n": 8})
    connection.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: x.localhost\r\ncontent-length: {len(body)}\r\n\r\n"
                       f"{body}".encode())
    time.sleep(0.1)
    connection.close()
    metrics = station.wait_idle()
    assert metrics['vllm:request_success_total{model_name="stories",finished_reason="abort"}'] >= 3
    assert metrics['pharos_stream_aborts_total{side="client"}'] >= 3


def a_full_queue_is_429(station):
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 240, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: station.request("POST", "/v1/completions", body), range(12)))
    refused = [reply for reply in replies if reply.status == 429]
    assert refused and any(reply.status == 200 for reply in replies), [reply.status for reply in replies]
    assert all(reply.status in (200, 429) for reply in replies)
    for reply in refused:
        assert reply.json["error"]["code"] == "rate_limit_exceeded" and int(reply.headers["retry-after"]) >= 1
    station.wait_idle()


def a_slow_reader_holds_up_nobody(station):
    slow = Stream(station.port, "/v1/completions",
                  {**LONG, "n": 8, "logprobs": 20, "temperature": 1}, receive_buffer=4096)
    slow.begin()
    start = time.monotonic()
    quick = Stream(station.port, "/v1/completions", {**LONG, "max_tokens": 100})
    assert len(list(quick.events())) >= 100
    assert time.monotonic() - start < 60
    ends = sum(choice["finish_reason"] == "length" for chunk in slow.events() for choice in chunk["choices"])
    assert ends == 8 and slow.done, "a slow reader loses nothing"
    station.wait_idle()


def too_large_a_body_is_413(station):
    connection = socket.create_connection(("127.0.0.1", station.port))
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999\r\n\r\n")
    head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert b" 413 " in head.split(b"\r\n")[0], head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def nonsense_is_400(station):
    connection = socket.create_connection(("127.0.0.1", station.port))
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
    head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert b" 400 " in head.split(b"\r\n")[0], head
    assert json.loads(body)["error"]["message"]


def a_long_text_is_tokenised(station):
    text = "Once upon a time there was a little girl. " * 20000
    tokens = station.request("POST", "/tokenize", {"content": text}).json["tokens"]
    back = station.request("POST", "/detokenize", {"tokens": tokens}).json["content"]
    assert back == " " + text  # this vocabulary puts a space in front, and pieces are told as they are
    refused = station.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": text}]})
    assert refused.status == 400 and refused.json["error"]["code"] == "context_length_exceeded"
    refused = station.request("POST", "/v1/chat/completions",
                              {"stream": True, "messages": [{"role": "user", "content": text}]})
    assert refused.status == 400 and refused.headers["content-type"] == "application/json"


def keep_alive_and_pipelining(station):
    connection = socket.create_connection(("127.0.0.1", station.port))
    one = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    connection.sendall(one + one + last)
    text = connection.makefile("rb").read()
    assert text.count(b"HTTP/1.1 200 OK") == 3 and text.index(b'"status":"ok"') < text.index(b'"object":"list"')


# ---- The station's life

def alive_before_its_models():
    with Station(ready=False) as station:
        assert station.request("GET", "/health").status == 200
        elapsed = time.monotonic() - station.started
        print(f"alive after {elapsed * 1000:.0f} ms")
        assert elapsed < 2, f"{elapsed:.3f} s until /health answered"
        station.wait_ready()


def a_graceful_stop_lets_replies_end():
    with Station() as station:
        stream = Stream(station.port, "/v1/completions", {**LONG, "max_tokens": 150, "stream_options": {"include_usage": True}})
        events = stream.events()
        next(events)
        station.signal()
        last = list(events)[-1]
        assert stream.done and last["usage"]["completion_tokens"] == 150, last
        assert station.wait() == 0
        try:
            station.request("GET", "/health", timeout=2)
            raise AssertionError("it still answers")
        except OSError:
            pass


def a_second_signal_cuts():
    station = Station()
    try:
        stream = Stream(station.port, "/v1/completions", {**LONG, "n": 32})
        next(stream.events())
        station.signal(signal.SIGINT)
        time.sleep(0.1)
        assert station.process.poll() is None, "thirty-two long replies were over at once"
        station.signal(signal.SIGTERM)
        assert station.wait(5) == 128 + signal.SIGTERM
    finally:
        station.discard()


def run_pharos(*arguments):
    return subprocess.run([PHAROS, *arguments], capture_output=True, text=True, timeout=60, check=False)


def bad_starts_say_why():
    with Station() as station:
        taken = run_pharos("serve", "--listen", f"127.0.0.1:{station.port}", "--model", STORIES)
        assert taken.returncode == 1 and "address already in use" in taken.stderr, taken.stderr
    nothing = run_pharos("serve", "--listen", "127.0.0.1:0")
    assert nothing.returncode == 1 and "--model" in nothing.stderr
    missing = run_pharos("serve", "--listen", "127.0.0.1:0", "--model", "nowhere.gguf")
    assert missing.returncode == 1 and "nowhere.gguf" in missing.stderr
    broken = run_pharos("serve", "--listen", "127.0.0.1:0", "--model", os.path.abspath(__file__))
    assert broken.returncode == 1 and "GGUF" in broken.stderr
    wrong = run_pharos("serve", "--lisen", "127.0.0.1:0")
    assert wrong.returncode == 2 and "--listen" in wrong.stderr
    port = run_pharos("serve", "--listen", "nonsense", "--model", STORIES)
    assert port.returncode == 1 and "nonsense" in port.stderr


def configurations_are_checked():
    example = CONFIG + """
  - {id: coder, tier: local, command: "llama-server -m coder.gguf --port {port}", api: openai, ttl_s: 300}
  - {id: big, tier: subscription, provider: together, upstream: meta-llama/Llama-3-70b-chat-hf,
     traits: {family: llama, architecture: dense, parameters_b: 70, training: rlhf}}
  - {id: judge, tier: premium, provider: openai, upstream: gpt-4o,
     price: {input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}}
providers:
  together: {api: openai, base_url: https://api.together.xyz/v1, key: ${PHAROS_TEST_KEY}, monthly_usd: 200, rpm: 600}
routes:
  - {model: auto, policy: cascade, order: [local, subscription, premium], escalate_below: 0.6}
  - {model: prod, policy: weighted, weights: {stories: 90, candidate: 10}}
budgets: {premium_usd_month: 180}
memory: {store: sqlite, embedding: null}
"""
    os.environ["PHAROS_TEST_KEY"] = "k"
    with Station(example) as station:
        log = station.log()
        assert "provider openai has no key" in log and "there is no model candidate" in log, log
        reply = station.request("POST", "/v1/completions", {"model": "prod", "prompt": "x", "max_tokens": 1})
        assert reply.status == 200 and "model=stories" in reply.headers["x-pharos-route"], reply.text
        listed = {each["id"] for each in json.loads(station.request("GET", "/v1/models").text)["data"]}
        assert {"stories", "tiny", "coder", "big", "judge", "auto", "prod"} <= listed, listed
    try:
        Station(CONFIG + "modles: []\n")
        raise AssertionError("an unknown key was accepted")
    except AssertionError as error:
        assert "modles" in str(error) and ":6" in str(error), error
    try:
        Station(CONFIG + "memory: {store: mysql}\n")
        raise AssertionError("an unknown store was accepted")
    except AssertionError as error:
        assert "memory.store" in str(error) and "postgres://" in str(error), error


def main():
    with open(os.path.join(HERE, "wire_cases.json"), encoding="utf-8") as file:
        cases = json.load(file)
    with Station() as station:
        for case in cases:
            runner.run(case["name"], lambda: check_case(station, case))
        for check in (whole_and_streamed_are_equal, usage_comes_last_and_alone, stops_cut_the_text,
                      choices_are_told_apart, prompts_in_four_shapes, completion_logprobs, chat_logprobs,
                      logit_bias_forbids, streams_together_equal_streams_alone,
                      a_client_that_goes_frees_its_pages, a_full_queue_is_429, a_slow_reader_holds_up_nobody,
                      too_large_a_body_is_413, nonsense_is_400, a_long_text_is_tokenised,
                      keep_alive_and_pipelining):
            runner.run(check.__name__, lambda: check(station))
    for check in (alive_before_its_models, a_graceful_stop_lets_replies_end, a_second_signal_cuts,
                  bad_starts_say_why, configurations_are_checked):
        runner.run(check.__name__, check)
    runner.finish()


if __name__ == "__main__":
    main()
