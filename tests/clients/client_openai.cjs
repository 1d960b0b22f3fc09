// The OpenAI SDK for JavaScript: a completion, whole and streamed; prints everything that came back. BASE, where it
// is given, is the path at Keyferry's base URL.

const { OpenAI } = require("openai");
const base = process.argv[2];

async function main() {
  const more = base ? { baseURL: process.env.KEYFERRY_BASE_URL + base } : {};
  const client = new OpenAI({ maxRetries: 0, ...more });
  const messages = [{ role: "user", content: "Where are the keys?" }];
  const whole = await client.chat.completions.create({ model: "gpt-test", messages }).withResponse();
  console.log(JSON.stringify(Object.fromEntries(whole.response.headers)));
  console.log(whole.data.choices[0].message.content);
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ model: "gpt-test", messages, stream: true })) {
    pieces.push(chunk.choices[0].delta.content ?? "");
  }
  console.log(pieces);
  if (!pieces.join("").startsWith("All keys stay home.")) throw new Error(pieces.join(""));
}

main();
