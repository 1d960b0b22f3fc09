"""urllib: one GET, one POST and one stream from URL; prints everything that came back, fields included."""

import sys
import urllib.request

url = sys.argv[1]
for request in (url + "/echo/fields", urllib.request.Request(url + "/echo/body", data=b"x" * 4096)):
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(answer.status, dict(answer.headers))
        print(answer.read().decode())
with urllib.request.urlopen(url + "/sse?n=20", timeout=60) as answer:
    lines = [line.decode().strip() for line in answer if line.strip()]
print(lines)
assert lines[-1] == "data: [DONE]" and len(lines) == 21, lines
