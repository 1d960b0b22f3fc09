// The Anthropic SDK for JavaScript: a message, whole and streamed; prints everything that came back.

const { Anthropic } = require("@anthropic-ai/sdk");

async function main() {
  const client = new Anthropic({ maxRetries: 0 });
  const ask = { model: "claude-test", max_tokens: 64, messages: [{ role: "user", content: "Where are the keys?" }] };
  const whole = await client.messages.create(ask).withResponse();
  console.log(JSON.stringify(Object.fromEntries(whole.response.headers)));
  console.log(JSON.stringify(whole.data.content));
  const pieces = [];
  for await (const event of await client.messages.create({ ...ask, stream: true })) {
    if (event.type === "content_block_delta") pieces.push(event.delta.text);
  }
  console.log(pieces);
  if (!pieces.join("").startsWith("All keys stay home.")) throw new Error(pieces.join(""));
}

main();
