"""aiohttp with trust_env: one GET, one POST and one stream from URL; prints everything that came back."""

import asyncio
import sys

import aiohttp

url = sys.argv[1]


async def main():
    async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:
        for call in (session.get(url + "/echo/fields"), session.post(url + "/echo/body", data=b"x" * 4096)):
            async with call as answer:
                print(answer.status, dict(answer.headers))
                print(await answer.text())
        async with session.get(url + "/sse?n=20") as answer:
            lines = [line.decode().strip() async for line in answer.content if line.strip()]
    print(lines)
    assert lines[-1] == "data: [DONE]" and len(lines) == 21, lines


asyncio.run(main())
