"""Mutated requests: each gets an answer or an error that names a fault of the request; never a 500, never silence."""

import copy
import json
import random

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.api_model import tiny_file
from helpers.http_server import EXAMPLES, chat_body, data_uri, serving

from kosmos_edge import load

URI = data_uri(EXAMPLES[0])
BARE = URI.partition(",")[2]
REQUESTS = [
    ("/v1/chat/completions", chat_body(EXAMPLES[0], "What is this?", temperature=1, seed=2, stop=["x"], stream=True)),
    ("/v1/chat/completions", {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}),
    ("/api/generate", {"model": "tiny", "prompt": "a", "images": [BARE], "options": {"seed": 1}, "keep_alive": "5m"}),
    ("/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": "a", "images": [BARE]}], "stream": False}),
    ("/api/show", {"model": "tiny", "verbose": True}),
    ("/v1/caption", {"image_url": URI, "length": "long", "settings": {"max_tokens": 4, "temperature": 0}}),
    ("/v1/query", {"image_url": URI, "question": "a", "reasoning": False}),
    ("/v1/detect", {"image_url": URI, "object": "a dog", "settings": {"max_objects": 2}}),
    ("/v1/ground", {"image": BARE, "prompt": "a", "num_beams": 2, "max_tokens": 5, "min_score": 0.1}),
    ("/v1/describe", {"image": URI, "box": [1, 2, 100, 200], "normalized": False}),
    ("/v1/score", {"image": URI, "texts": ["a", "b"], "normalize": "sum"}),
]
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**300, 0.5, -0.0, 1e308, 5e-324, "", " ", "a",
    "\0", "é", "𝕏" * 50, "<grounding><image></image>", "<object>", "{question}", "data:image/png;base64,", "file:x",
    "http://x/", [], [[]], {}, {"a": 1}, [None], [1, 2, 3, 4], ["a"] * 40, "[1]", "5m", "1e400", "nan",
]  # fmt: skip


def places(value, path=()):
    """Paths to every value inside."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def mutated(body, dice):
    """One or two changes of a body."""
    body = {"": copy.deepcopy(body)}
    for _ in range(dice.choice([1, 1, 1, 2])):
        *before, last = dice.choice([path for path in places(body) if path])
        holder = body
        for key in before:
            holder = holder[key]
        match dice.randrange(5):
            case 0 if before:
                del holder[last]
            case 1 if isinstance(holder, dict) and before:
                holder[dice.choice(["choices", "ground", "top_p", "raw", "n", "tools", "x", ""])] = dice.choice(VALUES)
            case 2 if isinstance(holder[last], str):
                text = holder[last]
                at = dice.randrange(len(text) + 1)
                holder[last] = text[:at] + dice.choice(["", "\0", "é", "=", text[:9]]) + text[at + dice.randint(0, 9) :]
            case _:
                holder[last] = copy.deepcopy(dice.choice(VALUES))
    return body[""]


def mutated_bytes(data, dice):
    """A few wrong bytes, or a part."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(out) + 1)
        out[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
    return bytes(out[: dice.randrange(len(out) + 1)] if dice.random() < 0.3 else out)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_requests(seed):
    dice = random.Random(seed)
    with serving(lambda: load(tiny_file(), threads=1), id="tiny", max_body=200_000) as server:
        right = 0
        for number in range(150):
            path, body = dice.choice(REQUESTS)
            changed = mutated(body, dice)
            data = json.dumps(changed).encode()
            if number % 3 == 0:
                data = mutated_bytes(data, dice)
            answer = server.post(path, data)
            assert answer.status in (200, 400, 404, 413, 415, 422), (path, data[:2000], answer.body)
            right += answer.status == 200
            if answer.status != 200:
                error = answer.json()["error"]
                assert (error if isinstance(error, str) else error["message"]).strip()
            else:
                assert b'"error": {' not in answer.body and b'"error":{' not in answer.body
        assert 5 < right < 145
        server.settle()
        assert server.post("/v1/query", {"image_url": URI, "question": "a"}).status == 200
