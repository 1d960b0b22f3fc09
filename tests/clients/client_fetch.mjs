// fetch: one GET, one POST and one stream from URL; prints everything that came back, fields included.

const url = (globalThis.process?.argv ?? globalThis.Deno.args).at(-1);
for (const options of [["/echo/fields"], ["/echo/body", { method: "POST", body: "x".repeat(4096) }]]) {
  const answer = await fetch(url + options[0], options[1]);
  console.log(answer.status, JSON.stringify(Object.fromEntries(answer.headers)));
  console.log(await answer.text());
  if (!answer.ok) throw new Error(`status ${answer.status}`);
}
const answer = await fetch(url + "/sse?n=20");
const lines = [];
const decoder = new TextDecoder();
let text = "";
for await (const piece of answer.body) text += decoder.decode(piece, { stream: true });
lines.push(...text.split("\n").filter((line) => line));
console.log(lines.join(" | "));
if (lines.at(-1) !== "data: [DONE]" || lines.length !== 21) throw new Error(`${lines.length} lines`);
