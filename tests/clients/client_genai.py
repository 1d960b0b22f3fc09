"""The Google Gen AI SDK with its default settings: one answer; prints it."""

from google import genai

client = genai.Client()
answer = client.models.generate_content(model="gemini-test", contents="Where are the keys?")
print(answer.text)
print(answer.sdk_http_response)
assert answer.text.startswith("All keys stay home."), answer
