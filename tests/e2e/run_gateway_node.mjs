// The official packages for Node against a station with the fake upstream behind it (behind.py): every client with every
// provider's model. PHAROS_URL and UPSTREAM_URL name the two; PHAROS_NODE is the folder whose node_modules hold the packages.
// With PHAROS_DIRECT the clients talk to the upstream itself, each in its own dialect, which shows that the upstream is right.
import assert from "node:assert/strict";
import { Agent, createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.PHAROS_NODE, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const station = process.env.PHAROS_URL, upstream = process.env.UPSTREAM_URL, direct = Boolean(process.env.PHAROS_DIRECT);
const kinds = { gpt: "openai", llama: "together", claude: "anthropic", gem: "gemini" };
const dot = { type: "image_url", image_url: { url:
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==" } };
let passed = 0, failed = 0;

async function check(name, run) {
  try {
    await run();
    passed++;
  } catch (error) {
    failed++;
    console.log(`FAILED gateway node: ${name}\n${error.stack}`);
  }
}

async function ask(path, value) {
  const reply = await fetch(upstream + path, value && { method: "POST", body: JSON.stringify(value) });
  return reply.json();
}
const textOf = async (prompt) => (await ask("/__text", { prompt })).text;
const lastMetered = async () => (await ask("/__meter")).requests.at(-1);
const lastBody = async () => (await ask("/__bodies")).at(-1);
const place = (kind) => direct ? `${upstream}/${kind}${kind === "anthropic" ? "" : "/v1"}` : `${station}/v1`;
const named = (model) => direct ? `${model}-upstream` : model;

async function untilHungUp() {
  for (let i = 0; i < 500; i++) {
    const { requests, running } = await ask("/__meter");
    if (running === 0) return requests.at(-1);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("the upstream goes on and on");
}

// ---- OpenAI

// Node and node-fetch 2, which openai 4 is built on, may disagree on when a chunked reply on a kept connection is complete
// (nodejs/node#63989): see run_client_node.mjs. Asked of Node's own server; then openai 4 keeps no connections.
async function agentThatWorks({ default: OpenAI }) {
  const server = createServer((_, reply) => {
    reply.writeHead(200, { "content-type": "text/event-stream" });
    reply.write('data: {"choices":[]}\n\n');
    setTimeout(() => reply.end("data: [DONE]\n\n"), 20);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${server.address().port}`, apiKey: "any", maxRetries: 0 });
  try {
    for await (const _ of await client.chat.completions.create({ model: "m", messages: [], stream: true }));
    return undefined;
  } catch {
    return new Agent({ keepAlive: false });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const tools = [{ type: "function", function: { name: "look_up", description: "Looks something up",
  parameters: { type: "object", properties: { about: { type: "string" }, n: { type: "integer" } } } } },
{ type: "function", function: { name: "write_down", parameters: { type: "object", properties: {} } } }];

async function testOpenAIModel(say, client, helper, model) {
  const prompt = `Tell ${model} of the harbour`, messages = [{ role: "system", content: "Be brief." }, { role: "user", content: prompt }];
  const expected = await textOf(prompt), id = named(model);

  await say("whole, with usage", async () => {
    const reply = await client.chat.completions.create({ model: id, messages });
    const { prompt: input, output } = await lastMetered();
    assert.equal(reply.choices[0].message.content, expected);
    assert.equal(reply.choices[0].message.role, "assistant");
    if (!direct) assert.equal(reply.choices[0].finish_reason, "stop");
    assert.deepEqual([reply.usage.prompt_tokens, reply.usage.completion_tokens], [input, output]);
    assert.ok(direct || (reply.model === id && reply._request_id));
  });
  await say("stream, with usage", async () => {
    const stream = await client.chat.completions.create({ model: id, messages, stream: true, stream_options: { include_usage: true } });
    let text = "", usage = null, reason = null, pieces = 0;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      if (chunk.choices[0]?.delta.content) pieces++;
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    const { prompt: input, output } = await lastMetered();
    assert.equal(text, expected);
    assert.equal(pieces, output, "a token, a chunk");
    if (!direct) assert.equal(reason, "stop");
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [input, output]);
  });
  await say("stream helper", async () => {
    const stream = helper.stream({ model: id, messages });
    assert.equal((await stream.finalChatCompletion()).choices[0].message.content, expected);
  });
  await say("max_tokens and stop", async () => {
    const short = await client.chat.completions.create({ model: id, messages, max_tokens: 3 });
    assert.equal(short.choices[0].finish_reason, "length");
    assert.equal(short.usage.completion_tokens, 3);
    const word = expected.split(" ").find((each) => expected.indexOf(each) > 8);
    const cut = await client.chat.completions.create({ model: id, messages, stop: [word] });
    assert.equal(cut.choices[0].message.content.trimEnd(), expected.slice(0, expected.indexOf(word)).trimEnd());
    assert.ok(direct || cut.choices[0].finish_reason === "stop");
  });
  await say("tools, whole, and their results", async () => {
    const question = { role: "user", content: "Please use tools on the harbour" };
    const reply = await client.chat.completions.create({ model: id, messages: [question], tools });
    const [call] = reply.choices[0].message.tool_calls;
    assert.equal(reply.choices[0].finish_reason, "tool_calls");
    assert.ok(call.id && call.type === "function" && call.function.name === "look_up");
    assert.deepEqual(JSON.parse(call.function.arguments), { about: question.content, n: 1 });
    const after = await client.chat.completions.create({ model: id, tools, messages:
      [question, reply.choices[0].message, { role: "tool", tool_call_id: call.id, content: "it is closed" }] });
    assert.ok(after.choices[0].message.content, "an answer to the tool's result");
    const named_one = await client.chat.completions.create({ model: id, messages: [question], tools,
      tool_choice: { type: "function", function: { name: "write_down" } } });
    assert.equal(named_one.choices[0].message.tool_calls[0].function.name, "write_down");
  });
  await say("tools, streamed, two at once", async () => {
    const stream = helper.stream({ model: id, messages: [{ role: "user", content: "Use two tools" }], tools });
    const message = (await stream.finalChatCompletion()).choices[0].message;
    assert.deepEqual(message.tool_calls.map((call) => call.function.name), ["look_up", "write_down"]);
    for (const [index, call] of message.tool_calls.entries())
      assert.deepEqual(JSON.parse(call.function.arguments), { about: "Use two tools", n: index + 1 });
  });
  await say("an image goes through", async () => {
    const content = [{ type: "text", text: "What is this?" }, dot];
    const reply = await client.chat.completions.create({ model: id, messages: [{ role: "user", content }] });
    assert.equal(reply.choices[0].message.content, await textOf("What is this?"));
    assert.ok(JSON.stringify(await lastBody()).includes("iVBORw0KGgo"), "the picture's bytes");
    assert.equal(reply.usage.prompt_tokens, (await lastMetered()).prompt);
  });
  await say("cancel in mid-stream", async () => {
    const slow = direct ? "slow-20" : `slow-${model}`;
    const stream = await client.chat.completions.create({ model: slow, stream: true, messages: [{ role: "user", content: "say 200 tokens" }] });
    let seen = 0;
    for await (const _ of stream) if (++seen === 5) break;
    const entry = await untilHungUp();
    assert.ok(["hung up", "reset"].includes(entry.end) && entry.output < 100, JSON.stringify(entry));
  });
}

async function testOpenAI(version, { default: OpenAI }, httpAgent) {
  const of = (kind) => new OpenAI({ baseURL: place(kind), apiKey: "any", maxRetries: 0, ...(httpAgent && { httpAgent }) });
  const client = of("openai");
  for (const model of direct ? ["gpt", "llama"] : Object.keys(kinds)) {
    const one = of(kinds[model]);
    const helper = one.chat.completions.stream ? one.chat.completions : one.beta.chat.completions;
    await testOpenAIModel((name, run) => check(`openai ${version}, ${model}: ${name}`, run), one, helper, model);
  }
  const say = (name, run) => check(`openai ${version}: ${name}`, run);
  await say("embeddings: base64 in silence, floats when asked for", async () => {
    for (const model of direct ? ["embedder"] : ["embedder", "floats"]) {
      const silent = await client.embeddings.create({ model, input: ["one", "two"] });
      const floats = await client.embeddings.create({ model, input: ["one", "two"], encoding_format: "float" });
      assert.equal(silent.data.length, 2);
      assert.equal(silent.data[1].embedding.length, 16);
      for (const [row, { embedding }] of silent.data.entries())
        for (const [column, value] of embedding.entries())
          assert.ok(Math.abs(value - floats.data[row].embedding[column]) < 1e-6);
      assert.equal(silent.usage.prompt_tokens, 2);
    }
    assert.equal((await client.embeddings.create({ model: "embedder", input: "x", dimensions: 4 })).data[0].embedding.length, 4);
  });
  if (direct) return;
  await say("errors in OpenAI's words", async () => {
    const messages = [{ role: "user", content: "x" }];
    const cases = [["nowhere", 404, "model_not_found", OpenAI.NotFoundError], ["long", 400, "context_length_exceeded", OpenAI.BadRequestError],
      ["busy", 429, "rate_limit_exceeded", OpenAI.RateLimitError], ["broken", [502, 503], undefined, OpenAI.InternalServerError],
      ["crowded", 503, undefined, OpenAI.InternalServerError]];
    for (const [model, status, code, kind] of cases)
      for (const stream of [false, true])
        await assert.rejects(client.chat.completions.create({ model, messages, stream }), (error) => {
          assert.ok(error instanceof kind, `${model}: ${error}`);
          assert.ok([status].flat().includes(error.status), `${model}: ${error}`); // 503 once it has failed too often
          if (code) assert.equal(error.code, code);
          assert.ok(error.message.length > 10 && error.type);
          if (model === "busy") assert.ok(Number(new Headers(error.headers).get("retry-after")) >= 1);
          return true;
        });
  });
  await say("a stream that dies throws", async () => {
    for (const model of ["torn", "half"])
      await assert.rejects(async () => {
        const stream = await client.chat.completions.create({ model, stream: true, messages: [{ role: "user", content: "10 tokens" }] });
        for await (const _ of stream);
      }, (error) => error instanceof OpenAI.APIError);
  });
  await say("models", async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    for (const model of Object.keys(kinds)) assert.ok(ids.includes(model), ids.join());
    assert.equal((await client.models.retrieve("claude")).id, "claude");
  });
  for (const model of Object.keys(kinds)) await testResponses(say, client, model);
}

async function testResponses(say, client, model) {
  const input = `A word of ${model}`;
  await say(`responses, ${model}`, async () => {
    const expected = await textOf(input);
    const reply = await client.responses.create({ model, input, instructions: "Be brief." });
    const { prompt, output } = await lastMetered();
    assert.equal(reply.output_text, expected);
    assert.equal(reply.status, "completed");
    assert.deepEqual([reply.usage.input_tokens, reply.usage.output_tokens], [prompt, output]);
    const seen = [];
    let text = "", last = null;
    for await (const event of await client.responses.create({ model, input, stream: true })) {
      seen.push(event.type);
      if (last !== null) assert.equal(event.sequence_number, last + 1);
      last = event.sequence_number;
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.type === "response.completed") assert.equal(event.response.output_text ?? text, expected);
    }
    assert.equal(text, expected);
    assert.equal(seen[0], "response.created");
    for (const type of ["response.output_item.added", "response.content_part.added", "response.output_text.done", "response.completed"])
      assert.ok(seen.includes(type), type);
  });
  await say(`responses with tools, ${model}`, async () => {
    const flat = tools.map(({ function: each }) => ({ type: "function", strict: false, ...each }));
    const question = { role: "user", content: "use tools" };
    const reply = await client.responses.create({ model, input: [question], tools: flat });
    const call = reply.output.find((item) => item.type === "function_call");
    assert.equal(call.name, "look_up");
    assert.deepEqual(JSON.parse(call.arguments), { about: "use tools", n: 1 });
    const after = await client.responses.create({ model, tools: flat, input:
      [question, call, { type: "function_call_output", call_id: call.call_id, output: "closed" }] });
    assert.ok(after.output_text);
    let streamed = "";
    for await (const event of await client.responses.create({ model, input: [question], tools: flat, stream: true }))
      if (event.type === "response.function_call_arguments.delta") streamed += event.delta;
    assert.equal(streamed, call.arguments);
  });
}

// ---- Anthropic

async function testAnthropicModel(say, client, model) {
  const prompt = `Tell ${model} of the storm`, expected = await textOf(prompt), id = named(model);
  const request = { model: id, max_tokens: 100, system: "Be brief.", messages: [{ role: "user", content: prompt }] };
  const theirs = [{ name: "look_up", description: "Looks up", input_schema: { type: "object", properties: { about: { type: "string" } } } },
    { name: "write_down", input_schema: { type: "object", properties: {} } }];

  await say("whole, with usage", async () => {
    const reply = await client.messages.create(request);
    const { prompt: input, output } = await lastMetered();
    assert.deepEqual(reply.content.map((block) => [block.type, block.text]), [["text", expected]]);
    assert.deepEqual([reply.role, reply.type, reply.stop_reason], ["assistant", "message", "end_turn"]);
    assert.deepEqual([reply.usage.input_tokens, reply.usage.output_tokens], [input, output]);
  });
  await say("stream, raw events", async () => {
    const seen = [];
    let text = "", output = 0;
    for await (const event of await client.messages.create({ ...request, stream: true })) {
      seen.push(event.type);
      if (event.type === "content_block_delta") text += event.delta.text;
      if (event.type === "message_delta") output = event.usage.output_tokens;
    }
    assert.equal(text, expected);
    assert.equal(output, (await lastMetered()).output);
    const order = seen.filter((type, at) => type !== "ping" && (at === 0 || type !== "content_block_delta" || seen[at - 1] !== type));
    assert.deepEqual(order, ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"]);
  });
  await say("stream helper", async () => {
    const stream = client.messages.stream(request);
    const message = await stream.finalMessage();
    assert.equal(message.content[0].text, expected);
    assert.equal(message.stop_reason, "end_turn");
    assert.equal(message.usage.output_tokens, (await lastMetered()).output);
  });
  await say("max_tokens and stop_sequences", async () => {
    const short = await client.messages.create({ ...request, max_tokens: 2 });
    assert.deepEqual([short.stop_reason, short.usage.output_tokens], ["max_tokens", 2]);
    const word = expected.split(" ").find((each) => expected.indexOf(each) > 8);
    const cut = await client.messages.create({ ...request, stop_sequences: [word] });
    assert.equal(cut.content[0].text.trimEnd(), expected.slice(0, expected.indexOf(word)).trimEnd());
    if (model === "claude") assert.deepEqual([cut.stop_reason, cut.stop_sequence], ["stop_sequence", word]);
  });
  await say("tools and their results", async () => {
    const question = { role: "user", content: "use tools" };
    const reply = await client.messages.create({ ...request, messages: [question], tools: theirs });
    const call = reply.content.find((block) => block.type === "tool_use");
    assert.equal(reply.stop_reason, "tool_use");
    assert.deepEqual([call.name, call.input], ["look_up", { about: "use tools", n: 1 }]);
    const after = await client.messages.create({ ...request, tools: theirs, messages: [question, { role: "assistant", content: reply.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "closed" }] }] });
    assert.equal(after.content[0].text, await textOf("closed"));
  });
  await say("tools, streamed, two at once", async () => {
    const stream = client.messages.stream({ ...request, messages: [{ role: "user", content: "two tools" }], tools: theirs });
    const message = await stream.finalMessage();
    const calls = message.content.filter((block) => block.type === "tool_use");
    assert.deepEqual(calls.map((call) => [call.name, call.input.n]), [["look_up", 1], ["write_down", 2]]);
    assert.equal(message.stop_reason, "tool_use");
  });
  await say("an image goes through", async () => {
    const source = { type: "base64", media_type: "image/png", data: dot.image_url.url.split(",")[1] };
    const reply = await client.messages.create({ ...request, messages: [{ role: "user", content:
      [{ type: "image", source }, { type: "text", text: "What is this?" }] }] });
    assert.equal(reply.content[0].text, await textOf("What is this?"));
    assert.ok(JSON.stringify(await lastBody()).includes("iVBORw0KGgo"));
  });
  await say("cancel in mid-stream", async () => {
    const stream = client.messages.stream({ ...request, model: direct ? "slow-20" : `slow-${model}`, max_tokens: 500,
      messages: [{ role: "user", content: "say 200 tokens" }] });
    let seen = 0;
    stream.on("text", () => { if (++seen === 5) stream.abort(); });
    await assert.rejects(stream.done());
    const entry = await untilHungUp();
    assert.ok(["hung up", "reset"].includes(entry.end) && entry.output < 100, JSON.stringify(entry));
  });
}

async function testAnthropic(version, { default: Anthropic }) {
  const client = new Anthropic({ baseURL: direct ? place("anthropic") : station, apiKey: "any", maxRetries: 0 });
  for (const model of direct ? ["claude"] : Object.keys(kinds))
    await testAnthropicModel((name, run) => check(`anthropic ${version}, ${model}: ${name}`, run), client, model);
  const say = (name, run) => check(`anthropic ${version}: ${name}`, run);
  const messages = [{ role: "user", content: "Count this, please." }];
  await say("prompt-cache marks go through, and what they save comes back", async () => {
    const system = [{ type: "text", text: `Long instructions ${version}`, cache_control: { type: "ephemeral" } }];
    const first = await client.messages.create({ model: named("claude"), max_tokens: 50, system, messages });
    const second = await client.messages.create({ model: named("claude"), max_tokens: 50, system, messages });
    assert.ok(first.usage.cache_creation_input_tokens > 0, JSON.stringify(first.usage));
    assert.ok(second.usage.cache_read_input_tokens > 0, JSON.stringify(second.usage));
  });
  await say("count_tokens", async () => {
    for (const model of direct ? ["claude"] : Object.keys(kinds)) {
      const { input_tokens } = await client.messages.countTokens({ model: named(model), messages });
      assert.ok(Number.isInteger(input_tokens) && input_tokens >= 4 && input_tokens < 100, String(input_tokens));
    }
  });
  if (direct) return;
  await say("errors in Anthropic's words", async () => {
    const cases = [["nowhere", 404, "not_found_error"], ["long", 400, "invalid_request_error"], ["busy", 429, "rate_limit_error"],
      ["broken", [502, 529], ["api_error", "overloaded_error"]], ["crowded", 529, "overloaded_error"]];
    for (const [model, status, type] of cases)
      for (const stream of [false, true])
        await assert.rejects(client.messages.create({ model, max_tokens: 9, messages, stream }), (error) => {
          assert.ok([status].flat().includes(error.status), `${model}: ${error}`);
          assert.ok(error.error?.type === "error" && [type].flat().includes(error.error.error?.type), `${model}: ${JSON.stringify(error.error)}`);
          assert.ok(error.error.error.message && (error.requestID ?? error.request_id), "request-id");
          return true;
        });
  });
  await say("a stream that dies throws", async () => {
    for (const model of ["torn", "half"])
      await assert.rejects(async () => {
        for await (const _ of await client.messages.create({ model, max_tokens: 99, stream: true, messages: [{ role: "user", content: "10 tokens" }] }));
      });
  });
}

// ---- Others that speak OpenAI's dialect

async function testAiSdk() {
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  const { generateText, streamText, embed, tool } = await load("ai");
  const { z } = await load("zod");
  for (const model of direct ? ["gpt"] : Object.keys(kinds)) {
    const provider = createOpenAICompatible({ name: "pharos", baseURL: place("openai"), apiKey: "any", includeUsage: true });
    const prompt = `Sing of ${model}`, settings = { model: provider.chatModel(named(model)), prompt, maxRetries: 0 };
    const look_up = tool({ description: "Looks up", inputSchema: z.object({ about: z.string(), n: z.number() }),
      execute: async ({ about }) => `nothing on ${about}` });
    await check(`ai sdk, ${model}: text, stream, tools`, async () => {
      const expected = await textOf(prompt);
      const whole = await generateText(settings);
      const { prompt: input, output } = await lastMetered();
      assert.equal(whole.text, expected);
      assert.deepEqual([whole.usage.inputTokens, whole.usage.outputTokens], [input, output]);
      const streamed = streamText(settings);
      let text = "";
      for await (const piece of streamed.textStream) text += piece;
      assert.equal(text, expected);
      assert.equal(await streamed.finishReason, "stop");
      assert.equal((await streamed.usage).outputTokens, output);
      const called = streamText({ ...settings, prompt: "use tools", tools: { look_up } });
      const calls = await called.toolCalls;
      assert.deepEqual(calls.map(({ toolName, input: given }) => [toolName, given]), [["look_up", { about: "use tools", n: 1 }]]);
    });
  }
  await check("ai sdk: embed", async () => {
    const provider = createOpenAICompatible({ name: "pharos", baseURL: place("openai"), apiKey: "any" });
    assert.equal((await embed({ model: provider.textEmbeddingModel("embedder"), value: "one" })).embedding.length, 16);
  });
}

async function testLangChain() {
  const { ChatOpenAI, OpenAIEmbeddings } = await load("@langchain/openai");
  for (const model of direct ? ["gpt"] : Object.keys(kinds)) {
    const chat = new ChatOpenAI({ model: named(model), apiKey: "any", maxRetries: 0, configuration: { baseURL: place("openai") } });
    await check(`langchain, ${model}: invoke, stream, tools`, async () => {
      const prompt = `Draw ${model}`, expected = await textOf(prompt);
      const whole = await chat.invoke(prompt);
      const { prompt: input, output } = await lastMetered();
      assert.equal(whole.content, expected);
      assert.deepEqual([whole.usage_metadata.input_tokens, whole.usage_metadata.output_tokens], [input, output]);
      let text = "", last;
      for await (const chunk of await chat.stream(prompt)) {
        text += chunk.content;
        last = chunk.usage_metadata ?? last;
      }
      assert.equal(text, expected);
      assert.equal(last.output_tokens, output);
      const called = await chat.bindTools(tools).invoke("use tools");
      assert.deepEqual(called.tool_calls.map(({ name, args }) => [name, args]), [["look_up", { about: "use tools", n: 1 }]]);
    });
  }
  await check("langchain: embeddings", async () => {
    const embeddings = new OpenAIEmbeddings({ model: "embedder", apiKey: "any", configuration: { baseURL: place("openai") } });
    assert.equal((await embeddings.embedDocuments(["one", "two"]))[1].length, 16);
  });
}

// Google's own client, against the upstream only: the reference for its format.
async function testGoogle() {
  const { GoogleGenAI } = await load("@google/genai");
  const client = new GoogleGenAI({ apiKey: "any", httpOptions: { baseUrl: `${upstream}/gemini` } });
  const model = "gem-upstream", contents = "Tell of the reef", expected = await textOf(contents);
  await check("google: whole, stream, count", async () => {
    const whole = await client.models.generateContent({ model, contents });
    assert.equal(whole.text, expected);
    assert.equal(whole.candidates[0].finishReason, "STOP");
    let text = "", last;
    for await (const chunk of await client.models.generateContentStream({ model, contents })) {
      text += chunk.text ?? "";
      last = chunk;
    }
    assert.equal(text, expected);
    assert.equal(last.usageMetadata.candidatesTokenCount, whole.usageMetadata.candidatesTokenCount);
    assert.equal((await client.models.countTokens({ model, contents })).totalTokens, whole.usageMetadata.promptTokenCount);
  });
  await check("google: tools", async () => {
    const config = { tools: [{ functionDeclarations: [{ name: "look_up", parameters: { type: "OBJECT", properties: { about: { type: "STRING" } } } }] }] };
    for await (const chunk of await client.models.generateContentStream({ model, contents: "use tools", config }))
      if (chunk.functionCalls) assert.deepEqual(chunk.functionCalls.map(({ name, args }) => [name, args]), [["look_up", { about: "use tools", n: 1 }]]);
    const whole = await client.models.generateContent({ model, contents: "use tools", config });
    assert.equal(whole.functionCalls[0].name, "look_up");
  });
  await check("google: errors", async () => {
    await assert.rejects(client.models.generateContent({ model: "fault-429", contents }), (error) => error.status === 429 && /RESOURCE_EXHAUSTED/.test(error.message));
    await assert.rejects(client.models.generateContent({ model: "fault-context", contents }), (error) => error.status === 400);
  });
}

if (direct) await testGoogle();
const openai4 = await load("openai4");
await testOpenAI("4", openai4, await agentThatWorks(openai4));
const modern = Number(process.versions.node.split(".")[0]) >= 20;
if (modern) await testOpenAI("6", await load("openai"));
await testAnthropic("0.60", await load("anthropic060"));
await testAnthropic("1", await load("@anthropic-ai/sdk"));
await testAiSdk();
if (modern) await testLangChain();
else console.log(`SKIP: openai 6 and langchain want Node 20, this is ${process.versions.node}`);
console.log(`gateway node: ${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
