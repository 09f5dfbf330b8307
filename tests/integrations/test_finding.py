"""Finder: boxes of labels, as the annotation tools get them."""

from pathlib import Path

import pytest

from kosmos_edge import InvalidRequest, Model, load
from kosmos_edge.integrations.finding import Finder, Found

SCENE = Path(__file__).resolve().parents[2] / "examples" / "scene-00001.png"  # a shopping cart, a blue moon, a bulb


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


def test_labels_are_located_one_by_one(model: Model) -> None:
    prompts = {"a shopping cart": "cart", "a light bulb": "bulb"}
    found = Finder(prompts, model, min_score=0).find(SCENE)
    assert [one.label for one in found] == ["cart", "bulb"]
    for one, prompt in zip(found, prompts, strict=True):
        (entity,) = model.locate(SCENE, prompt).entities
        assert one.pixels == entity.boxes[0].pixels and one.score == entity.found_score
    assert Finder(prompts, model).find(model.encode(SCENE), min_score=0) == found


def test_boxes_with_lower_scores_are_left_out(model: Model) -> None:
    finder = Finder(["a shopping cart", "an elephant"], model, min_score=0)
    scores = {one.label: one.score or 0 for one in finder.find(SCENE)}
    assert scores["a shopping cart"] > scores.get("an elephant", 0)
    between = (scores["a shopping cart"] + scores.get("an elephant", 0)) / 2
    assert [one.label for one in finder.find(SCENE, between)] == ["a shopping cart"]
    assert finder.find(SCENE, 1.0) == []


def test_labels_are_found_in_a_caption(model: Model) -> None:
    result = model.caption(SCENE, ground=True)
    entity = result.entities[-1]
    label = entity.phrase.split(" ", 1)[1].upper()  # without its article
    finder = Finder([label, "an elephant"], model, how="ground", min_score=0)
    box = entity.boxes[0].pixels
    assert box is not None and finder.find(SCENE) == [Found(label, box, entity.phrase_score)]


def test_what_is_refused(model: Model) -> None:
    with pytest.raises(InvalidRequest, match="labels: expected at least one"):
        Finder([], model)
    with pytest.raises(InvalidRequest, match="how: expected 'locate' or 'ground', got 'guess'"):
        Finder(["a"], model, how="guess")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"min_score: expected a number in 0\.\.1, got 2"):
        Finder(["a"], model, min_score=2)
    with pytest.raises(InvalidRequest, match="has no boxes"):
        Finder(["a"], "nano-read", threads=1)
