"""requests: one GET and one POST to URL; prints everything that came back, fields included."""

import sys

import requests

url = sys.argv[1]
for answer in (requests.get(url + "/echo/fields", timeout=60), requests.post(url + "/echo/body", data=b"x" * 4096, timeout=60)):
    print(answer.status_code, dict(answer.headers))
    print(answer.text)
    answer.raise_for_status()
with requests.get(url + "/sse?n=20", stream=True, timeout=60) as answer:
    answer.raise_for_status()
    lines = [line.decode() for line in answer.iter_lines() if line]
print(lines)
assert lines[-1] == "data: [DONE]" and len(lines) == 21, lines
