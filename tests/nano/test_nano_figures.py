"""The measures of the wider nano: an oracle gets everything right, a mute gets nothing; the runtime can be asked."""

import numpy as np
import pytest
from helpers.nano_toy import write_toy
from wide import archive, figures, language, spec


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return archive.World(write_toy(tmp_path_factory.mktemp("toy") / "world.zip"))


@pytest.fixture(scope="module")
def tested(world):
    return figures.cases(world, spec.Pools(world), "test", 24)


class Oracle:
    """Knows the scenes behind the pictures and answers by the book"""

    def __init__(self, tested, kinds):
        self.scene = {id(c.image): c.scene for c in tested}
        self.said = kinds  # {question: answer}

    def caption(self, image):
        objects = self.scene[id(image)].objects
        if not objects:
            return "nothing I know.", []
        return "…", [(language.phrase_of(o), o.box, 0.9, 0.8) for o in objects]

    def locate(self, image, phrase):
        return [o.box for o in self.scene[id(image)].objects if language.phrase_of(o) == phrase]

    def describe(self, image, box):
        return next(language.phrase_of(o) for o in self.scene[id(image)].objects if o.box == box) + "."

    def ask(self, image, question):
        return self.said[id(image), question]


class Mute:
    def caption(self, image):
        return "nothing I know.", []

    def locate(self, image, phrase):
        return []

    def describe(self, image, box):
        return ""

    def ask(self, image, question):
        return ""


def answers(tested, names):
    import random

    out = {}
    for kind in language.QUESTIONS:
        rng = random.Random(f"questions {kind}")
        for c in tested:
            made = language.ask(c.scene, rng, names, kind, style=False)
            if made:
                out[id(c.image), made[0][len("Question: ") : -len(" Answer:")]] = made[1].strip()
    return out


def test_an_oracle_is_right_everywhere(world, tested):
    names = language.known_names(world)
    nano = Oracle(tested, answers(tested, names))
    caption = figures.caption_figures([nano.caption(c.image) for c in tested], tested)
    assert caption["named"] == caption["iou"] == caption["hit"] == caption["count"] == caption["silent_on_nothing"] == 1
    referring = figures.referring_figures(nano, tested, names)
    assert referring["locate_hit"] == referring["locate_absent_refused"] == referring["describe"] == 1
    asked = figures.question_figures(nano, tested, names, {}, 50)
    assert asked and all(v["right"] == 1 for v in asked.values())
    assert all(0 < v["majority"] <= 1 for v in asked.values())


def test_saying_nothing_is_right_only_where_nothing_is(world, tested):
    names = language.known_names(world)
    caption = figures.caption_figures([Mute().caption(c.image) for c in tested], tested)
    assert caption["named"] == caption["iou"] == caption["count"] == 0
    assert caption["silent_on_nothing"] in (1, None)
    referring = figures.referring_figures(Mute(), tested, names)
    assert referring["locate_hit"] == 0 and referring["locate_absent_refused"] == 1
    claims = figures.false_claims(Mute(), world)
    assert claims["claims"] == 0 and claims["pictures"] == claims["photographs"] == 1


def test_baselines_are_below_one_and_the_grid_is_a_ceiling(world, tested):
    b = figures.baselines(tested, spec.Pools(world))
    assert 0.02 < b["constant_box_iou"] < 0.5 < 0.8 < b["grid_ceiling_iou"] < 1
    blind = figures.blind_answers(spec.Pools(world), language.known_names(world), 60)
    assert set(blind) <= set(language.QUESTIONS) and blind["exist"]


def test_each_box_and_each_object_is_matched_once():
    a, b = (spec.Object("noun", n, None, box, 0) for n, box in (("cat", (0, 0, 0.4, 0.4)), ("dog", (0.5, 0, 0.9, 0.4))))
    said = [("a cat", (0, 0, 0.4, 0.4), 0.9), ("a cow", (0.02, 0, 0.4, 0.4), 0.5), ("a dog", (0.5, 0, 0.9, 0.4), 0.8)]
    of_object, of_entity = figures.match(said, [a, b])
    assert [m[0] for m in of_object] == ["a cat", "a dog"]
    assert of_entity == [0, None, 1]


def test_each_score_is_held_against_what_it_is_of():
    """Of three boxes one is right, one has another name, one another place: the box's score knows of places alone."""
    cat, dog, owl = ((n, (x, 0, x + 0.2, 0.4)) for n, x in (("cat", 0), ("dog", 0.4), ("owl", 0.8)))
    objects = [spec.Object("noun", name, None, box, 0) for name, box in (cat, dog, owl)]
    said = [("a cat", cat[1], 0.9, 0.9), ("a fox", dog[1], 0.8, 0.1), ("an owl", (0.75, 0.6, 0.95, 1.0), 0.1, 0.2)]
    case = type("Case", (), {"objects": objects})
    found = figures.caption_figures([("…", said)], [case])
    assert found["place_auroc"] == found["name_auroc"] == 1
    swapped = [(phrase, box, words, place) for phrase, box, place, words in said]
    found = figures.caption_figures([("…", swapped)], [case])
    assert found["place_auroc"] == 0.5 and found["name_auroc"] == 1


def test_nouns_are_counted_by_name_and_by_the_package_of_their_cutout(world, tested):
    nano = Oracle(tested, {})
    said = [nano.caption(c.image) for c in tested]
    nouns = [o for c in tested for o in c.objects if o.kind == "noun"]
    by = figures.noun_figures(said, tested, world)
    assert set(by["noun"]) == {o.name for o in nouns} and list(by["package"]) == ["toy"]
    assert by["package"]["toy"] == {"n": len(nouns), "named": 1}
    name = nouns[0].name
    others = [(t, [e for e in entities if not e[0].endswith(name)]) for t, entities in said]
    by = figures.noun_figures(others, tested, world)
    assert {k for k, v in by["noun"].items() if v["named"] == 0} == {name}
    lines = figures.nouns_lines({"unseen": {"named_by": by}})
    assert lines[1] == f"Never named: {name}." and ", 1 in less than half" in lines[0]


def test_auroc():
    assert figures.auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert figures.auroc(np.array([0.1]), np.array([0.9])) == 0
    assert figures.auroc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5
    assert figures.auroc(np.array([]), np.array([0.5])) is None


def test_the_runtime_answers_and_a_table_is_printed(world, tested, tmp_path):
    kosmos_edge = pytest.importorskip("kosmos_edge")
    nano = figures.EngineAnswers("nano")
    assert kosmos_edge and nano.caption(tested[0].image)[0]
    result = figures.evaluate(nano, world, 3, per_kind=2)
    sheets = {k: result[k].pop("sheet") for k in figures.SETS}
    text = figures.table(result)
    assert "False claims on 1 photographs" in text and "box to phrase" in text
    lines = figures.markdown(result).splitlines()
    assert all(line.count("|") == 5 for line in lines[:-2]) and len(lines) == len(figures.rows(result)) + 4
    figures.contact_sheet(*sheets["unseen"], str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").stat().st_size > 1000
