// axios, the package that it is told: one GET and one POST at URL; prints everything that came back.

const [url, name] = process.argv.slice(2);
const axios = require(name);

async function main() {
  for (const ask of [() => axios.get(url + "/echo/fields"), () => axios.post(url + "/echo/body", "x".repeat(4096))]) {
    const answer = await ask();
    console.log(answer.status, JSON.stringify(answer.headers));
    console.log(JSON.stringify(answer.data));
  }
}

main();
