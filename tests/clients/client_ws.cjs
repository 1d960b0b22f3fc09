// The ws package with a proxy agent, which it needs: a dialogue at URL; prints everything that came back.

const WebSocket = require("ws");
const { HttpsProxyAgent } = require("https-proxy-agent");

const socket = new WebSocket(process.argv[2], {
  agent: new HttpsProxyAgent(process.env.HTTPS_PROXY),
  headers: { Authorization: "Bearer " + process.env.ACME_API_KEY },
});
socket.on("upgrade", (answer) => console.log(JSON.stringify(answer.headers)));
socket.on("open", () => socket.send("first"));
socket.on("message", (data) => {
  console.log("heard", data.toString());
  if (data.toString() === "first") socket.send("second");
  else socket.close();
});
socket.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
