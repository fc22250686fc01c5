// The official OpenAI packages for Node (two major versions) and the AI SDK against a running station.
// PHAROS_URL names it; PHAROS_NODE is the folder whose node_modules hold the packages.
import assert from "node:assert/strict";
import { Agent, createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.PHAROS_NODE, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const url = process.env.PHAROS_URL;
const baseURL = `${url}/v1`;
const messages = [{ role: "user", content: "Once upon a time" }];
const greedy = { model: "stories", temperature: 0, max_tokens: 24 };
let passed = 0, failed = 0;

async function check(name, run) {
  try {
    await run();
    passed++;
  } catch (error) {
    failed++;
    console.log(`FAILED node: ${name}\n${error.stack}`);
  }
}

async function metric(series) {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((each) => each.startsWith(`${series} `));
  return line ? Number(line.split(" ").at(-1)) : 0;
}

async function untilIdle() {
  for (let i = 0; i < 1500; i++) {
    if (await metric('vllm:num_requests_running{model_name="stories"}') === 0 &&
        await metric('vllm:kv_cache_usage_perc{model_name="stories"}') === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("sequences keep running");
}

// Some releases of Node, Debian 12's among them, and node-fetch 2, which openai 4 is built on, do not agree on when a
// chunked reply on a kept connection is complete (nodejs/node#63989). Node's own server shows whether this is one; then
// openai 4 gets an agent that keeps no connections, as its users have to do.
async function agentThatWorks({ default: OpenAI }) {
  const server = createServer((_, reply) => {
    reply.writeHead(200, { "content-type": "text/event-stream" });
    reply.write('data: {"choices":[]}\n\n');
    setTimeout(() => reply.end("data: [DONE]\n\n"), 20);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${server.address().port}`, apiKey: "any", maxRetries: 0 });
  try {
    for await (const _ of await client.chat.completions.create({ ...greedy, messages, stream: true }));
    return undefined;
  } catch (error) {
    console.log(`NOTE: openai 4 keeps no connections here: with Node's own server, ${error.message}`);
    return new Agent({ keepAlive: false });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function testOpenAI(version, { default: OpenAI }, httpAgent) {
  const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0, ...(httpAgent && { httpAgent }) });
  const helper = client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions;
  const say = (name, run) => check(`openai ${version}: ${name}`, run);
  let whole;

  await say("complete", async () => {
    const { data, response, request_id } = await client.chat.completions.create({ ...greedy, messages }).withResponse();
    whole = data.choices[0].message.content;
    assert.equal(data.object, "chat.completion");
    assert.equal(data.choices[0].message.role, "assistant");
    assert.equal(data.choices[0].finish_reason, "length");
    assert.equal(data.usage.completion_tokens, 24);
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + 24);
    assert.ok(whole.length > 10);
    assert.ok(data._request_id && response.headers.get("x-request-id") === data._request_id && request_id);
    assert.match(response.headers.get("x-pharos-route"), /model=stories; provider=local/);
  });
  await say("stream, raw iterator", async () => {
    let text = "", reason = null, roles = 0, chunks = 0;
    for await (const chunk of await client.chat.completions.create({ ...greedy, messages, stream: true })) {
      assert.equal(chunk.object, "chat.completion.chunk");
      assert.equal(reason, null, "nothing follows finish_reason");
      const [choice] = chunk.choices;
      if (choice.delta.role) roles++;
      text += choice.delta.content ?? "";
      reason = choice.finish_reason;
      chunks++;
    }
    assert.equal(text, whole);
    assert.equal(reason, "length");
    assert.equal(roles, 1);
    assert.ok(chunks > 20);
  });
  await say("stream helper", async () => {
    const deltas = [];
    const stream = helper.stream({ ...greedy, messages, stream_options: { include_usage: true } });
    stream.on("content", (delta) => deltas.push(delta));
    const completion = await stream.finalChatCompletion();
    assert.equal(completion.choices[0].message.content, whole);
    assert.equal(deltas.join(""), whole);
    assert.equal(completion.choices[0].finish_reason, "length");
    assert.equal(completion.usage.completion_tokens, 24);
    assert.equal((await stream.finalMessage()).role, "assistant");
  });
  await say("stream helper with choices and logprobs", async () => {
    const completion = await helper.stream({ ...greedy, messages, n: 3, logprobs: true, top_logprobs: 2 })
      .finalChatCompletion();
    assert.equal(completion.choices.length, 3);
    for (const choice of completion.choices) {
      assert.equal(choice.message.content, whole);
      assert.equal(choice.logprobs.content.length, 24);
      assert.equal(choice.logprobs.content[0].top_logprobs.length, 2);
    }
  });
  await say("toReadableStream goes round", async () => {
    const source = await client.chat.completions.create({ ...greedy, messages, stream: true });
    const { ChatCompletionStream } = await load(`${version === "4" ? "openai4" : "openai"}/lib/ChatCompletionStream`);
    const copy = ChatCompletionStream.fromReadableStream(source.toReadableStream());
    assert.equal(await copy.finalContent(), whole);
  });
  await say("models", async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["stories", "tiny"]);
    assert.equal((await client.models.retrieve("tiny")).id, "tiny");
  });
  await say("completions", async () => {
    const reply = await client.completions.create({ ...greedy, prompt: ["Once upon a time", "Lily"], n: 2, logprobs: 1 });
    assert.equal(reply.object, "text_completion");
    assert.deepEqual(reply.choices.map((choice) => choice.index), [0, 1, 2, 3]);
    assert.equal(reply.choices[0].text, reply.choices[1].text);
    assert.equal(reply.choices[0].logprobs.tokens.length, 24);
    let text = "";
    for await (const chunk of await client.completions.create({ ...greedy, prompt: "Once upon a time", stream: true }))
      text += chunk.choices[0].text;
    assert.equal(text, reply.choices[0].text);
  });
  const errors = [
    ["no such model", { model: "nope" }, OpenAI.NotFoundError, 404, "model_not_found", "model"],
    ["temperature", { temperature: 9 }, OpenAI.BadRequestError, 400, null, "temperature"],
    ["max_tokens", { max_tokens: 0 }, OpenAI.BadRequestError, 400, null, "max_tokens"],
    ["context", { messages: [{ role: "user", content: "word ".repeat(900) }] }, OpenAI.BadRequestError, 400,
      "context_length_exceeded", "messages"],
    ["json mode", { response_format: { type: "json_object" } }, OpenAI.BadRequestError, 400, "unsupported_parameter",
      "response_format"],
  ];
  for (const [name, change, kind, status, code, param] of errors)
    for (const stream of [false, true])
      await say(`error: ${name}${stream ? ", streaming" : ""}`, async () => {
        await assert.rejects(client.chat.completions.create({ ...greedy, messages, stream, ...change }), (error) => {
          assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
          assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
          assert.equal(error.type, "invalid_request_error");
          assert.ok(error.message.length > 10);
          return true;
        });
      });
  await say("error: no such endpoint", () => assert.rejects(
    client.moderations.create({ input: "x" }), (error) => error instanceof OpenAI.NotFoundError));
  await say("error: a model that makes no embeddings", () => assert.rejects(client.embeddings.create(
    { model: "stories", input: "x" }), (error) => error instanceof OpenAI.BadRequestError && error.code === "unsupported"));
  await say("error: queue full", async () => {
    const replies = await Promise.allSettled(Array.from({ length: 12 }, () => client.completions.create(
      { model: "tiny", prompt: "Once", max_tokens: 240, ignore_eos: true })));
    const refused = replies.filter((reply) => reply.status === "rejected").map((reply) => reply.reason);
    assert.ok(refused.length > 0 && refused.length < 12);
    for (const error of refused) {
      assert.ok(error instanceof OpenAI.RateLimitError, String(error));
      assert.equal(error.code, "rate_limit_exceeded");
      assert.ok(Number(new Headers(error.headers).get("retry-after")) >= 1);
    }
  });
  await say("retries get through a full queue", async () => {
    const patient = new OpenAI({ baseURL, apiKey: "any", maxRetries: 20 });
    const replies = await Promise.all(Array.from({ length: 5 }, () => patient.completions.create(
      { model: "tiny", prompt: "Once", max_tokens: 60, ignore_eos: true })));
    assert.ok(replies.every((reply) => reply.usage.completion_tokens === 60));
  });
  await say("cancel in mid-stream", async () => {
    const stream = await client.chat.completions.create({ ...greedy, max_tokens: 450, ignore_eos: true, messages, stream: true });
    let seen = 0;
    for await (const chunk of stream) if (chunk && ++seen === 5) break;
    const aborted = helper.stream({ ...greedy, max_tokens: 450, ignore_eos: true, messages });
    aborted.on("chunk", () => aborted.abort());
    await assert.rejects(aborted.done(), OpenAI.APIUserAbortError);
    await untilIdle();
  });
  await say("tools are accepted", async () => {
    const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
    const conversation = [...messages,
      { role: "assistant", content: null, tool_calls: [{ id: "c1", type: "function", function: { name: "weather", arguments: "{}" } }] },
      { role: "tool", tool_call_id: "c1", content: "sunny" }];
    for (const tool_choice of ["auto", "none"])
      assert.equal((await client.chat.completions.create({ ...greedy, messages: conversation, tools, tool_choice }))
        .choices[0].message.role, "assistant");
  });
}

async function testAiSdk() {
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  const { generateText, streamText } = await load("ai");
  const provider = createOpenAICompatible({ name: "pharos", baseURL, includeUsage: true });
  const settings = { model: provider.chatModel("stories"), temperature: 0, maxOutputTokens: 24, prompt: "Once upon a time" };
  let whole;
  await check("ai sdk: generateText", async () => {
    const reply = await generateText(settings);
    whole = reply.text;
    assert.equal(reply.finishReason, "length");
    assert.equal(reply.usage.outputTokens, 24);
  });
  await check("ai sdk: streamText", async () => {
    const reply = streamText(settings);
    let text = "";
    for await (const piece of reply.textStream) text += piece;
    assert.equal(text, whole);
    assert.equal(await reply.finishReason, "length");
    assert.equal((await reply.usage).outputTokens, 24);
  });
  await check("ai sdk: completion model", async () => {
    const reply = await generateText({ ...settings, model: provider.completionModel("stories") });
    assert.equal(reply.finishReason, "length");
  });
  await check("ai sdk: errors carry our message", async () => {
    await assert.rejects(generateText({ ...settings, model: provider.chatModel("nope"), maxRetries: 0 }),
      (error) => error.statusCode === 404 && /no model "nope"/.test(error.message));
  });
}

const openai4 = await load("openai4");
await testOpenAI("4", openai4, await agentThatWorks(openai4));
if (Number(process.versions.node.split(".")[0]) >= 20) await testOpenAI("6", await load("openai"));
else console.log(`SKIP: openai 6 wants Node 20, this is ${process.versions.node}`);
await testAiSdk();
console.log(`node: ${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
