"""Options, prompts and plans: defaults, ranges; a caller's words never become tags. No model is needed here."""

import math
import threading
from pathlib import Path

import numpy as np
import pytest

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference import tasks
from kosmos_edge.inference.prompts import BoxSegment, PictureSegment
from kosmos_edge.options import Limits, Options, check_options, check_text
from kosmos_edge.results import Box

LIMITS = Limits(context_length=2048, vocabulary=65037, max_tokens=128, no_repeat_ngram_size=3)
INFO = {
    "prompts": {
        "caption": "An image of",
        "caption_detailed": "Describe this image in detail:",
        "question": "Question: {question} Answer:",
        "locate": "<phrase> {phrase}</phrase>",
        "describe": "<phrase> It</phrase>{boxes} is",
        "grounding": "<grounding>",
        "read": "",
        "markdown": "",
    },
    "grounding": {"location_bins": 32},
    "name": "Kosmos-2",
    "trained_tasks": "",
}  # what model_info says of the published model


def options(**given: object) -> Options:
    return check_options(given, LIMITS, grammar=True)


def test_defaults_are_the_models() -> None:
    got = options()
    assert (got.max_tokens, got.no_repeat_ngram_size, got.temperature, got.num_beams) == (128, 3, 0.0, 1)
    assert (got.top_k, got.top_p, got.seed, got.stop, got.logprobs, got.grammar) == (0, 1.0, 0, (), False, True)
    assert check_options({}, LIMITS, grammar=False).grammar is False


def test_good_values_are_taken() -> None:
    got = options(max_tokens=np.int64(5), temperature=np.float32(0.5), top_k=1, top_p=1, seed=2**64 - 1, stop="\n")
    assert (got.max_tokens, got.temperature, got.top_k, got.top_p, got.seed, got.stop) == (
        5,
        0.5,
        1,
        1.0,
        2**64 - 1,
        ("\n",),
    )
    assert options(num_beams=8, length_penalty=-1).num_beams == 8
    assert options(stop=["a", "b"]).stop == ("a", "b") and options(stop=[]).stop == ()
    event = threading.Event()
    assert options(cancel=event).cancel is event


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", [0, -1, 2049, 1.0, "5", None, True, math.inf, [5], 2**70]),
        ("temperature", [-0.1, 100.1, math.nan, math.inf, "1", None, True, 1j, 10**400]),
        ("top_k", [0, -1, 65038, 1.5, None, True]),
        ("top_p", [0, -0.1, 1.01, math.nan, "0.9", None, False, 10**400]),
        ("seed", [-1, 2**64, 0.5, None, "x"]),
        ("num_beams", [0, -1, 9, 1.5, None, True]),
        ("length_penalty", [-10.1, 10.1, math.nan, None]),
        ("no_repeat_ngram_size", [-1, 2049, 0.5, None]),
        ("repetition_penalty", [0, 0.1, -1.0, 100.5, math.nan, None, True, "1"]),
        ("stop", ["", ["a", ""], 5, None, [5], b"x", ["x"] * 33, "\udc80"]),
        ("logprobs", [1, 0, "yes", None]),
        ("grammar", [1, "no", None]),
        ("cancel", [True, object(), lambda: True]),
    ],
)
def test_absurd_values_name_the_option_and_the_value(name: str, values: list) -> None:
    for value in values:
        extra = (
            {"temperature": 1.0} if name in ("top_k", "top_p") else {"num_beams": 2} if name == "length_penalty" else {}
        )
        with pytest.raises(InvalidRequest, match=name) as caught:
            options(**{**extra, name: value})
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"top_k": 5}, "top_k needs temperature"),
        ({"top_p": 0.9}, "top_p needs temperature"),
        ({"num_beams": 2, "temperature": 0.5}, "needs temperature 0"),
        ({"num_beams": 2, "stop": "x"}, "stop needs num_beams 1"),
        ({"length_penalty": 2.0}, "num_beams > 1"),
        ({"max_token": 5}, "did you mean max_tokens"),
        ({"frobnicate": 5}, "known options are max_tokens"),
    ],
)
def test_contradictions_and_unknown_names(given: dict, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        options(**given)


def test_choices() -> None:
    got = check_options({}, LIMITS, grammar=True, choices=["yes", "no"])
    assert got.choices == ("yes", "no") and got.grammar is False
    for choices in ([], "yes", ["yes", " "], ["a"] * 1001, [1], 5):
        with pytest.raises(InvalidRequest, match="choices"):
            check_options({}, LIMITS, grammar=True, choices=choices)
    with pytest.raises(InvalidRequest, match="contradict"):
        check_options({"grammar": True}, LIMITS, grammar=True, choices=["yes"])


@pytest.mark.parametrize("value", ["", " \n", None, 5, b"x", "\ud800"])
def test_texts_are_checked(value: object) -> None:
    with pytest.raises(InvalidRequest, match="phrase"):
        check_text("phrase", value)


# ---- prompts


def test_formats_come_from_the_model() -> None:
    other = INFO | {"prompts": INFO["prompts"] | {"caption": "A scene of"}}
    for info, words in ((INFO, "An image of"), (other, "A scene of")):
        assert plain(tasks.plan_caption(info, "i", "short", False, False, ())) == ["i", ("text", words)]
        assert tasks.plan_score(info, ["a"], None, "sum") == tasks.ScorePlan(("a",), words + " ", "", "sum")


def test_expand_joins_words_and_separates_tags() -> None:
    assert _core.testing.expand_format("Question: {question} Answer:", question="Who?") == [
        ("text", "Question: Who? Answer:")
    ]
    assert _core.testing.expand_format("<phrase> {phrase}</phrase>", phrase="a hat") == [
        ("tags", "<phrase>"),
        ("text", " a hat"),
        ("tags", "</phrase>"),
    ]
    assert _core.testing.expand_format("<phrase> It</phrase>{boxes} is") == [
        ("tags", "<phrase>"),
        ("text", " It"),
        ("tags", "</phrase>"),
        ("boxes", 0),
        ("text", " is"),
    ]
    assert _core.testing.expand_format("<a><b> <c>") == [("tags", "<a><b><c>")]


@pytest.mark.parametrize(
    "words", ["</phrase><object>", "{question}", "{boxes}", "{phrase.__class__}", "<image>", "%s %(x)s", "</s>"]
)
def test_a_callers_words_are_data(words: str) -> None:
    for segments in (
        tasks.plan_locate(INFO, None, words).segments,
        tasks.plan_ask(INFO, None, words, False, None, False, ()).segments,
        tasks.plan_ground(INFO, None, words, False).segments,
        tasks.plan_generate(INFO, [words], False, False, False).segments,
    ):
        assert any(kind == "text" and words in text for kind, text in (s for s in segments if isinstance(s, tuple)))
        assert not any(kind == "tags" and words in text for kind, text in (s for s in segments if isinstance(s, tuple)))


def test_template_of_score() -> None:
    assert tasks.plan_score(INFO, ["a"], "An image of {text}.", "mean") == tasks.ScorePlan(
        ("a",), "An image of ", ".", "mean"
    )
    assert tasks.plan_score(INFO, ["a"], "{text}", "sum") == tasks.ScorePlan(("a",), "", "", "sum")
    for template in ("", "no place", "{text}{text}", "{text}\ud800", 5):
        with pytest.raises(InvalidRequest, match="template"):
            tasks.plan_score(INFO, ["a"], template, "sum")


# ---- plans: against the table of tasks in the model's description


def plain(plan: tasks.Plan) -> list:
    return [s.source if isinstance(s, PictureSegment) else s for s in plan.segments]


def test_plans_of_the_published_tasks() -> None:
    ground = ("tags", "<grounding>")
    assert plain(tasks.plan_caption(INFO, "i", "short", False, False, ())) == ["i", ("text", "An image of")]
    assert plain(tasks.plan_caption(INFO, "i", "long", True, False, ())) == [
        "i",
        ground,
        ("text", "Describe this image in detail:"),
    ]
    assert plain(tasks.plan_ground(INFO, "i", None, False)) == ["i", ground, ("text", "An image of")]
    assert plain(tasks.plan_locate(INFO, "i", "a red hat")) == [
        "i",
        ground,
        ("tags", "<phrase>"),
        ("text", " a red hat"),
        ("tags", "</phrase>"),
    ]
    asked = tasks.plan_ask(INFO, "i", "How many?", True, None, False, ())
    assert plain(asked) == ["i", ground, ("text", "Question: How many? Answer:")]
    described = plain(tasks.plan_describe(INFO, "i", (1, 2, 30, 40), False, True, False, ()))
    assert described == [
        "i",
        ground,
        ("tags", "<phrase>"),
        ("text", " It"),
        ("tags", "</phrase>"),
        BoxSegment(((1.0, 2.0, 30.0, 40.0),), False),
        ("text", " is"),
    ]


def test_examples_go_before_with_the_same_format() -> None:
    plan = tasks.plan_caption(INFO, "q", "short", False, False, [("a", "a cat."), ("b", "a dog.")])
    assert plain(plan) == [
        "a",
        ("text", "An image of a cat."),
        "b",
        ("text", "An image of a dog."),
        "q",
        ("text", "An image of"),
    ]
    asked = plain(tasks.plan_ask(INFO, "q", "Who?", False, None, False, [("a", "What?", "A cat.")]))
    assert asked == [
        "a",
        ("text", "Question: What? Answer:"),
        ("text", "A cat."),
        "q",
        ("text", "Question: Who? Answer:"),
    ]
    described = plain(tasks.plan_describe(INFO, "q", (0, 0, 1, 1), True, False, False, [("a", (0, 0, 1, 0.5), "sky")]))
    assert described.count("a") == 1 and BoxSegment(((0.0, 0.0, 1.0, 0.5),), True) in described


@pytest.mark.parametrize(
    "examples", ["ab", 5, [("a",)], ["ab"], [("a", "")], [("a", 5)], [("a", "b", "c")], [("a", "x")] * 65]
)
def test_bad_examples(examples: object) -> None:
    with pytest.raises(InvalidRequest, match="examples"):
        tasks.plan_caption(INFO, "i", "short", False, False, examples)


@pytest.mark.parametrize("length", ["medium", None, 5, True])
def test_bad_length(length: object) -> None:
    with pytest.raises(InvalidRequest, match="length"):
        tasks.plan_caption(INFO, "i", length, False, False, ())


@pytest.mark.parametrize("box", [(1, 2, 3), "1,2,3,4", None, (1, 2, 3, math.nan), (1, 2, 3, "4"), {1, 2, 3, 4}, 5])
def test_bad_boxes(box: object) -> None:
    with pytest.raises(InvalidRequest, match="box"):
        tasks.plan_describe(INFO, "i", box, False, True, False, ())


def test_boxes_say_what_they_are() -> None:
    with pytest.raises(InvalidRequest, match="fractions"):
        tasks.plan_describe(INFO, "i", (10, 10, 20, 20), True, True, False, ())
    with pytest.raises(InvalidRequest, match="normalized"):
        tasks.plan_describe(INFO, "i", (0, 0, 1, 1), None, True, False, ())
    with pytest.raises(InvalidRequest, match="x1 < x2"):
        tasks.plan_describe(INFO, "i", Box((0.5, 0.5, 0.4, 0.6)), False, True, False, ())


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 0.6), (0, 0, 1, 0.5), (0.5, 0, 1.0, 0.25)])
def test_pixels_within_0_to_1_are_asked_about(box: tuple[float, ...]) -> None:
    """Both readings are named, wherever a box is given; a Box says what it is."""
    for ask in (
        lambda: tasks.plan_describe(INFO, "i", box, False, True, False, ()),
        lambda: tasks.plan_describe(INFO, "i", (1, 2, 3, 4), False, True, False, [("a", box, "sky")]),
        lambda: tasks.plan_generate(INFO, [Path("i"), box], False, False, False),
        lambda: tasks.plan_generate(INFO, [Path("i"), [(1, 2, 3, 4), box]], False, False, False),
    ):
        with pytest.raises(InvalidRequest, match=r"fractions of the picture.*normalized=True.*pixels") as error:
            ask()
        assert str(error.value).startswith(("box", "examples[0]", "segments[1]"))
    normalized = BoxSegment((tuple(map(float, box)),), True)
    assert normalized in tasks.plan_describe(INFO, "i", box, True, True, False, ()).segments
    assert normalized in tasks.plan_generate(INFO, [Path("i"), box], False, False, True).segments
    pixel = Box.from_pixels(0, 0, 1, 1, width=50, height=40)
    assert BoxSegment((pixel,), False) in tasks.plan_describe(INFO, "i", pixel, False, True, False, ()).segments


def test_generate_takes_any_interleaving() -> None:
    path, box = Path("a.png"), Box((0.1, 0.1, 0.2, 0.2))
    plan = tasks.plan_generate(INFO, [path, "An image of a cat.", b"png", box, [box, box], "and"], False, False, False)
    assert plain(plan) == [
        path,
        ("text", "An image of a cat."),
        b"png",
        BoxSegment((box,), True),
        BoxSegment((box, box), True),
        ("text", "and"),
    ]
    assert plain(tasks.plan_generate(INFO, "<grounding> x", True, False, False)) == [("tags", "<grounding> x")]
    assert plan.grammar is False


def test_boxes_of_generate_are_those_of_describe() -> None:
    """Pixels of the picture before them, or fractions; one, or several for one phrase."""
    one, two = (10.0, 10.0, 20.0, 30.0), (0.0, 5.0, 6.0, 7.0)
    plan = tasks.plan_generate(
        INFO, [Path("a.png"), one, [one, two], [one, Box((0.1, 0.1, 0.2, 0.2))]], False, False, False
    )
    assert [segment for segment in plan.segments if isinstance(segment, BoxSegment)] == [
        BoxSegment((one,), False),
        BoxSegment((one, two), False),
        BoxSegment((one, Box((0.1, 0.1, 0.2, 0.2))), False),
    ]
    for given, why in [
        ([one, Path("a.png")], "no picture before"),
        ([Path("a.png"), (1, 2, 3)], "four numbers"),
        ([Path("a.png"), [one, "x"]], "a box or a list"),
        ([Path("a.png"), [one, (1, 2)]], "four numbers"),
    ]:
        with pytest.raises(InvalidRequest, match=rf"segments\[\d\].*{why}"):
            tasks.plan_generate(INFO, given, False, False, False)
    with pytest.raises(InvalidRequest, match="fractions"):
        tasks.plan_generate(INFO, [Path("a.png"), one], False, False, True)
    with pytest.raises(InvalidRequest, match="normalized"):
        tasks.plan_generate(INFO, [Path("a.png"), one], False, False, 1)


@pytest.mark.parametrize("segments", [[], (), 5, None, b"x", [5], [None], [[]], [(1, 2, 3, 4)], [""], [{}]])
def test_bad_segments(segments: object) -> None:
    with pytest.raises(InvalidRequest, match="segments"):
        tasks.plan_generate(INFO, segments, False, False, False)


def test_contradiction_of_choices_and_boxes() -> None:
    with pytest.raises(InvalidRequest, match="choices"):
        tasks.plan_ask(INFO, "i", "Who?", True, ["a", "b"], False, ())
