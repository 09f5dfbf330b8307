"""kosmos-edge pica, with a scripted endpoint over real HTTP."""

import json
import os
from pathlib import Path

import pytest
from helpers.api_model import png, tiny_file, tiny_model

pytest.importorskip("openai", reason="the extra `agent` is not installed")
pytest.importorskip("numpy", reason="the extra `index` is not installed")

from helpers.agent_endpoint import Scripted, say, scripted

from kosmos_edge import cli
from kosmos_edge.apps.index import PictureIndex
from kosmos_edge.apps.pica import Shot, question_prompt

QUESTION = "What is it?"


def completion(*tokens: tuple[str, float]) -> Scripted:
    texts, values = [token for token, _ in tokens], [value for _, value in tokens]
    text = "".join(texts).partition("\n")[0]
    return Scripted({"choices": [{"text": text, "logprobs": {"tokens": texts, "token_logprobs": values}}]})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")] + ["OPENAI_API_KEY"]:
        monkeypatch.delenv(name, raising=False)
    photos = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(photos):
        path.write_bytes(png(number))
    file, index = tmp_path / "e.jsonl", tmp_path / "i"
    records = [{"question": f"Who {n}?", "answer": "x", "image": f"{n}.png"} for n in range(2)]
    file.write_text("\n".join(map(json.dumps, records)))
    with PictureIndex(index, tiny_model()) as built:
        built.update(photos)
    captions = [tiny_model().caption(path).text for path in photos]
    words = ["pica", str(photos[0]), QUESTION, "--no-tags", "-m", str(tiny_file()), "-t", "1", "-q"]
    more = ["--examples", str(file), "--index", str(index), "--in-context", "1", "--ensemble", "2"]
    assert cli.run([*words, *more, "--show-prompt", "-f", "json"]) == 0
    prompts = json.loads(capsys.readouterr().out)["prompts"]
    shots = [Shot(captions[n], f"Who {n}?", "x") for n in range(2)]
    assert prompts == [question_prompt([shot], captions[0], QUESTION) for shot in shots]
    with scripted([completion((" a", -1.0)), completion((" b", -0.5))]) as endpoint:
        assert cli.run([*words, *more, "--llm", endpoint.url, "--llm-model", "m"]) == 0
        assert capsys.readouterr().out == "b\n"
    assert [got.body["prompt"] for got in endpoint.got] == prompts
    with scripted([say("a dog")]) as endpoint:
        assert cli.run([*words, "--llm", endpoint.url, "--llm-model", "m", "--llm-chat"]) == 0
        assert endpoint.messages()[0]["content"] == question_prompt([], captions[0], QUESTION)
    assert capsys.readouterr().out == "a dog\n"
    with scripted([completion(("\n", -1.0))]) as endpoint:
        assert cli.run([*words, "--llm", endpoint.url, "--llm-model", "m"]) == 1
    assert cli.run(words) == 2 and "expected --llm and --llm-model, or --show-prompt" in capsys.readouterr().err
    assert cli.run([*words, "--show-prompt", "--index", str(index)]) == 2
