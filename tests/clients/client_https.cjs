// node:https: one GET and one POST at URL; prints everything that came back, fields included.

const https = require("node:https");
const url = process.argv[2];

function ask(path, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(url + path, { method: body ? "POST" : "GET" }, (answer) => {
      console.log(answer.statusCode, JSON.stringify(answer.headers));
      answer.on("data", (piece) => process.stdout.write(piece));
      answer.on("end", () => (answer.statusCode === 200 ? resolve() : reject(new Error(`${answer.statusCode}`))));
    });
    request.on("error", reject);
    request.end(body);
  });
}

ask("/echo/fields").then(() => ask("/echo/body", "x".repeat(4096)));
