"""The wire formats of four providers, as a fake upstream speaks them: requests in, replies, streams and errors out.

Each provider is one class with the same methods; upstream.py knows nothing of JSON. What the four make different is kept
as they have it, for it is what gateways stumble over: Together says the role in every delta, sends no usage chunk of its
own and gives floats where base64 was asked for; Anthropic counts the prompt at the beginning and the output at the end,
and refuses a beginning of an answer that ends in white space; Gemini repeats its sums in every chunk, calls the end of a
tool call STOP, says "bad key" with a 400 and "come again in a second" in the body.
"""
import base64
import hashlib
import json
import math
import re
import struct
import time

WORDS = ("lamp", "ship", "storm", "harbour", "light", "keeper", "naïve", "東京", "don't", "“so”", "a\\b", "🙂", "{x}", "tide",
         "rock", "<b>", "seven", "fog", "bell", "night,", "sea.", "data:", "\"q\"", "Ωmega", "ends.\n", "rope", "oil", "wick")


def reply_tokens(prompt):
    """What every model here answers to a last user message: "12 tokens" in it says how many, else it is 6 to 25."""
    seed = hashlib.sha256(prompt.encode()).digest()
    said = re.search(r"\b(\d+) tokens\b", prompt)
    count = int(said.group(1)) if said else 6 + seed[0] % 20
    tokens = []
    for i in range(count):
        pick = (seed[1 + i % 31] + 7 * i + i // 31) % len(WORDS)
        joint = "" if i == 0 or tokens[-1].endswith("\n") else " "
        tokens.append(joint + WORDS[pick])
    return tokens


def reply_text(prompt):
    return "".join(reply_tokens(prompt))


def surety(ask):
    """How sure a model is of each of its tokens: what the last user message says ("surety 0.73"), else 0.9."""
    said = re.search(r"\bsurety (0\.\d+)\b", ask.last())
    return float(said.group(1)) if said else 0.9


def logprobs_of(ask, tokens):
    """OpenAI's shape; None where nobody asked."""
    if not ask.body.get("logprobs") or not tokens:
        return None
    return {"content": [{"token": token, "logprob": math.log(surety(ask)), "bytes": list(token.encode()), "top_logprobs": []}
                        for token in tokens], "refusal": None}


def text_tokens(text):
    return -(-len(text.encode()) // 4)


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def embedding(text, width):
    seed = hashlib.sha256(text.encode()).digest()
    return [(seed[i % 32] - 127.5) / 128 / (1 + i // 32) for i in range(width)]


class Refused(Exception):
    """An error of the provider: the status, and what its words for it are."""

    def __init__(self, status, name, message):
        super().__init__(message)
        self.status, self.name, self.message = status, name, message


class Ask:
    """What was asked, whatever the dialect."""

    def __init__(self, body):
        self.body, self.operation = body, "chat"
        self.model, self.stream, self.max_tokens, self.stops = "", False, None, []
        self.messages = []  # (role, text, images)
        self.tools, self.tool_choice, self.include_usage = [], None, False
        self.begins_with = ""  # what the assistant has said already and shall go on from
        self.prompt_tokens = self.cached = self.cache_write = 0
        self.id = ""

    def last(self):
        for role, text, _ in reversed(self.messages):
            if role in ("user", "tool"):
                return text
        return ""

    def count_prompt(self):
        self.prompt_tokens = 3 + sum(3 + text_tokens(text) + 85 * images for _, text, images in self.messages)
        if self.tools:
            self.prompt_tokens += text_tokens(compact(self.tools))
        return self.prompt_tokens


class Answer:
    """What is answered: tokens of text, or calls of tools as (name, pieces of arguments); and why it ends."""

    def __init__(self, ask):
        self.tokens, self.calls, self.finish, self.stop = [], [], "stop", None
        self.wrong_beginning = False
        if ask.tools and re.search(r"\btools?\b", ask.last()) and ask.messages[-1][0] == "user" and \
                ask.tool_choice != "none":
            self.call_tools(ask)
        else:
            self.say(ask)

    def call_tools(self, ask):
        names = [tool["name"] for tool in ask.tools]
        if ask.tool_choice in names:
            names = [ask.tool_choice]
        for name in names[:2 if "two tools" in ask.last() else 1]:
            arguments = compact({"about": ask.last(), "n": len(self.calls) + 1})
            self.calls.append((name, [arguments[i:i + 7] for i in range(0, len(arguments), 7)]))
        self.finish = "tool"

    def say(self, ask):
        whole = reply_tokens(ask.last())
        done = ask.begins_with
        if done and not "".join(whole).startswith(done):
            self.wrong_beginning = True
        for token in whole:
            if done:
                token, done = token[len(done):] if len(done) < len(token) else "", done[len(token):]
            if token:
                self.tokens.append(token)
        text = "".join(self.tokens)
        found = [(text.find(stop), stop) for stop in ask.stops if stop and stop in text]
        if found:
            at, self.stop = min(found)
            self.tokens = self.cut_text(at)
        if ask.max_tokens and len(self.tokens) > ask.max_tokens:
            self.tokens, self.finish, self.stop = self.tokens[:ask.max_tokens], "length", None

    def cut_text(self, at):
        kept = []
        for token in self.tokens:
            if at <= 0:
                break
            kept.append(token[:at])
            at -= len(token)
        return kept

    @property
    def count(self):
        return len(self.tokens) + sum(len(pieces) for _, pieces in self.calls)

    def pieces(self):
        """(what, index of the call, text), one a token; a call begins with ("call", index, name), which costs nothing."""
        for token in self.tokens:
            yield "text", 0, token
        for index, (name, pieces) in enumerate(self.calls):
            yield "call", index, name
            for piece in pieces:
                yield "arguments", index, piece


def words_of(content):
    """The text of a content member and how many images it has, for OpenAI's and Anthropic's shapes."""
    if content is None:
        return "", 0
    if isinstance(content, str):
        return content, 0
    texts, images = [], 0
    for part in content:
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text"):
            texts.append(part["text"])
        elif kind in ("image_url", "image"):
            images += 1
        elif kind == "tool_result":
            text, more = words_of(part.get("content"))
            texts.append(text)
            images += more
    return "\n".join(texts), images


def sse(value, event=None):
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {compact(value)}\n\n".encode()


class OpenAI:
    kind, key_header, error_type = "openai", "authorization", "application/json"
    done = b"data: [DONE]\n\n"
    finishes = {"stop": "stop", "length": "length", "tool": "tool_calls"}
    errors = {
        "bad_key": (401, "invalid_request_error", "invalid_api_key",
                    "Incorrect API key provided: sk-te**st. You can find your API key at https://platform.openai.com/account/api-keys."),
        "401": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-te**st."),
        "402": (402, "billing_error", "billing_hard_limit_reached", "Billing hard limit has been reached."),
        "403": (403, "request_forbidden", "unsupported_country_region_territory", "Country, region, or territory not supported"),
        "429": (429, "tokens", "rate_limit_exceeded", "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, "
                "Used 29934, Requested 921. Please try again in 1.71s."),
        "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan."),
        "500": (500, "server_error", None, "The server had an error while processing your request. Sorry about that!"),
        "overloaded": (503, "service_unavailable_error", "service_unavailable", "That model is currently overloaded."),
        "model": (404, "invalid_request_error", "model_not_found", "The model `gone` does not exist or you do not have access to it."),
        "context": (400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 8192 tokens. "
                    "However, your messages resulted in 9001 tokens. Please reduce the length of the messages."),
        "filter": (400, "invalid_request_error", "content_policy_violation", "Your request was rejected by our safety system."),
        "bad": (400, "invalid_request_error", None, "Something is wrong with the request."),
    }

    def key(self, headers, _query):
        return headers.get("authorization", "").removeprefix("Bearer ")

    def parse(self, path, _query, body):
        ask = Ask(body)
        ask.model, ask.stream = body.get("model", ""), bool(body.get("stream"))
        ask.id = "chatcmpl-" + hashlib.sha256(repr(time.time_ns()).encode()).hexdigest()[:24]
        ask.max_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
        stops = body.get("stop") or []
        ask.stops = [stops] if isinstance(stops, str) else stops
        ask.include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        if path.endswith("/embeddings"):
            ask.operation = "embed"
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            ask.messages = [("user", text if isinstance(text, str) else repr(text), 0) for text in texts]
            ask.prompt_tokens = sum(text_tokens(text) for _, text, _ in ask.messages)
            return ask
        if path.endswith("/chat/completions"):
            if not isinstance(body.get("messages"), list) or not body["messages"]:
                raise Refused(400, "bad", "Missing required parameter: 'messages'.")
            for message in body["messages"]:
                text, images = words_of(message.get("content"))
                for call in message.get("tool_calls") or []:
                    text += compact(call["function"])
                ask.messages.append((message["role"], text, images))
            ask.tools = [tool["function"] for tool in body.get("tools") or []]
            choice = body.get("tool_choice")
            ask.tool_choice = choice["function"]["name"] if isinstance(choice, dict) else choice
            self.take_beginning(ask, body)
        else:
            ask.operation = "complete"
            ask.messages = [("user", body["prompt"], 0)]
        ask.count_prompt()
        return ask

    def take_beginning(self, ask, body):
        """OpenAI's own models begin a new message after an assistant's; others that speak its dialect go on, when told to."""
        last = body["messages"][-1]
        told = body.get("continue_final_message") or last.get("prefix") or last.get("partial")
        if last["role"] == "assistant" and told:
            ask.begins_with = ask.messages[-1][1]

    def usage(self, ask, count):
        return {"prompt_tokens": ask.prompt_tokens, "completion_tokens": count, "total_tokens": ask.prompt_tokens + count,
                "prompt_tokens_details": {"cached_tokens": ask.cached, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                              "rejected_prediction_tokens": 0}}

    def whole(self, ask, answer):
        head = {"id": ask.id, "created": int(time.time()), "model": ask.model}
        finish = self.finishes[answer.finish]
        if ask.operation == "complete":
            choice = {"text": "".join(answer.tokens), "index": 0, "logprobs": None, "finish_reason": finish}
            return {**head, "object": "text_completion", "choices": [choice], "usage": self.usage(ask, answer.count)}
        message = {"role": "assistant", "content": "".join(answer.tokens) or None, "refusal": None, "annotations": []}
        if answer.calls:
            message["tool_calls"] = [{"id": f"call_{ask.id[-8:]}{index}", "type": "function", "function": {
                "name": name, "arguments": "".join(pieces)}} for index, (name, pieces) in enumerate(answer.calls)]
        return {**head, "object": "chat.completion", "choices": [
            {"index": 0, "message": message, "logprobs": logprobs_of(ask, answer.tokens), "finish_reason": finish}],
            "usage": self.usage(ask, answer.count), "service_tier": "default", "system_fingerprint": "fp_50906f2aac"}

    def chunk(self, ask, delta, finish=None, usage=None):
        if ask.operation == "complete":
            choice = {"text": delta.get("content") or "", "index": 0, "logprobs": None, "finish_reason": finish}
            return {"id": ask.id, "object": "text_completion", "created": 1700000000, "model": ask.model,
                    "choices": [choice], "usage": usage}
        chunk = {"id": ask.id, "object": "chat.completion.chunk", "created": 1700000000, "model": ask.model,
                 "service_tier": "default", "system_fingerprint": "fp_50906f2aac",
                 "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        if ask.include_usage:
            chunk["usage"] = usage
        return chunk

    def begin(self, ask, answer):
        return sse(self.chunk(ask, {"role": "assistant", "content": None if answer.calls else "", "refusal": None}))

    def piece(self, ask, what, index, text, _sent):
        if what == "text":
            chunk = self.chunk(ask, {"content": text})
            chunk["choices"][0]["logprobs"] = logprobs_of(ask, [text])
            return sse(chunk)
        call = {"index": index, "function": {"arguments": text}}
        if what == "call":
            call = {"index": index, "id": f"call_{ask.id[-8:]}{index}", "type": "function",
                    "function": {"name": text, "arguments": ""}}
        return sse(self.chunk(ask, {"tool_calls": [call]}))

    def end(self, ask, answer, sent):
        last = sse(self.chunk(ask, {}, self.finishes[answer.finish]))
        if ask.include_usage:
            last += sse({**self.chunk(ask, {}), "choices": [], "usage": self.usage(ask, sent)})
        return last + self.done

    def error(self, name, message=None):
        status, kind, code, text = self.errors[name]
        return status, {"error": {"message": message or text, "type": kind, "param": None, "code": code}}

    def error_event(self):
        return sse(self.error("500")[1])

    def rate_headers(self, seconds):
        return {"retry-after": str(seconds), "retry-after-ms": str(1000 * seconds), "x-ratelimit-remaining-tokens": "0"}

    def embeddings(self, ask):
        width = ask.body.get("dimensions") or 16
        rows = [embedding(text, width) for _, text, _ in ask.messages]
        if ask.body.get("encoding_format") == "base64":
            rows = [base64.b64encode(struct.pack(f"<{width}f", *row)).decode() for row in rows]
        return {"object": "list", "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
                "model": ask.model, "usage": {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens}}


class Together(OpenAI):
    kind = "together"
    finishes = {"stop": "eos", "length": "length", "tool": "tool_calls"}
    errors = {**OpenAI.errors,
              "bad_key": (401, "invalid_request_error", "invalid_api_key", "Invalid API key provided. You can find your API key "
                          "at https://api.together.xyz/settings/api-keys."),
              "401": (401, "invalid_request_error", "invalid_api_key", "Invalid API key provided."),
              "402": (402, "credit_limit", "credit_limit", "Credit limit exceeded. Please navigate to "
                      "https://api.together.xyz/settings/billing to add a credit card."),
              "403": (403, "invalid_request_error", None, "You do not have access to this model."),
              "429": (429, "rate_limit", "rate_limit", "You have reached the rate limit specific to this model."),
              "500": (500, "server_error", None, "Internal server error"),
              "context": (422, "invalid_request_error", None, "Input validation error: `inputs` tokens + `max_new_tokens` must be "
                          "<= 8193. Given: 9000 `inputs` tokens and 100 `max_new_tokens`")}

    def take_beginning(self, ask, body):
        if body["messages"][-1]["role"] == "assistant":
            ask.begins_with = ask.messages[-1][1]

    def usage(self, ask, count):
        return {"prompt_tokens": ask.prompt_tokens, "completion_tokens": count, "total_tokens": ask.prompt_tokens + count,
                "cached_tokens": 0}

    def chunk(self, ask, delta, finish=None, usage=None):
        text = delta.get("content") or ""
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "seed": None,
                  "delta": {"token_id": len(text) or None, "role": "assistant", "content": text, **delta}}
        return {"id": ask.id.replace("chatcmpl-", "oBUtQrM-"), "object": "chat.completion.chunk", "created": 1758039001,
                "choices": [choice], "model": ask.model, "usage": usage}

    def begin(self, ask, answer):
        return b""

    def end(self, ask, answer, sent):
        return sse(self.chunk(ask, {"content": ""}, self.finishes[answer.finish], self.usage(ask, sent))) + self.done

    def error(self, name, message=None):
        status, body = super().error(name, message)
        return status, {"id": "nrG1Gd4-2kFHot-" + "9a" * 8, **body}

    def rate_headers(self, seconds):
        return {"retry-after": str(seconds), "x-ratelimit-reset": str(seconds)}

    def embeddings(self, ask):
        ask.body = {**ask.body, "encoding_format": "float"}
        return super().embeddings(ask)


class Anthropic:
    kind = "anthropic"
    finishes = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use"}
    errors = {
        "bad_key": (401, "authentication_error", "invalid x-api-key"), "401": (401, "authentication_error", "invalid x-api-key"),
        "402": (402, "billing_error", "Your account has a billing problem."),
        "credit": (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to "
                   "Plans & Billing to upgrade or purchase credits."),
        "403": (403, "permission_error", "Your API key does not have permission to use the specified resource."),
        "429": (429, "rate_limit_error", "This request would exceed your organization's rate limit of 50,000 input tokens per minute."),
        "500": (500, "api_error", "Internal server error"), "overloaded": (529, "overloaded_error", "Overloaded"),
        "model": (404, "not_found_error", "model: gone"),
        "context": (400, "invalid_request_error", "prompt is too long: 200251 tokens > 200000 maximum"),
        "filter": (400, "invalid_request_error", "Output blocked by content filtering policy"),
        "bad": (400, "invalid_request_error", "messages: Field required"),
    }

    def key(self, headers, _query):
        return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")

    def parse(self, path, _query, body):
        ask = Ask(body)
        ask.id = "msg_01" + hashlib.sha256(repr(time.time_ns()).encode()).hexdigest()[:22]
        ask.model, ask.stream = body.get("model", ""), bool(body.get("stream"))
        ask.max_tokens, ask.stops = body.get("max_tokens"), body.get("stop_sequences") or []
        if path.endswith("/count_tokens"):
            ask.operation = "count"
        elif not isinstance(ask.max_tokens, int) or ask.max_tokens < 1:
            raise Refused(400, "bad", "max_tokens: Field required")
        if not isinstance(ask.stops, list):
            raise Refused(400, "bad", "stop_sequences: Input should be a valid list")
        self.take_messages(ask, body)
        ask.tools = body.get("tools") or []
        choice = body.get("tool_choice") or {}
        ask.tool_choice = choice.get("name") or choice.get("type")
        if body["messages"][-1]["role"] == "assistant":
            ask.begins_with = ask.messages[-1][1]
            if ask.begins_with != ask.begins_with.rstrip():
                raise Refused(400, "bad", "messages: final assistant content cannot end with trailing whitespace")
            if "noprefix" in ask.model:
                raise Refused(400, "bad", "This model does not support assistant message prefill. The conversation must end "
                              "with a user message.")
        ask.count_prompt()
        if '"cache_control"' in json.dumps(body):
            ask.cache_mark = hashlib.sha256(json.dumps([body.get("system"), body.get("tools")]).encode()).hexdigest()
        return ask

    def take_messages(self, ask, body):
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            raise Refused(400, "bad", "messages: at least one message is required")
        if body.get("system"):
            ask.messages.append(("system", *words_of(body["system"])))
        for message in body["messages"]:
            if message["role"] not in ("user", "assistant"):
                raise Refused(400, "bad", f"messages: Unexpected role \"{message['role']}\". Allowed roles are \"user\" or \"assistant\"")
            content, (text, images) = message["content"], words_of(message["content"])
            if content in ("", []):
                raise Refused(400, "bad", "messages: all messages must have non-empty content")
            blocks = content if isinstance(content, list) else []
            text += "".join(compact(block["input"]) for block in blocks if block["type"] == "tool_use")
            is_result = any(block["type"] == "tool_result" for block in blocks)
            ask.messages.append(("tool" if is_result else message["role"], text, images))

    def usage(self, ask, count):
        return {"input_tokens": ask.prompt_tokens - ask.cached - ask.cache_write, "cache_creation_input_tokens": ask.cache_write,
                "cache_read_input_tokens": ask.cached, "output_tokens": count, "service_tier": "standard"}

    def message(self, ask, content, finish, stop, count):
        return {"id": ask.id, "type": "message", "role": "assistant", "model": ask.model, "content": content,
                "stop_reason": finish, "stop_sequence": stop, "usage": self.usage(ask, count)}

    def finish(self, answer):
        return ("stop_sequence" if answer.stop else self.finishes[answer.finish]), answer.stop

    def whole(self, ask, answer):
        content = [{"type": "text", "text": "".join(answer.tokens)}] if answer.tokens else []
        content += [{"type": "tool_use", "id": f"toolu_{ask.id[-8:]}{index}", "name": name, "input": json.loads("".join(pieces))}
                    for index, (name, pieces) in enumerate(answer.calls)]
        return self.message(ask, content, *self.finish(answer), answer.count)

    def event(self, kind, **members):
        return sse({"type": kind, **members}, kind)

    def begin(self, ask, answer):
        start = self.event("message_start", message=self.message(ask, [], None, None, 1))
        if not answer.calls:
            start += self.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        return start + self.event("ping")

    def piece(self, ask, what, index, text, _sent):
        if what == "text":
            return self.event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        if what == "arguments":
            return self.event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": text})
        before = self.event("content_block_stop", index=index - 1) if index else b""
        return before + self.event("content_block_start", index=index, content_block={
            "type": "tool_use", "id": f"toolu_{ask.id[-8:]}{index}", "name": text, "input": {}})

    def end(self, ask, answer, sent):
        finish, stop = self.finish(answer)
        return (self.event("content_block_stop", index=max(0, len(answer.calls) - 1))
                + self.event("message_delta", delta={"stop_reason": finish, "stop_sequence": stop},
                             usage={"output_tokens": sent})
                + self.event("message_stop"))

    def error(self, name, message=None):
        status, kind, text = self.errors[name]
        return status, {"type": "error", "error": {"type": kind, "message": message or text}, "request_id": "req_011CSHoEeqs5C35K2UUq"}

    def error_event(self):
        return sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")

    def rate_headers(self, seconds):
        return {"retry-after": str(seconds), "anthropic-ratelimit-requests-remaining": "0"}


class Gemini:
    kind = "gemini"
    finishes = {"stop": "STOP", "length": "MAX_TOKENS", "tool": "STOP"}
    errors = {
        "bad_key": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
        "401": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        "402": (402, "FAILED_PRECONDITION", "Billing is not enabled for this project."),
        "403": (403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers."),
        "429": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
        "500": (500, "INTERNAL", "An internal error has occurred. Please retry or report in "
                "https://developers.generativeai.google/guide/troubleshooting"),
        "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "model": (404, "NOT_FOUND", "models/gone is not found for API version v1beta, or is not supported for generateContent."),
        "context": (400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        "filter": (400, "INVALID_ARGUMENT", "Request contains prohibited content."),
        "bad": (400, "INVALID_ARGUMENT", "* GenerateContentRequest.contents: contents is not specified"),
    }

    def key(self, headers, query):
        return headers.get("x-goog-api-key") or dict(part.partition("=")[::2] for part in query.split("&")).get("key", "")

    def parse(self, path, query, body):
        ask = Ask(body)
        ask.id = hashlib.sha256(repr(time.time_ns()).encode()).hexdigest()[:22]
        ask.model, _, method = path.rpartition("/models/")[2].partition(":")
        ask.stream, ask.sse = method == "streamGenerateContent", "alt=sse" in query
        ask.operation = {"countTokens": "count"}.get(method, "chat")
        settings = body.get("generationConfig") or {}
        ask.max_tokens, ask.stops = settings.get("maxOutputTokens"), settings.get("stopSequences") or []
        system = body.get("systemInstruction") or body.get("system_instruction")
        if system:
            ask.messages.append(("system", *self.words(system)))
        if not body.get("contents"):
            raise Refused(400, "bad", self.errors["bad"][2])
        for content in body["contents"]:
            parts = content["parts"]
            if not parts or any(not part for part in parts):
                raise Refused(400, "bad", "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.")
            if content.get("role", "user") not in ("user", "model"):
                raise Refused(400, "bad", "Please use a valid role: user, model.")
            is_result = any("functionResponse" in part for part in parts)
            role = "tool" if is_result else {"model": "assistant"}.get(content.get("role"), "user")
            ask.messages.append((role, *self.words(content)))
        ask.tools = [f for tool in body.get("tools") or [] for f in tool.get("functionDeclarations") or []]
        config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
        names = config.get("allowedFunctionNames")
        ask.tool_choice = names[0] if names else (config.get("mode") or "").lower()
        if ask.messages[-1][0] == "assistant":
            ask.begins_with = ask.messages[-1][1]
        ask.count_prompt()
        return ask

    def words(self, content):
        texts, images = [], 0
        for part in content["parts"]:
            if "text" in part:
                texts.append(part["text"])
            elif "functionResponse" in part:
                result = part["functionResponse"]["response"]  # an object; what clients call its one member differs
                only = next(iter(result.values())) if len(result) == 1 else None
                texts.append(only if isinstance(only, str) else compact(result))
            elif "functionCall" in part:
                texts.append(compact(part["functionCall"].get("args")))
            elif "inlineData" in part or "fileData" in part:
                images += 1
        return "\n".join(texts), images

    def reply(self, ask, parts, finish, count):
        usage = {"promptTokenCount": ask.prompt_tokens, "candidatesTokenCount": count, "totalTokenCount": ask.prompt_tokens + count,
                 "promptTokensDetails": [{"modality": "TEXT", "tokenCount": ask.prompt_tokens}]}
        if ask.cached:
            usage["cachedContentTokenCount"] = ask.cached
        candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": ask.model, "responseId": ask.id}

    def call(self, name, pieces):
        return {"functionCall": {"name": name, "args": json.loads("".join(pieces))}, "thoughtSignature": "c2lnbmVk"}

    def whole(self, ask, answer):
        parts = [{"text": "".join(answer.tokens)}] if answer.tokens else []
        parts += [self.call(name, pieces) for name, pieces in answer.calls]
        return self.reply(ask, parts, self.finishes[answer.finish], answer.count)

    def event(self, ask, value):
        return f"data: {compact(value)}\r\n\r\n".encode() if ask.sse else (compact(value) + "\r\n,\r\n").encode()

    def begin(self, ask, answer):
        ask.calls = answer.calls
        return b"" if ask.sse else b"["

    def piece(self, ask, what, index, text, sent):
        if what == "text":
            return self.event(ask, self.reply(ask, [{"text": text}], None, sent))
        if what == "arguments" and sent == sum(len(pieces) for _, pieces in ask.calls[:index + 1]):
            return self.event(ask, self.reply(ask, [self.call(*ask.calls[index])], None, sent))  # a call comes in one piece
        return b""

    def end(self, ask, answer, sent):
        last = self.event(ask, self.reply(ask, [{"text": ""}], self.finishes[answer.finish], sent))
        return last if ask.sse else last.removesuffix(b",\r\n") + b"]"

    def error(self, name, message=None, seconds=None):
        status, kind, text = self.errors[name]
        error = {"code": status, "message": message or text, "status": kind}
        if name == "bad_key":
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                                 "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}}]
        if seconds:
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}]
        return status, {"error": error}

    def error_event(self):
        return f"data: {compact(self.error('overloaded')[1])}\r\n\r\n".encode()

    def rate_headers(self, _seconds):
        return {}  # it says so in the body


FORMATS = {format.kind: format for format in (OpenAI(), Together(), Anthropic(), Gemini())}
