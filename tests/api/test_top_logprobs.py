"""The likeliest tokens at each place, thresholds on a result, and the progress of a load."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_file, grounded_model, picture, png, tiny_file, tiny_model

from kosmos_edge import Box, Cancelled, Entity, InvalidRequest, Line, Model, Result, cli, load
from kosmos_edge.errors import ModelNotFound
from kosmos_edge.inference import tasks

ISOLATIONS = ["none"] + (["process"] if os.name == "posix" else [])


@pytest.fixture(scope="module", params=ISOLATIONS)
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with load(grounded_file(), threads=1, isolation=request.param) as found:
        yield found


def expected(result: Result, plan: tasks.Plan, count: int) -> list[list[tuple[int, float]]]:
    """From all logits, by teacher forcing."""
    data, vocab = grounded_model()._open.forced_logits(plan, result.token_ids)  # type: ignore[attr-defined]
    out = []
    for row in np.frombuffer(data, np.float32).reshape(-1, vocab).astype(np.float64):
        logprobs = row - row.max() - math.log(np.exp(row - row.max()).sum())
        out.append([(int(i), float(logprobs[i])) for i in np.argsort(-row, kind="stable")[:count]])
    return out


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.5, "seed": 3}, {"num_beams": 3}, {"grammar": False}], ids=str
)
def test_they_are_the_best_of_all_logits(model: Model, options: dict) -> None:
    result = model.ground(picture(1), max_tokens=24, top_logprobs=5, **options)
    assert result.top_logprobs is not None and result.logprobs is not None
    plan = tasks.plan_ground(model.model_info, picture(1), None, False)
    want = expected(result, plan, 5)
    assert len(result.top_logprobs) == len(result.token_ids) == len(want)
    for place, reference in zip(result.top_logprobs, want, strict=True):
        assert [token.token_id for token in place] == [number for number, _ in reference]
        assert [token.logprob for token in place] == pytest.approx([value for _, value in reference], abs=1e-4)
        assert [token.logprob for token in place] == sorted((token.logprob for token in place), reverse=True)
    for number, logprob, place in zip(result.token_ids, result.logprobs, result.top_logprobs, strict=True):
        assert {token.token_id: token.logprob for token in place}.get(number, logprob) == logprob  # the same bits


def test_the_answer_does_not_change(model: Model) -> None:
    """Drafts, batches and streams give what one token at a time gives."""
    plain = model.ground(picture(1), max_tokens=24)
    assert plain.top_logprobs is None and plain.logprobs is None
    asked = model.ground(picture(1), max_tokens=24, top_logprobs=3)
    assert (asked.text, asked.token_ids, asked.entities) == (plain.text, plain.token_ids, plain.entities)
    *_, done = model.ground(picture(1), max_tokens=24, top_logprobs=3, stream=True)
    assert done.result.top_logprobs == asked.top_logprobs  # type: ignore[union-attr]
    pictures = [picture(1), picture(2), picture(1)]
    first, _, third = model.batch(pictures, "ground", max_tokens=24, top_logprobs=3, batch_size=3)
    assert first.top_logprobs == third.top_logprobs == asked.top_logprobs  # type: ignore[union-attr]


def test_choices_and_locate(model: Model) -> None:
    result = model.ask(picture(1), "Who?", choices=["a dog", "the man"], top_logprobs=2)
    assert result.top_logprobs is not None and len(result.top_logprobs) == len(result.token_ids)
    located = model.locate(picture(1), "a dog", top_logprobs=2)
    assert located.top_logprobs is not None and located.logprobs is not None
    assert len(located.top_logprobs) == len(located.token_ids) and not any(map(math.isnan, located.logprobs))


def test_texts_of_tokens(model: Model) -> None:
    result = model.generate([picture(1), "An image of"], max_tokens=8, top_logprobs=20)
    tokenizer = grounded_model()._open.engine.tokenizer
    assert result.top_logprobs is not None
    for place in result.top_logprobs:
        assert len(place) == 20 and all(token.text == tokenizer.text(token.token_id) for token in place)
    record = json.loads(result.to_json())["top_logprobs"]
    assert record[0][0] == {
        "token_id": result.top_logprobs[0][0].token_id,
        "text": result.top_logprobs[0][0].text,
        "logprob": result.top_logprobs[0][0].logprob,
    }
    assert "top_logprobs" not in model.generate(["a"], max_tokens=1).to_dict()


@pytest.mark.parametrize("value", [-1, 21, 1.5, True, "3"])
def test_a_number_out_of_range(value: object) -> None:
    with pytest.raises(InvalidRequest, match=r"top_logprobs: expected an integer in 0\.\.20"):
        tiny_model().caption(picture(), top_logprobs=value)  # type: ignore[arg-type]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png())
    words = ["caption", str(tmp_path / "a.png"), "-n", "3", "--top-logprobs", "2", "-f", "json", "-m", str(tiny_file())]
    assert cli.run(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert [len(place) for place in record["top_logprobs"]] == [2] * len(record["token_ids"])
    for logprob, place in zip(record["logprobs"], record["top_logprobs"], strict=True):
        assert logprob <= place[0]["logprob"] and place[1]["logprob"] <= place[0]["logprob"]


# ---- thresholds


def test_above_is_min_score_afterwards(model: Model) -> None:
    whole = model.ground(picture(2), max_tokens=60)
    scores = sorted(entity.phrase_score or 0 for entity in whole.entities)
    assert len(scores) >= 2
    for limit in (0.0, scores[0], scores[len(scores) // 2], scores[-1], 1.0):
        asked = model.ground(picture(2), max_tokens=60, min_score=limit)
        assert whole.above(limit).entities == asked.entities
    assert whole.above(0.0) == whole and whole.above(0.0).image is whole.image
    assert len(whole.entities) == len(scores)  # unchanged


def test_above_for_places() -> None:
    def box(score: float | None) -> Box:
        return Box((0, 0, 1, 1), (0, 0, 9, 9), None, score)

    entities = [
        Entity("a", (0, 1), (box(0.9), box(0.2)), 0.5, 0.1),
        Entity("b", (2, 3), (box(0.1),), 0.1, 0.9),
        Entity("c", (4, 5), (box(None),), None, None),
    ]
    result = Result("a b c", entities, lines=[Line("a", box(0.9)), Line("b", box(0.1)), Line("c", box(None))])
    kept = result.above(place=0.5)
    assert [(entity.phrase, len(entity.boxes)) for entity in kept.entities] == [("a", 1), ("c", 1)]
    assert kept.lines is not None and [line.text for line in kept.lines] == ["a", "c"]
    assert [entity.phrase for entity in result.above(0.5).entities] == ["b", "c"]
    assert [entity.phrase for entity in result.above(0.5, place=0.5).entities] == ["c"]
    assert kept.text == "a b c" and len(result.lines or ()) == 3
    for wrong in (-0.1, 1.1, math.nan, "0.5", True):
        with pytest.raises(InvalidRequest, match="from 0 to 1"):
            result.above(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="place"):
            result.above(place=wrong)  # type: ignore[arg-type]


# ---- progress of a load


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("mode", ["mmap", "copy"])
def test_progress_of_a_load(isolation: str, mode: str) -> None:
    seen: list[tuple[int, int, str]] = []
    progress = lambda *step: seen.append(step)  # noqa: E731
    load(tiny_file(), threads=1, isolation=isolation, mode=mode, progress=progress).close()  # type: ignore[arg-type]
    done = [step[0] for step in seen]
    assert len(seen) > 10 and done == sorted(done) and done[0] == 0
    total = seen[0][1]
    assert done[-1] == total > 0 and {step[1:] for step in seen} == {(total, tiny_file().name)}
    assert done.count(total) == 1


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_an_error_of_the_callback_ends_the_load(isolation: str) -> None:
    class Enough(Exception):
        pass

    calls = 0

    def progress(done: int, total: int, name: str) -> None:
        nonlocal calls
        calls += 1
        raise Enough

    with pytest.raises(Enough):
        load(tiny_file(), threads=1, isolation=isolation, progress=progress)  # type: ignore[arg-type]
    assert calls == 1


def test_progress_and_other_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="progress: expected a function"):
        load(tiny_file(), progress=3)  # type: ignore[arg-type]
    with pytest.raises(ModelNotFound):
        load(tmp_path / "none.gguf", progress=lambda *_: None)

    class Set:
        def is_set(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        load(tiny_file(), progress=lambda *_: None, cancel=Set())
