// Measures llama.cpp through node-llama-cpp; same arguments and answer as peer_llama_cpp.py.
import {getLlama} from "node-llama-cpp";

const QUIET_MIN = 0.9, TRIES_PER_SAMPLE = 3;
const [path, prompt, generate, threads, samples] =
    process.argv.slice(2).map((value, index) => (index ? Number(value) : value));

const llama = await getLlama({gpu: false, build: "never", maxThreads: threads, logLevel: "error"});
const model = await llama.loadModel({modelPath: path, gpuLayers: 0});
const context = await model.createContext(
    {contextSize: Math.max(prompt, generate, 32) + 8, batchSize: 512, threads: {ideal: threads, min: threads}});
const sequence = context.getSequence();
const vocabulary = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
const ids = Array.from({length: Math.max(prompt, generate)}, (_, i) => (7919 * i + 13) % vocabulary);

const tests = {
    pp: [prompt, () => sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, prompt))],
    tg: [generate, async () => {
        let left = generate;
        for await (const _ of sequence.evaluate([ids[0]], {temperature: 0, yieldEogToken: true}))
            if (--left === 0)
                break;
    }],
};

const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? null;
const answer = [];
for (const [test, [tokens, work]] of Object.entries(tests)) {
    const speeds = [];
    for (let taken = 0; tokens && taken < samples * TRIES_PER_SAMPLE && speeds.length < samples; taken++) {
        await sequence.clearHistory();
        const cpu = process.cpuUsage(), start = process.hrtime.bigint();
        await work();
        const wall = Number(process.hrtime.bigint() - start) / 1e9;
        const used = process.cpuUsage(cpu);
        if ((used.user + used.system) / 1e6 / (wall * threads) >= QUIET_MIN)
            speeds.push(tokens / wall);
    }
    if (tokens)
        answer.push({test, tokens, tokens_per_s: median(speeds)});
}
console.log(JSON.stringify({peer: "llama.cpp", version: "node-llama-cpp", tests: answer}));
process.exit(0);
