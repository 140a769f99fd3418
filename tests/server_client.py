"""Tries a server with the `openai` package: python3 tests/server_client.py http://127.0.0.1:8080"""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)

models = client.models.list().data
assert [model.id for model in models] == ["tales"], models
assert client.models.retrieve("tales").owned_by == "lightgpt"

asked = dict(model="tales", prompt="Once upon a time", max_tokens=20, temperature=0)
whole = client.completions.create(**asked)
assert whole.usage.completion_tokens == 20 and whole.choices[0].finish_reason == "length"
parts = list(client.completions.create(**asked, stream=True))
assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
assert parts[-1].choices[0].finish_reason == "length" and parts[-1].id == parts[0].id

scored = client.completions.create(**asked, logprobs=3)
assert "".join(scored.choices[0].logprobs.tokens).strip() == whole.choices[0].text.strip()
assert all(len(top) == 3 for top in scored.choices[0].logprobs.top_logprobs)

asked = dict(
    model="tales",
    messages=[{"role": "user", "content": "Tell me of a dog."}],
    max_completion_tokens=15,
    seed=7,
)
whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
assert whole.choices[0].message.role == "assistant" and whole.choices[0].message.content
assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
parts = list(stream)
text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
assert text == whole.choices[0].message.content
assert parts[-1].usage == whole.usage and not parts[-1].choices

# The client asks for base64 if it is not told otherwise.
near = client.embeddings.create(model="tales", input=["A cat.", "A dog."])
plain = client.embeddings.create(model="tales", input="A cat.", encoding_format="float")
assert len(near.data) == 2 and near.data[0].embedding == plain.data[0].embedding

try:
    client.completions.create(model="other", prompt="a")
    raise AssertionError("there is no such model")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
try:
    client.completions.create(model="tales", prompt="a b " * 5000)
    raise AssertionError("it is too long")
except openai.BadRequestError as error:
    assert error.code == "context_length_exceeded"

# Who stops listening is not served any more: the next one is.
stream = client.completions.create(model="tales", prompt="a", max_tokens=1000, n=50, stream=True)
next(iter(stream))
stream.close()
assert client.completions.create(model="tales", prompt="a", max_tokens=1).usage.completion_tokens == 1
print("all well")
