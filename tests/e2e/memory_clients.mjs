// Conversations and responses with OpenAI's own package for Node: memory_clients.mjs URL
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const OpenAI = createRequire(process.env.PHAROS_NODE + "/x.js")("openai");
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });

async function collect(pages) {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
}

async function missing(promise) {
  await assert.rejects(promise, (error) => error.status === 404);
}

const first = await client.responses.create({ model: "m", input: "hello from node" });
assert.ok(first.output_text && first.store === true);
assert.equal((await client.responses.retrieve(first.id)).id, first.id);
const second = await client.responses.create({ model: "m", input: "more", previous_response_id: first.id });
assert.equal(second.previous_response_id, first.id);
const input = await collect(client.responses.inputItems.list(second.id));
assert.deepEqual(input.map((item) => item.content[0].text), ["more"]);
const stream = await client.responses.create({ model: "m", input: "streamed", previous_response_id: second.id, stream: true });
let last;
for await (const event of stream) last = event;
assert.equal(last.type, "response.completed");
assert.equal(last.response.store, true);
assert.equal((await client.responses.retrieve(last.response.id)).output[0].content[0].text, last.response.output[0].content[0].text);
const refer = (id) => ({ type: "item_reference", id });
const again = await client.responses.create({ model: "m", input: [refer(input[0].id), refer(second.output[0].id), { role: "user", content: "and now?" }] });
const kept = await collect(client.responses.inputItems.list(again.id, { order: "asc", limit: 2, include: ["message.input_image.image_url"] }));
assert.deepEqual(kept.map((item) => item.content[0].text), ["more", second.output_text, "and now?"]);
await missing(client.responses.create({ model: "m", input: [refer("msg_nothing")] }));
await client.responses.delete(second.id);
await missing(client.responses.retrieve(second.id));

const made = await client.conversations.create({ metadata: { topic: "demo" } });
assert.deepEqual((await client.conversations.retrieve(made.id)).metadata, { topic: "demo" });
assert.deepEqual((await client.conversations.update(made.id, { metadata: { topic: "x" } })).metadata, { topic: "x" });
const items = Array.from({ length: 5 }, (_, n) => ({ type: "message", role: "user", content: `item ${n}` }));
const added = await client.conversations.items.create(made.id, { items });
assert.equal(added.data.length, 5);
const listed = await collect(client.conversations.items.list(made.id, { order: "asc", limit: 2 }));
assert.deepEqual(listed.map((item) => item.content[0].text), items.map((item) => item.content));
const backwards = await collect(client.conversations.items.list(made.id, { after: added.data[3].id, limit: 2, include: ["reasoning.encrypted_content"] }));
assert.deepEqual(backwards.map((item) => item.id), added.data.slice(0, 3).reverse().map((item) => item.id));
const one = await client.conversations.items.retrieve(added.data[1].id, { conversation_id: made.id });
assert.equal(one.content[0].text, "item 1");
assert.equal((await client.conversations.items.delete(one.id, { conversation_id: made.id })).id, made.id);
const reply = await client.responses.create({ model: "m", input: "what now", conversation: made.id });
assert.equal(reply.conversation.id, made.id);
const newest = (await collect(client.conversations.items.list(made.id)))[0];
assert.equal(newest.id, reply.output[0].id);
const gone = await client.conversations.delete(made.id);
assert.ok(gone.deleted);
await missing(client.conversations.retrieve(made.id));
