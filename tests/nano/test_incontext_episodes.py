"""Episodes of the variant that learns in context: what is held out, the ideal observer, how an evaluation counts."""

import json
import random
from itertools import product

import pytest
from helpers import nano_toy  # noqa: F401  # the recipe's folder is on the path from here on
from incontext import episodes, evaluate, pictures, plot, words
from incontext.pictures import index_by_kind


def drawn(condition="trained", count=60, **how):
    return [e for rule in episodes.RULES for e in episodes.series("t", count, rule=rule, condition=condition, **how)]


def test_words_are_different_and_split():
    assert len(set(words.WORDS)) == len(words.WORDS) == words.TRAINED + words.HELD_OUT
    assert not set(words.TRAINED_WORDS) & set(words.HELD_OUT_WORDS)


@pytest.mark.parametrize("classes", [2, 4])
def test_training_has_nothing_that_is_held_out(classes):
    pairs = set()
    for e in drawn(classes=classes):
        assert len(e.kinds) == len(e.classes) == episodes.MAX_SHOTS + 1 and len(set(e.words)) == classes
        assert max(e.words) < words.TRAINED
        for (shape, color), n in zip(e.kinds, e.classes, strict=True):
            assert shape not in episodes.HELD_OUT_SHAPES and color not in episodes.HELD_OUT_COLORS
            assert episodes.value_of(e.rule, (shape, color)) == e.values[n]
        pairs |= set(zip(e.values, e.words, strict=True))
    assert not any(episodes.is_held_out(*pair) for pair in pairs)


def test_each_condition_holds_out_what_it_says():
    for e in drawn("pairs"):
        assert all(episodes.is_held_out(*pair) for pair in zip(e.values, e.words, strict=True))
    for e in drawn("words"):
        assert min(e.words) >= words.TRAINED
    for e in drawn("values"):
        for shape, color in e.kinds:
            assert (shape in episodes.HELD_OUT_SHAPES) == (e.rule != "color")
            assert (color in episodes.HELD_OUT_COLORS) == (e.rule != "shape")


def test_episodes_are_a_function_of_their_seed():
    assert (
        drawn(count=4) == drawn(count=4) != [e for rule in episodes.RULES for e in episodes.series("u", 4, rule=rule)]
    )


def brute_force(episode, shapes, colors):
    """The ideal observer by counting every way in which an episode can come about"""
    n, total = len(episode.words), len(episode.kinds)
    found = [0.0] * n
    every = list(product(range(shapes), range(colors)))
    for rule in episodes.RULES:
        values = sorted({episodes.value_of(rule, kind) for kind in every})
        ways = [v for v in product(values, repeat=n) if len(set(v)) == n]
        for chosen in ways:
            members = [[kind for kind in every if episodes.value_of(rule, kind) == v] for v in chosen]
            for classes in product(range(n), repeat=total):
                if classes[:-1] != episode.classes[:-1]:
                    continue
                p = 1 / len(ways) / n**total
                for kind, label in zip(episode.kinds, classes, strict=True):
                    p *= (kind in members[label]) / len(members[label])
                found[classes[-1]] += p
    return [f / sum(found) for f in found] if sum(found) else [1 / n] * n


@pytest.mark.parametrize("classes", [2, 3])
def test_the_ideal_observer_counts_every_way(classes):
    rng = random.Random(5)
    shapes, colors, differ = 3, 3, 0
    for n in range(30):
        shots = n % (5 - classes)
        kinds = tuple((rng.randrange(shapes), rng.randrange(colors)) for _ in range(shots + 1))
        labels = tuple(rng.randrange(classes) for _ in kinds)
        e = episodes.Episode("shape", (0,) * classes, tuple(range(classes)), kinds, labels,
                             (shapes, colors, shapes * colors))  # fmt: skip
        assert episodes.ideal(e) == pytest.approx(brute_force(e, shapes, colors))
        differ += max(episodes.ideal(e)) > 1 / classes + 1e-6
    assert differ > 8


def test_without_shots_nothing_is_known_and_with_many_everything():
    for condition in episodes.CONDITIONS:
        whole = drawn(condition)
        assert all(episodes.ideal_share(episodes.last(e, 0)) == 1 / 2 for e in whole)
        assert sum(map(episodes.ideal_share, whole)) / len(whole) > 0.95


def known(kind):
    """A stand-in for pictures: the kind itself"""
    return {k: [10 * n, 10 * n + 1] for n, k in enumerate(kind)}


EVERY = list(product(range(12), range(10)))


def test_a_perfect_learner_gets_what_is_ideal():
    """The pictures that an answer is asked about are those of the episode, with its labels, in its order"""
    kinds = {n: kind for kind, two in known(EVERY).items() for n in two}

    def answer(shots, picture, labels):
        e = episodes.Episode("shape", (), tuple(labels), tuple(kinds[n] for n in [*(s for s, _ in shots), picture]),
                             (*(labels.index(word) for _, word in shots), 0), (9, 8, 72))  # fmt: skip
        chances = episodes.ideal(e)
        return labels[chances.index(max(chances))]

    whole = drawn(count=100)
    found = evaluate.curve(answer, whole, known(EVERY))
    assert [found[k]["n"] for k in evaluate.SHOTS] == [300] * 5
    assert found[0]["ideal"] == 0.5
    for k in evaluate.SHOTS:
        assert found[k]["value"] == pytest.approx(found[k]["ideal"], abs=0.08)
        assert found[k]["ci95"][0] <= found[k]["value"] <= found[k]["ci95"][1]
    assert found[8]["value"] > 0.97 and found[0]["value"] < 0.6
    mixed = evaluate.curve(answer, whole, known(EVERY), shuffle=True)
    assert abs(mixed[8]["value"] - 0.5) < 0.1


def test_answers_are_counted_one_by_one():
    whole = drawn(count=20)
    first = evaluate.curve(lambda shots, picture, labels: labels[0], whole, known(EVERY))
    expected = sum(e.classes[-1] == 0 for e in whole)
    assert [first[k]["right"] for k in evaluate.SHOTS] == [expected] * 5
    copied = evaluate.curve(lambda shots, picture, labels: shots[-1][1] if shots else "", whole, known(EVERY))
    assert [copied[k]["right"] for k in evaluate.SHOTS] == [0] + [
        sum(e.classes[-1] == e.classes[-2] for e in whole)
    ] * 4


def test_intervals_are_wilsons():
    assert evaluate.interval(8, 10) == pytest.approx([0.4902, 0.9433], abs=1e-4)  # a textbook's
    assert evaluate.interval(0, 10)[0] == 0 and evaluate.interval(10, 10)[1] == 1


def test_a_picture_is_shown_once_where_there_are_enough():
    e = drawn(count=1)[0]
    pictures = evaluate.choose(
        e, {kind: list(range(30 * n, 30 * n + 30)) for n, kind in enumerate(EVERY)}, random.Random(1)
    )
    assert len(set(pictures)) == len(pictures)


def test_figures_are_told_as_a_table_and_a_plot():
    found = list(evaluate.rows(lambda shots, picture, labels: labels[0], known(EVERY), 10))
    assert [(r["condition"], r["classes"]) for r in found[::3]] == [
        ("trained", 2), ("trained", 4), ("pairs", 2), ("pairs", 4), ("words", 2), ("words", 4), ("values", 2),
        ("shuffled", 2), ("shuffled", 4)]  # fmt: skip
    lines = evaluate.table(found).splitlines()
    assert len(lines) == 2 + len(found) and len({line.count("|") for line in lines}) == 1
    together = evaluate.pooled(found)
    pairs = [r["shots"] for r in found if r["condition"] == "pairs" and r["classes"] == 2]
    cell = next(r["shots"] for r in together if r["condition"] == "pairs" and r["classes"] == 2)[8]
    assert cell["n"] == 30 and cell["right"] == sum(part[8]["right"] for part in pairs)
    assert cell["ideal"] == pytest.approx(sum(part[8]["ideal"] for part in pairs) / 3)
    read_back = json.loads(json.dumps(together))
    assert plot.svg(read_back).count('stroke-width="2"') == 2 * 5
    assert dict(plot.lines_of(read_back)["pairs"])[8] == cell["right"] / 30


def test_pictures_are_gathered_until_every_kind_is_there(monkeypatch):
    several = [(n // 10 % 12, n % 10) for n in range(300)]
    monkeypatch.setattr(pictures, "singles", lambda seed: iter(several[seed:]))
    monkeypatch.setattr(pictures, "kind_of", lambda kind: kind)
    assert pictures.every_kind(0, 1, 5) == several[:120]
    assert pictures.every_kind(0, 2, 1) == several[:120]
    assert pictures.every_kind(10, 2, 2) == several[10:250]


def test_pictures_are_found_by_their_kind():
    assert index_by_kind([(1, 2), (3, 4), (1, 2)]) == {(1, 2): [0, 2], (3, 4): [1]}
