"""One request with an SDK's default settings for retries: prints what came of it as one line of JSON."""

import json
import sys

provider = sys.argv[1]
messages = [{"role": "user", "content": "Where are the keys?"}]
try:
    if provider == "openai":
        import openai as sdk

        done = sdk.OpenAI(timeout=60).chat.completions.create(model="gpt-test", messages=messages)
        text = done.choices[0].message.content
    else:
        import anthropic as sdk

        done = sdk.Anthropic(timeout=60).messages.create(model="claude-test", max_tokens=9, messages=messages)
        text = done.content[0].text
    print(json.dumps({"text": text}))
except sdk.APIStatusError as error:
    print(json.dumps({"status": error.status_code, "name": type(error).__name__, "message": f"{error} {getattr(error, 'code', '')}"}))
