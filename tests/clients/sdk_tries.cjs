// One request with an SDK's default settings for retries: prints what came of it as one line of JSON.

const [provider, packages] = process.argv.slice(2);
const load = require("node:module").createRequire(`${packages}/`);
const messages = [{ role: "user", content: "Where are the keys?" }];

async function ask() {
  if (provider === "openai") {
    const { OpenAI } = load("openai");
    const client = new OpenAI({ timeout: 60_000 });
    const done = await client.chat.completions.create({ model: "gpt-test", messages });
    return done.choices[0].message.content;
  }
  const { Anthropic } = load("@anthropic-ai/sdk");
  const client = new Anthropic({ timeout: 60_000 });
  const done = await client.messages.create({ model: "claude-test", max_tokens: 9, messages });
  return done.content[0].text;
}

ask().then(
  (text) => console.log(JSON.stringify({ text })),
  (error) => {
    if (error.status === undefined) throw error;
    console.log(JSON.stringify({ status: error.status, name: error.constructor.name, message: `${error.message} ${error.code}` }));
  },
);
