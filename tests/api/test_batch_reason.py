"""reason over many images: each gets what it gets alone, in this process and in a worker; folders keep its answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import picture, tiny_file

from kosmos_edge import Cancelled, CancelToken, InvalidRequest, Model, Reasoned, load
from kosmos_edge.folders.stored import pack, unpack

WAYS: list[dict[str, Any]] = [
    {"rationale_tokens": 5, "max_tokens": 4},
    {"rationale_tokens": 5, "choices": ["a dog", "the man"]},
    {"rationale_prompt": "It is", "rationale_tokens": 3, "examples": [(picture(7), "Who?", "a man", "blue")]},
]


@pytest.fixture(scope="module", params=["none", "process"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with load(tiny_file(), threads=1, isolation=request.param) as made:
        yield made


def found(answer: Any) -> Any:
    assert isinstance(answer, Reasoned) and answer.error is None
    return answer.rationale, answer.text, answer.token_ids, answer.scores


@pytest.mark.parametrize("way", WAYS, ids=[" ".join(way) for way in WAYS])
def test_a_batch_gives_what_single_calls_give(model: Model, way: dict[str, Any]) -> None:
    images = [picture(n) for n in range(3)]
    each = list(model.batch(images, "reason", question="which?", batch_size=2, **way))
    assert [found(answer) for answer in each] == [found(model.reason(image, "which?", **way)) for image in images]
    for answer in each:
        again = unpack(pack(answer))
        assert isinstance(again, Reasoned) and found(again) == found(answer)


def test_a_failed_image_does_not_end_the_batch(model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    asked = {"question": "which?", "rationale_tokens": 3, "max_tokens": 3}
    first, second = model.batch([broken, picture(1)], "reason", **asked)
    assert first.error is not None and first.source == str(broken) and second.error is None
    with pytest.raises(type(first.error)):
        list(model.batch([broken], "reason", on_error="raise", **asked))


def test_wrong_arguments_are_raised_at_once(model: Model) -> None:
    for arguments, message in (
        ({}, "reason: missing a required argument: 'question'"),
        ({"question": ""}, "question"),
        ({"question": "a", "rationale_tokens": 0}, "rationale_tokens"),
        ({"question": "a", "max_tokens": 0}, "max_tokens"),
        ({"question": "a", "choices": ["b", "c"], "stop": ["d"]}, "stop: a choice is its own end"),
        ({"question": "a", "choices": ["b", "c"], "normalize": "x"}, "normalize"),
        ({"question": "a", "examples": [(picture(0), "b")]}, "examples"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            model.batch([picture(0)], "reason", **arguments)


def test_it_can_be_cancelled(model: Model) -> None:
    cancel = CancelToken()
    answers = iter(
        model.batch([picture(0), picture(1)], "reason", question="which?", rationale_tokens=3, cancel=cancel)
    )
    next(answers)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(answers)
