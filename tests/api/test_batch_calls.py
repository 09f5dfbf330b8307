"""Model.batch_calls: different calls in one batch give the answers that each gives alone, bit for bit."""

import struct
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import png, tiny_file

from kosmos_edge import InvalidRequest, Model, Result, load


@pytest.fixture(scope="module")
def nano() -> Model:
    return load("nano", threads=1)


def essence(result: Any) -> Any:
    assert isinstance(result, Result)
    out = result.to_dict()
    del out["timings"], out["logprobs"]
    return out, struct.pack(f"{len(result.logprobs or [])}f", *(result.logprobs or []))


def calls(model: Model, shown: Any) -> list[tuple[str, dict[str, Any]]]:
    encoded = model.encode(png(2))
    return [
        ("ask", {"image": shown, "question": "what is this?", "logprobs": True}),
        ("generate", {"segments": [encoded, "A red", png(4), "An image of"], "max_tokens": 7, "logprobs": True}),
        ("locate", {"image": png(3), "phrase": "a red circle"}),
        ("caption", {"image": encoded, "num_beams": 3, "max_tokens": 9}),
        (
            "ask",
            {"image": shown, "question": "which?", "choices": ["a red circle", "blue"], "template": "Q {question}"},
        ),
        ("generate", {"segments": ["Text alone"], "max_tokens": 5, "stop": ["."]}),
        ("describe", {"image": shown, "box": (5, 5, 25, 55), "max_tokens": 6}),
        ("generate", {"segments": [encoded, "<grounding>An image of"], "raw": True, "max_tokens": 20}),
    ]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_calls_give_the_answers_of_one_at_a_time(nano: Model, size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    listed = calls(nano, path)
    alone = [essence(getattr(nano, verb)(**arguments)) for verb, arguments in listed]
    assert [essence(result) for result in nano.batch_calls(listed, batch_size=size)] == alone
    assert [result.source for result in nano.batch_calls(listed[:1])] == [str(path)]


def test_a_broken_image_ends_only_its_call(nano: Model, tmp_path: Path) -> None:
    listed = [
        ("ask", {"image": png(1), "question": "what?", "max_tokens": 3}),
        ("generate", {"segments": [png(1), tmp_path / "no.png", "An image of"], "max_tokens": 3}),
        ("caption", {"image": b"no image", "max_tokens": 3}),
        ("caption", {"image": png(2), "max_tokens": 3}),
    ]
    found = list(nano.batch_calls(listed, batch_size=4))
    assert [result.ok for result in found] == [True, False, False, True]
    assert found[1].source == str(tmp_path / "no.png") and "no.png" in str(found[1].error)


def test_wrong_calls_are_refused_at_their_turn(nano: Model) -> None:
    good = ("caption", {"image": png(1), "max_tokens": 2})
    for verb, arguments, message in (
        ("score", {"image": None, "texts": ["a"]}, "verb: expected one of caption, .*, generate, got 'score'"),
        ("ask", {"image": png(1)}, "ask: missing a required argument: 'question'"),
        ("caption", {"image": png(1), "beams": 2}, "unknown option beams"),
        ("generate", {"segments": ["a"], "stream": True}, "a batch returns complete results"),
        ("generate", {"segments": ["a"], "template": "x"}, "template"),
    ):
        made = nano.batch_calls([good, (verb, arguments)])
        assert next(made).ok
        with pytest.raises(InvalidRequest, match=message):
            next(made)
    with pytest.raises(InvalidRequest, match="batch_size"):
        nano.batch_calls([good], batch_size=0)


def test_calls_in_a_worker_process() -> None:
    with load(tiny_file(), threads=1) as here, load(tiny_file(), threads=1, isolation="process") as there:
        listed = [
            ("ask", {"image": png(1), "question": "what?", "max_tokens": 4, "logprobs": True}),
            ("caption", {"image": b"no image"}),
            ("generate", {"segments": ["Text alone"], "max_tokens": 4}),
        ]
        ours, theirs = list(here.batch_calls(listed)), list(there.batch_calls(listed))
        assert [r.ok for r in theirs] == [r.ok for r in ours] == [True, False, True]
        assert [essence(theirs[i]) for i in (0, 2)] == [essence(ours[i]) for i in (0, 2)]
