"""The OpenAI SDK with its default settings: a completion, whole and streamed; prints everything that came back."""

import openai

client = openai.OpenAI(max_retries=0, timeout=60)
messages = [{"role": "user", "content": "Where are the keys?"}]

raw = client.chat.completions.with_raw_response.create(model="gpt-test", messages=messages)
print(dict(raw.headers))
print(raw.parse().choices[0].message.content)

stream = client.chat.completions.create(model="gpt-test", messages=messages, stream=True)
pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
print(pieces)
assert len(pieces) >= 6, pieces
assert "".join(pieces).startswith("All keys stay home."), pieces
