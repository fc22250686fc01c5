// A real engine to supervise: llama.cpp, as node-llama-cpp ships it, behind the OpenAI API. One process, one model.
//
//   PHAROS_ENGINE=folder of the packages  node engine.mjs --model F.gguf --port N [--context 512] [--sequences 4]
//       [--load-ms 0]  it takes so much longer to load        [--token-ms 0]  and each token so much longer
//       [--ballast-mb 0]  it takes so much memory more
//
// Like llama.cpp's own server it listens at once and answers /health with 503 while the model loads.
import {createServer} from "node:http";
import {join} from "node:path";
import {pathToFileURL} from "node:url";
import {setTimeout as sleep} from "node:timers/promises";

const settings = {context: 512, sequences: 4, "load-ms": 0, "token-ms": 0, "ballast-mb": 0};
for (let i = 2; i < process.argv.length; i += 2) settings[process.argv[i].slice(2)] = process.argv[i + 1];
const modules = join(process.env.PHAROS_ENGINE, "node_modules");
const load = (name) => import(pathToFileURL(join(modules, name)).href);
let engine = null; // once the model is there

async function loadEngine() {
    const {getLlama, LlamaLogLevel} = await load("node-llama-cpp/dist/index.js");
    const {Template} = await load("@huggingface/jinja/dist/index.js");
    await sleep(Number(settings["load-ms"]));
    const llama = await getLlama({gpu: false, build: "never", skipDownload: true, progressLogs: false, maxThreads: 1,
        logLevel: LlamaLogLevel.error});
    const model = await llama.loadModel({modelPath: settings.model});
    const context = await model.createContext({contextSize: Number(settings.context), sequences: Number(settings.sequences),
        threads: 1});
    const template = model.fileInfo.metadata.tokenizer?.chat_template;
    const ballast = Buffer.alloc(Number(settings["ballast-mb"]) * 2 ** 20, 1);
    return {model, ballast, template: template && new Template(template), free: Array.from(
        {length: Number(settings.sequences)}, () => context.getSequence()), waiting: []};
}

// ---- Prompts and sequences

function promptOf({prompt, messages, continue_final_message: goesOn}) {
    if (prompt !== undefined) return prompt;
    const {template} = engine, names = {system: "System", user: "User", assistant: "Assistant"};
    const text = template ? template.render({messages, add_generation_prompt: !goesOn, bos_token: "", eos_token: ""})
        : messages.map((m) => `${names[m.role]}: ${m.content}\n`).join("") + (goesOn ? "" : "Assistant:");
    const last = messages.at(-1).content;
    return goesOn ? text.slice(0, text.lastIndexOf(last) + last.length) : text;
}

function take() {
    const sequence = engine.free.pop();
    return sequence ?? new Promise((resolve) => engine.waiting.push(resolve));
}

async function give(sequence) {
    await sequence.clearHistory();
    const next = engine.waiting.shift();
    if (next) next(sequence); else engine.free.push(sequence);
}

// Pieces of text, then {finish, prompt, completion}. A character is shown when all its tokens are there.
async function* generate(body, isGone) {
    const {model} = engine;
    const limit = body.max_tokens ?? body.max_completion_tokens ?? 64;
    const input = model.tokenize(promptOf(body), true);
    if (model.tokens.shouldPrependBosToken) input.unshift(model.tokens.bos);
    const sequence = await take(), output = [];
    let shown = "", finish = "stop"; // the tokens end by themselves where the model ends its turn
    try {
        for await (const token of sequence.evaluate(input, {temperature: body.temperature ?? 0})) {
            output.push(token);
            const text = model.detokenize(output, false, body.continue_final_message ? input : []); // where a word goes on
            if (!text.endsWith("\ufffd")) { yield text.slice(shown.length); shown = text; }
            if (output.length >= limit || isGone()) { finish = "length"; break; }
            await sleep(Number(settings["token-ms"]));
        }
    } finally {
        await give(sequence);
    }
    yield {finish, prompt: input.length, completion: output.length};
}

// ---- HTTP

function answer(response, status, value) {
    response.writeHead(status, {"content-type": "application/json"});
    response.end(JSON.stringify(value));
}

const failure = (message, type) => ({error: {message, type, param: null, code: null}});

async function complete(request, response, isChat) {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const body = JSON.parse(Buffer.concat(pieces).toString());
    const frame = {id: `cmpl-${Date.now()}`, created: Math.floor(Date.now() / 1000), model: body.model ?? "engine"};
    const choice = (text, finish, whole) => ({index: 0, finish_reason: finish, ...(!isChat ? {text} : whole
        ? {message: {role: "assistant", content: text}} : {delta: text === null ? {} : {role: "assistant", content: text}})});
    const object = isChat ? "chat.completion" : "text_completion";
    const say = (value) => response.write(`data: ${JSON.stringify(value)}\n\n`);
    let all = "", end = null;
    if (body.stream) response.writeHead(200, {"content-type": "text/event-stream"});
    for await (const piece of generate(body, () => response.destroyed)) {
        if (typeof piece !== "string") { end = piece; continue; }
        all += piece;
        if (body.stream) say({...frame, object: isChat ? `${object}.chunk` : object, choices: [choice(piece, null, false)]});
    }
    const usage = {prompt_tokens: end.prompt, completion_tokens: end.completion, total_tokens: end.prompt + end.completion};
    if (!body.stream) return answer(response, 200, {...frame, object, choices: [choice(all, end.finish, true)], usage});
    const chunk = {...frame, object: isChat ? `${object}.chunk` : object};
    say({...chunk, choices: [choice(isChat ? null : "", end.finish, false)]});
    if (body.stream_options?.include_usage) say({...chunk, choices: [], usage});
    response.end("data: [DONE]\n\n");
}

const server = createServer((request, response) => {
    const route = `${request.method} ${request.url}`;
    const isChat = route === "POST /v1/chat/completions";
    if (route === "GET /health") return answer(response, engine ? 200 : 503, {status: engine ? "ok" : "loading model"});
    if (route === "GET /v1/models") return answer(response, 200, {object: "list", data: [{id: "engine", object: "model"}]});
    if (!isChat && route !== "POST /v1/completions") return answer(response, 404, failure("no such path", "not_found"));
    if (!engine) return answer(response, 503, failure("Loading model", "unavailable_error"));
    complete(request, response, isChat).catch((error) => {
        console.error(error);
        if (response.headersSent) response.destroy(); else answer(response, 500, failure(String(error), "server_error"));
    });
});
server.on("error", (error) => { console.error(`cannot listen: ${error.message}`); process.exit(1); });
server.listen(Number(settings.port), "127.0.0.1");
console.log(`engine: loading ${settings.model}`);
loadEngine().then((loaded) => { engine = loaded; console.log("engine: ready"); },
    (error) => { console.error(`cannot load the model: ${error.message}`); process.exit(1); });
