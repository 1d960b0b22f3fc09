"""The Anthropic SDK with its default settings: a message, whole and streamed; prints everything that came back."""

import anthropic

client = anthropic.Anthropic(max_retries=0, timeout=60)
request = {
    "model": "claude-test",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Where are the keys?"}],
}

raw = client.messages.with_raw_response.create(**request)
print(dict(raw.headers))
print(raw.parse().content[0].text)

with client.messages.stream(**request) as stream:
    pieces = list(stream.text_stream)
print(pieces)
assert len(pieces) >= 4, pieces
assert "".join(pieces).startswith("All keys stay home."), pieces
