"""classify, reason, iq, webqa: their prompts word for word; their answers are those of the requests behind them."""

import math
from pathlib import Path

import pytest
from helpers.api_model import grounded_model, picture, png, tiny_file, tiny_model
from helpers.tiny import write_tiny
from models.description import described

import kosmos_edge
from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.inference import ability_plans as plans
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.web_text import visible_text

SHORT = {"max_tokens": 5}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path = tmp_path_factory.mktemp("llava") / "tiny.gguf"
    write_tiny(path, tiny=described()["llava"].tiny)
    return kosmos_edge.load(path, threads=1)


def words(segments: list) -> list:
    """Texts, and the images as they were given."""
    return [s.source if isinstance(s, PictureSegment) else s[1] for s in segments]


def scores(ranking: kosmos_edge.Ranking) -> list[tuple]:
    return [(row.text, row.token_ids, row.logprobs, row.share) for row in ranking.ranking]


# ---- prompts, as they are printed

INFO = tiny_model().model_info
PAIR = {"three toed woodpecker": "stripes throughout the body.", "downy woodpecker": "white spots on black wings."}


def test_prompts_of_classify() -> None:
    def plan(**given: object) -> list:
        form = dict.fromkeys(("question", "prompt", "descriptions", "category")) | given
        return words(plans.plan_classify(INFO, "x", list(PAIR), **{"examples": (), **form}).segments)  # type: ignore[arg-type]

    assert plan() == ["x", "The photo of the"]
    assert plan(examples=[("a", "dog")]) == ["a", "The photo of the dog", "x", "The photo of the"]
    assert plan(prompt="It is a") == ["x", "It is a"]
    assert plan(question="What is it?") == ["x", "Question: What is it? Answer:"]
    asked = "Question: what is the name of the woodpecker in the picture? Answer:"
    both = (
        "Description of three toed woodpecker: stripes throughout the body. "
        "Description of downy woodpecker: white spots on black wings."
    )
    assert plan(category="woodpecker", descriptions=PAIR) == [both, "x", asked]
    shown = plan(category="woodpecker", descriptions=PAIR, examples=[("a", "downy woodpecker")])
    assert shown == [both, "a", f"{asked} downy woodpecker", "x", asked]
    without = "The woodpecker is either three toed woodpecker or downy woodpecker."
    assert plan(category="woodpecker") == [without, "x", asked]


def test_prompts_of_reason() -> None:
    shots = [("a", "Why?", "a cat sits.", "It waits")]
    first = plans.plan_rationale(INFO, "x", plans.INTRODUCE, shots)
    assert words(first.segments) == [
        "a",
        "Introduce this picture in detail: a cat sits.",
        "x",
        "Introduce this picture in detail:",
    ]
    question = "what is the sentiment of the opinion?"
    second = plans.plan_conclusion(INFO, "x", plans.INTRODUCE, "some words.", question, shots)
    assert words(second.segments) == [
        "a",
        "a cat sits. Question: Why? Answer: It waits",
        "x",
        "some words. Question: what is the sentiment of the opinion? Answer:",
    ]


def test_prompts_of_iq_and_webqa() -> None:
    def matrix(count: int) -> list:
        return words(plans.plan_sequence(INFO, plans.matrix_segments(list(range(count)), "c")).segments)

    for count, name in ((3, "three"), (4, "four"), (8, "eight")):
        cells = list(range(count))
        assert matrix(count) == [
            f"Here are {name} images:",
            *cells,
            " The following image is:",
            "c",
            " Is it correct?",
        ]
    with pytest.raises(InvalidRequest, match=r"expected 1\.\.12 of them, got 13"):
        matrix(13)
    example = (
        "Given the context below from web page, extract the answer from the given text like this: "
        "Qusestion: Who is the publisher of this book? Answer: Penguin Books Ltd."
    )
    web = plans.plan_web(INFO, "x", "How much?", "Price: 3")
    assert words(web.segments) == ["x", f"{example} Context: Price: 3 Q: How much? A:"]
    assert words(plans.plan_web(INFO, None, "How much?", "").segments) == [f"{example} Q: How much? A:"]


def test_chat_models_get_the_words_in_their_own_form(llava: kosmos_edge.Model) -> None:
    info = llava.model_info
    form = info["prompts"]["question"].split("{image}")[1]

    def text(segments: list) -> str:
        return "".join(str(w) for w in words(segments))

    plan = plans.plan_classify(info, "IMAGE", list(PAIR), None, None, PAIR, "woodpecker", ())
    asked = "what is the name of the woodpecker in the picture?"
    assert f"white spots on black wings. {asked}" in text(plan.segments) and text(plan.segments).endswith("ASSISTANT:")
    second = plans.plan_conclusion(info, "IMAGE", "Introduce it.", "a cat sits.", "Why?", ())
    said = text(second.segments)
    assert form.replace("{question}", "Introduce it.") + " a cat sits." in said and said.endswith("Why? ASSISTANT:")
    with pytest.raises(InvalidRequest, match="expected a question or a category: "):
        llava.classify(picture(), ["a", "b"])
    reasoned = llava.reason(picture(), "Why?", rationale_tokens=4, **SHORT)
    assert reasoned.timings.tokens == len(reasoned.token_ids) + 4


# ---- answers


def test_classify_by_likelihood_is_score_segments() -> None:
    model, photo = tiny_model(), tiny_model().encode(picture())
    labels = ["a red circle", "blue", "yes"]
    assert scores(model.classify(photo, labels)) == scores(model.score_segments([photo, "The photo of the "], labels))
    asked = model.classify(photo, labels, question="What?", normalize="mean")
    behind = [photo, "Question: What? Answer: "]
    assert scores(asked) == scores(model.score_segments(behind, labels, normalize="mean"))
    shot = model.encode(255 - picture())
    few = model.classify(photo, labels, examples=[(shot, "blue")])
    expected = model.score_segments([shot, "The photo of the blue", photo, "The photo of the "], labels)
    assert scores(few) == scores(expected) and (few.width, few.height) == (100, 80)


def test_classify_by_text() -> None:
    model, labels = tiny_model(), ["a red circle", "blue", "yes"]
    constrained = model.classify(picture(), labels, question="What?", by="choices", num_beams=2)
    assert constrained.text == model.ask(picture(), "What?", choices=labels, num_beams=2).text
    free = model.classify(picture(), labels, by="free", **SHORT)
    assert free.token_ids == model.caption(picture(), template="The photo of the", **SHORT).token_ids
    from_file = model.classify(png(), labels, category="thing", by="free", **SHORT)
    assert from_file.token_ids == model.classify(picture(), labels, category="thing", by="free", **SHORT).token_ids


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ["a", "a"]}, "labels: expected different ones, got 'a' twice"),
        ({"labels": "ab"}, "labels: expected a list of texts"),
        ({"by": "luck"}, "by: expected one of 'likelihood', 'choices', 'free', got 'luck'"),
        ({"max_tokens": 3}, "max_tokens: expected with by='choices' or 'free'"),
        ({"question": "q", "category": "c"}, "question and category: expected one of them"),
        ({"descriptions": {"a": "x", "b": "y"}}, "descriptions: expected with category"),
        ({"descriptions": {"a": "x"}, "category": "c"}, "expected one for every label, got none for 'b'"),
        ({"descriptions": dict.fromkeys("abc", "x"), "category": "c"}, "got one for 'c', which is no label"),
        ({"labels": ["a"], "category": "c"}, "labels: expected at least 2 with category, got 1"),
        ({"examples": [("x.png",)]}, r"examples\[0\]: expected \(image, label\)"),
    ],
)
def test_what_classify_refuses(given: dict, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tiny_model().classify(picture(), **{"labels": ["a", "b"], **given})


def test_reason_is_two_requests() -> None:
    model, photo = tiny_model(), tiny_model().encode(picture())
    found = model.reason(photo, "Is it?", rationale_tokens=30, **SHORT)
    first = model.generate([photo, "Introduce this picture in detail:"], max_tokens=30)
    assert found.rationale == first.text.strip() != ""
    second = model.generate([photo, f"{found.rationale} Question: Is it? Answer:"], **SHORT)
    assert (found.text, found.token_ids) == (second.text, second.token_ids)
    assert found.timings.tokens == 35 and found.to_dict()["rationale"] == found.rationale
    ranked = model.reason(photo, "Is it?", rationale_tokens=30, choices=["yes", "a red circle"])
    expected = model.score_segments([photo, f"{found.rationale} Question: Is it? Answer: "], ["yes", "a red circle"])
    assert ranked.text == expected.best.text and ranked.finish_reason == "choice"
    assert [s.logprobs for s in ranked.scores or ()] == [s.logprobs for s in expected.ranking]
    silent = grounded_model().reason(picture(), "Is it?", rationale_tokens=7, **SHORT)  # it writes boxes alone
    assert silent.rationale == "" and "the rationale is empty" in silent.notes
    with pytest.raises(InvalidRequest, match="max_tokens: a choice is its own end"):
        model.reason(photo, "Is it?", choices=["yes", "no"], **SHORT)


def test_reason_encodes_the_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(), []
    encode = type(model).encode
    monkeypatch.setattr(
        type(model), "encode", lambda self, image, **rest: seen.append(1) or encode(self, image, **rest)
    )
    model.reason(picture(), "Is it?", rationale_tokens=3, examples=[(255 - picture(), "q", "r", "a")], **SHORT)
    assert len(seen) == 2


def test_iq_is_the_probability_of_yes() -> None:
    model = tiny_model()
    cells = [model.encode(picture(n)) for n in range(3)]
    answers = [picture(n) for n in range(3, 6)]
    found = model.iq(cells, answers)
    for candidate, image in zip(found.candidates, answers, strict=True):
        given = ["Here are three images:", *cells, " The following image is:", image, " Is it correct?"]
        for text, chance in (("Yes", candidate.yes), ("No", candidate.no)):
            alone = model.score_segments(given, [f" {text}"]).best
            assert chance == pytest.approx(math.exp(alone.logprob_sum), rel=1e-5)
        assert candidate.margin == candidate.yes / (candidate.yes + candidate.no)
    assert found.candidates[found.best].yes == max(c.yes for c in found.candidates)
    assert found.timings.reused_tokens >= 2 * 3 * model.image_tokens  # the cells, for all candidates but the first
    assert found.to_dict()["best"] == found.best
    with pytest.raises(InvalidRequest, match="candidates: expected a list of images"):
        model.iq(cells, [])


def test_webqa_shows_the_visible_text_and_cuts_it() -> None:
    model, photo = tiny_model(), tiny_model().encode(picture())
    page = "<html><head><title>T</title><style>p{}</style></head><body><p>A&amp;B<br>c <b>d</b>e</p></body></html>"
    found = model.webqa(photo, "How much?", html=page, **SHORT)
    assert found.token_ids == model.webqa(photo, "How much?", text=" A&B\n c de ", **SHORT).token_ids
    given = [photo, f"{plans.WEB} Context: A&B c de Q: How much? A:"]
    assert found.token_ids == model.generate(given, **SHORT).token_ids
    long = model.webqa(photo, "How much?", text="a " * 5000, **SHORT)
    notes = [note for note in long.notes if "was cut to its first" in note]
    assert len(notes) == 1 and notes[0].endswith("of 5000 words")
    kept = int(notes[0].split("first ")[1].split()[0])
    with pytest.raises(ContextTooLong):
        model.generate([photo, f"{plans.WEB} Context: {'a ' * (kept * 16 // 15 + 1)}Q: How much? A:"], **SHORT)
    with pytest.raises(InvalidRequest, match="html and text: expected one of them"):
        model.webqa(photo, "q", html="a", text="b")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one<p>two<div>three</div>four", "one two three four"),
        ("w<i>or</i>d <td>a</td><td>b</td>", "word a b"),
        ("<script>if (a < b) x()</script>seen<noscript>no</noscript>", "seen"),
        ("<div hidden>no <b>no</b></div>yes <span style='DISPLAY : none'>no</span>!", "yes !"),
        ("<div style='display:none'><p>no<br>no</div>yes", "yes"),
        ("<head><meta x><body>no end of head", "no end of head"),
        ("&lt;b&gt; &#233;<!-- no -->", "<b> é"),
        ("<img hidden>yes<br/>too", "yes too"),
        ("<title>no</title><p>head left out", "head left out"),
    ],
)
def test_visible_text(html: str, text: str) -> None:
    assert visible_text(html) == text


# ---- pools


def test_a_pool_draws_by_seed_and_item_and_never_the_image_itself(tmp_path: Path) -> None:
    model, paths = tiny_model(), [tmp_path / f"{n}.png" for n in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))
    pool = model.example_pool([(path, f"text {n}") for n, path in enumerate(paths)])
    texts = [[text for _, text in pool.draw(3, item=str(n))] for n in range(20)]
    assert texts[4] == [text for _, text in pool.draw(3, item="4")] and len({tuple(row) for row in texts}) > 10
    assert texts[4] != [text for _, text in pool.draw(3, seed=1, item="4")]
    same = tmp_path / "." / "2.png"
    assert all("text 2" not in [t for _, t in pool.draw(5, item=str(n), without=same)] for n in range(5))
    assert pool.draw(0) == [] and len(pool) == 6
    with pytest.raises(InvalidRequest, match="k: expected at most 5"):
        pool.draw(6, without=same)
    assert pool.draw(1, item="4")[0][0] is pool.draw(1, item="4")[0][0]  # encoded once
    examples = pool.draw(2, item="4")
    plain = [(paths[int(text[-1])], text) for _, text in examples]
    few = model.caption(picture(), examples=examples, **SHORT)
    assert few.token_ids == model.caption(picture(), examples=plain, **SHORT).token_ids


def test_the_nearest_come_last_and_the_same_picture_never() -> None:
    import numpy as np

    model, pictures = tiny_model(), [picture(n) for n in range(5)]
    pool = model.example_pool([(image, str(n)) for n, image in enumerate(pictures)])

    def direction(image: np.ndarray) -> np.ndarray:
        encoded = model.encode(image)
        mean = np.frombuffer(encoded.tobytes(), np.float32).reshape(encoded.shape).mean(0, dtype=np.float64)
        return mean / np.linalg.norm(mean)

    photo = picture(9)
    likeness = [float(direction(photo) @ direction(image)) for image in pictures]
    assert [text for _, text in pool.nearest(photo, 5)] == [str(n) for n in np.argsort(likeness)]
    assert [text for _, text in pool.nearest(photo, 2)] == [str(n) for n in np.argsort(likeness)[-2:]]
    assert "3" not in [text for _, text in pool.nearest(png(3), 4)]
    with pytest.raises(InvalidRequest, match="k: expected at most 4"):
        pool.nearest(png(3), 5)


def test_a_worker_gives_the_same() -> None:
    here = tiny_model()
    with kosmos_edge.load(tiny_file(), threads=1, isolation="process") as apart:
        labels = ["a red circle", "blue"]
        assert scores(apart.classify(picture(), labels)) == scores(here.classify(picture(), labels))
        few = {"rationale_tokens": 3, "choices": labels}
        assert apart.reason(picture(), "q", **few).text == here.reason(picture(), "q", **few).text
        cells, answers = [picture(0), picture(1), picture(2)], [picture(3), picture(4)]
        assert apart.iq(cells, answers).candidates == here.iq(cells, answers).candidates
        assert apart.webqa(picture(), "q", text="w", **SHORT).text == here.webqa(picture(), "q", text="w", **SHORT).text
