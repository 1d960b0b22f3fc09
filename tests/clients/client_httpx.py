"""httpx or httpx2, as it is told: one GET, one POST and one stream from URL; prints everything that came back."""

import importlib
import sys

url, name = sys.argv[1:3]
httpx = importlib.import_module(name)
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
