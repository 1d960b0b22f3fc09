// The WebSocket of the platform: a dialogue at URL; prints everything that came back.

const socket = new WebSocket((globalThis.process?.argv ?? globalThis.Deno.args).at(-1));
await new Promise((resolve, reject) => {
  socket.onopen = () => socket.send("first");
  socket.onerror = (event) => reject(new Error(event.message ?? "no connection"));
  socket.onmessage = (event) => {
    console.log("heard", event.data);
    if (event.data === "first") socket.send("second");
    else socket.close();
  };
  socket.onclose = () => resolve();
});
