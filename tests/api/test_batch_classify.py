"""classify over many images: each gets what it gets alone, in this process and in a worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import picture, tiny_file

from kosmos_edge import InvalidRequest, Model, Ranking, Result, load

LABELS = ["a dog", "the man", "blue"]
WAYS: list[dict[str, Any]] = [
    {"prompt": "It is"},
    {"question": "Who?", "normalize": "mean"},
    {"category": "thing", "descriptions": {label: f"{label} it is" for label in LABELS}},
    {"prompt": "It is", "examples": [(picture(7), "a dog")]},
    {"prompt": "It is", "by": "choices", "num_beams": 2},
    {"question": "Who?", "by": "free", "max_tokens": 5, "examples": [(picture(7), "a dog")]},
]


@pytest.fixture(scope="module", params=[None, "process"], ids=["here", "worker"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with load(tiny_file(), threads=1, isolation=request.param or "none") as made:
        yield made


def found(answer: Any) -> Any:
    assert isinstance(answer, Ranking | Result) and answer.error is None
    return answer.ranking if isinstance(answer, Ranking) else (answer.text, answer.token_ids)


@pytest.mark.parametrize("way", WAYS, ids=[" ".join(way) for way in WAYS])
def test_a_batch_gives_what_single_calls_give(model: Model, way: dict[str, Any]) -> None:
    images = [picture(n) for n in range(5)]
    each = [found(answer) for answer in model.batch(images, "classify", labels=LABELS, batch_size=3, **way)]
    assert each == [found(model.classify(image, LABELS, **way)) for image in images]
    assert len({str(one) for one in each}) > 1 or way.get("by")  # images make a difference


def test_a_failed_image_is_a_ranking_with_its_error(model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    first, second = model.batch([broken, picture(1)], "classify", labels=LABELS, prompt="It is")
    assert isinstance(first, Ranking) and first.error is not None and first.source == str(broken)
    assert isinstance(second, Ranking) and second.error is None
    (free,) = model.batch([broken], "classify", labels=LABELS, prompt="It is", by="free")
    assert isinstance(free, Result) and free.error is not None


def test_wrong_arguments_are_raised_at_once(model: Model) -> None:
    for arguments, message in (
        ({"labels": []}, "labels"),
        ({"labels": LABELS, "by": "x"}, "by: expected one of"),
        ({"labels": LABELS, "max_tokens": 3}, "max_tokens: expected with by="),
        ({"labels": LABELS, "prompt": "a", "question": "b"}, "expected one of them"),
        ({}, "classify: missing a required argument: 'labels'"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            model.batch([picture(1)], "classify", **arguments)
