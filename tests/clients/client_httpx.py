"""httpx: one GET, one POST and one stream from URL; prints everything that came back, fields included."""

import sys

import httpx

url = sys.argv[1]
with httpx.Client(timeout=60) as client:
    for answer in (client.get(url + "/echo/fields"), client.post(url + "/echo/body", content=b"x" * 4096)):
        print(answer.status_code, dict(answer.headers))
        print(answer.text)
        answer.raise_for_status()
    with client.stream("GET", url + "/sse?n=20") as answer:
        answer.raise_for_status()
        lines = [line for line in answer.iter_lines() if line]
print(lines)
assert lines[-1] == "data: [DONE]" and len(lines) == 21, lines
