"""The verbs on the tiny model: what they ask the engine for, and how its answer is read."""

import ast
import io
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_model, picture, png, tiny_file, tiny_model
from PIL import Image

import kosmos_edge
from kosmos_edge import Box, Model, Ranking, Result, _core, load
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError

SHORT = {"max_tokens": 24}
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.png"))


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def hf_reading(model: Model, ids: list[int]) -> tuple:
    """transformers' tuple for ids, by the native parser alone."""
    tokenizer = model._open.engine.tokenizer
    text, entities = _core.parse_grounded_text(_core.clean_up_tokenization(tokenizer.decode(ids)), 32)
    return text, [(phrase, (start, end), boxes) for phrase, start, end, boxes, _, _ in entities]


def check(result: Result, model: Model) -> None:
    """What holds for every answer about the 100 x 80 picture."""
    assert isinstance(result, Result) and result.ok and result.error is None
    assert (result.width, result.height, result.device) == (100, 80, "cpu") and result.model == model.name
    assert result.finish_reason in ("stop", "length", "stop_string", "choice")
    assert result.timings.tokens == len(result.token_ids) >= 1
    assert result.timings.total_ms >= result.timings.prefill_ms + result.timings.decode_ms > 0
    assert "<" not in result.text
    for entity in result.entities:
        start, end = entity.span
        assert result.text[start:end] == entity.phrase
        for box in entity.boxes:
            assert box.pixels == pytest.approx([v * s for v, s in zip(box.normalized, (100, 80, 100, 80), strict=True)])
            assert box.valid and all(0 <= v <= 1 for v in box.normalized)
            assert box.cells is not None and box.normalized == _core.cells_to_box(*box.cells, 32)
            assert box.score is None or 0 <= box.score <= 1
    json.loads(result.to_json())
    text, entities = result.to_hf()
    if "</image>" not in model._open.engine.tokenizer.decode(result.token_ids):  # there transformers starts anew
        assert result.text in text
    assert all(isinstance(e, tuple) and isinstance(e[1], tuple) and isinstance(e[2], list) for e in entities)


# ---- verbs


@pytest.mark.parametrize("seed", range(4))
def test_grounded_answers(seed: int) -> None:
    """On a model whose answers are full of boxes: spans, frames, scores, written forms, transformers' tuple."""
    model = grounded_model()
    result = model.ground(picture(seed), max_tokens=80)
    check(result, model)
    assert result.entities and result.boxes and all(box.score is not None for box in result.boxes)
    text, entities = result.to_hf()
    assert text.startswith("An image of") and len(entities) == len(result.entities)
    shift = len(text) - len(result.text)
    for (phrase, span, boxes), entity in zip(entities, result.entities, strict=True):
        assert boxes == [box.normalized for box in entity.boxes]
        if entity.phrase:
            assert (phrase, span) == (entity.phrase, tuple(at + shift for at in entity.span))
    coco = result.to_coco()
    assert len(coco["annotations"]) == len(result.boxes)
    assert result.to_markdown().count("#xywh=") == sum(len(e.boxes) for e in result.entities if e.phrase)
    same = model.caption(picture(seed), ground=True, max_tokens=80)
    assert same.entities == result.entities
    ungrammatical = model.ground(picture(seed), max_tokens=80, grammar=False, temperature=1.5, seed=seed)
    for box in ungrammatical.boxes:
        assert box.valid == (box.normalized[2] > box.normalized[0] and box.normalized[3] > box.normalized[1])


def test_locate_finds(model: Model) -> None:
    for seed in range(4):
        result = grounded_model().locate(picture(seed), "a dog")
        check(result, grounded_model())
        assert result.text == "a dog" and result.finish_reason == "stop"
        assert len(result.entities) == 1 and result.boxes and result.entities[0].span == (0, 5)


def test_caption(model: Model) -> None:
    result = model.caption(picture(), **SHORT)
    check(result, model)
    assert not result.text.startswith("An image of")
    with_lead_in = model.caption(picture(), lead_in=True, **SHORT)
    assert with_lead_in.text == result.to_hf()[0] == with_lead_in.to_hf()[0]
    assert with_lead_in.text.startswith("An image of") and with_lead_in.token_ids == result.token_ids
    assert with_lead_in.text.endswith(result.text)


def test_caption_asks_for_boxes_only_when_told(model: Model) -> None:
    tokenizer = model._open.engine.tokenizer
    grounded = model.caption(picture(), ground=True, **SHORT)
    plain = model.caption(picture(), **SHORT)
    check(grounded, model)
    assert grounded.timings.prompt_tokens == plain.timings.prompt_tokens + 1  # <grounding>
    assert tokenizer.find("<grounding>") >= 0
    assert model.caption(picture(), "long", **SHORT).timings.prompt_tokens != plain.timings.prompt_tokens


def test_ground(model: Model) -> None:
    result = model.ground(picture(), **SHORT)
    check(result, model)
    assert result.token_ids == model.caption(picture(), ground=True, **SHORT).token_ids
    prompted = model.ground(picture(), "the dog and", **SHORT)
    check(prompted, model)
    assert prompted.to_hf()[0].startswith("the dog and")


def test_locate(model: Model) -> None:
    result = model.locate(picture(), "a red ball")
    check(result, model)
    assert result.text.startswith("a red ball")
    tokenizer = model._open.engine.tokenizer
    if result.boxes:
        assert [entity.phrase for entity in result.entities] == ["a red ball"]
        assert result.token_ids[-1] == tokenizer.find("</object>") and result.finish_reason == "stop"
        assert result.entities[0].score is not None
    else:
        assert len(result.token_ids) == 1 and any("no box" in note for note in result.notes)


def test_describe_in_pixels_fractions_and_with_a_box(model: Model) -> None:
    pixels = model.describe(picture(), (25, 20, 75, 60), **SHORT)
    check(pixels, model)
    fractions = model.describe(picture(), (0.25, 0.25, 0.75, 0.75), normalized=True, **SHORT)
    box = model.describe(picture(), Box.from_normalized(0.25, 0.25, 0.75, 0.75), **SHORT)
    assert pixels.token_ids == fractions.token_ids == box.token_ids
    cells = _core.box_to_cells(0.25, 0.25, 0.75, 0.75, 32)
    assert pixels.box is not None and pixels.box.cells == cells
    assert pixels.box.normalized == _core.cells_to_box(*cells, 32)
    assert pixels.box.pixels == pytest.approx(
        [v * s for v, s in zip(pixels.box.normalized, (100, 80) * 2, strict=True)]
    )
    again = model.describe(picture(), pixels.box, **SHORT)  # a box of ours comes back as the same cells
    assert again.box == pixels.box and again.token_ids == pixels.token_ids
    assert pixels.to_hf()[1][0][0] == "It"


@pytest.mark.parametrize(
    "box", [(-1, 0, 10, 10), (0, 0, 101, 10), (0, 0, 10, 80.5), (10, 10, 10, 20), (20, 10, 10, 20)]
)
def test_describe_refuses_boxes_outside_the_picture(model: Model, box: tuple) -> None:
    with pytest.raises(InvalidRequest, match="100"):
        model.describe(picture(), box, **SHORT)


def test_ask(model: Model) -> None:
    result = model.ask(picture(), "Who is there?", **SHORT)
    check(result, model)
    grounded = model.ask(picture(), "Who is there?", ground=True, **SHORT)
    assert grounded.timings.prompt_tokens == result.timings.prompt_tokens + 1


def test_choices_are_the_only_answers(model: Model) -> None:
    choices = ["a dog", "the cat", "Yes", "No"]
    for question in ("What is it?", "Is it red?", "How many?"):
        result = model.ask(picture(), question, choices=choices)
        assert result.text in choices and result.finish_reason in ("choice", "stop")
    assert model.generate([picture(), "is it"], choices=["Yes"]).text == "Yes"


def test_score_ranks_and_agrees_with_the_engine(model: Model) -> None:
    texts = ["a dog", "a cat", "the two birds in the sky"]
    ranking = model.score(picture(), texts)
    assert isinstance(ranking, Ranking) and sorted(r.text for r in ranking.ranking) == sorted(texts)
    scores = [row.score for row in ranking.ranking]
    assert scores == sorted(scores, reverse=True) and ranking.best is ranking.ranking[0]
    assert math.isclose(sum(row.share for row in ranking.ranking), 1)
    engine = model._open.engine
    embedding = engine.encode_image(picture(), 100, 80)
    for row in ranking.ranking:
        scoring = engine.score([("image", embedding), ("text", "An image of ")], [[("text", row.text)]])
        (scored,) = scoring.continuations
        assert row.token_ids == scored.token_ids and row.logprobs == pytest.approx(scored.logprobs)
        total = sum(scored.logprobs)
        assert row.logprob_sum == pytest.approx(total)
        assert row.logprob_mean == pytest.approx(total / len(scored.token_ids))
    mean = model.score(picture(), texts, normalize="mean")
    assert [row.score for row in mean.ranking] == [row.logprob_mean for row in mean.ranking]
    assert ranking.width == 100 and ranking.timings.encode_ms > 0


def test_score_template(model: Model) -> None:
    plain = model.score(picture(), ["a dog"], "What is it? {text}").best
    ended = model.score(picture(), ["a dog"], "What is it? {text} in the snow").best
    assert ended.token_ids[: len(plain.token_ids)] == plain.token_ids and len(ended.token_ids) > len(plain.token_ids)
    alone = model.score(None, ["a dog"], "What is it? {text}").best
    assert alone.token_ids == plain.token_ids and alone.logprob_sum != plain.logprob_sum
    with pytest.raises(InvalidRequest, match="template"):
        model.score(None, ["a dog"], "{text}")
    for texts in ([], "a dog", [""], [5]):
        with pytest.raises(InvalidRequest, match="texts"):
            model.score(picture(), texts)
    with pytest.raises(InvalidRequest, match="normalize"):
        model.score(picture(), ["a"], normalize="max")


def test_score_equals_the_likelihood_that_generation_reports(model: Model) -> None:
    """Greedy ids and their logprobs, teacher-forced, are the same numbers."""
    result = model.generate([picture(), "An image of"], max_tokens=8, logprobs=True, no_repeat_ngram_size=0)
    assert result.logprobs is not None and len(result.logprobs) == len(result.token_ids)
    engine = model._open.engine
    embedding = engine.encode_image(picture(), 100, 80)
    scoring = engine.score([("image", embedding), ("text", "An image of")], [[("ids", result.token_ids)]])
    (scored,) = scoring.continuations
    assert scored.token_ids == result.token_ids and scored.logprobs == pytest.approx(result.logprobs, abs=1e-4)


def test_generate_interleaves(model: Model) -> None:
    engine = model._open.engine
    one, two = picture(1), picture(2, 60, 90)
    result = model.generate([one, "An image of a cat.", two, "An image of"], **SHORT)
    assert (result.width, result.height) == (60, 90)  # boxes refer to the last picture
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size = 24, 3
    segments = [
        ("image", engine.encode_image(one, 100, 80)),
        ("text", "An image of a cat."),
        ("image", engine.encode_image(two, 60, 90)),
        ("text", "An image of"),
    ]
    assert engine.generate(segments, params).token_ids == result.token_ids


def test_generate_text_only_and_boxes(model: Model) -> None:
    result = model.generate(["An image of"], **SHORT)
    assert (result.width, result.height) == (None, None) and result.to_hf()[0].startswith("An image of")
    box = Box.from_normalized(0.1, 0.1, 0.9, 0.9)
    boxed = model.generate([picture(), "It", [box, box], "is"], **SHORT)
    plain = model.generate([picture(), "It", "is"], **SHORT)
    assert boxed.timings.prompt_tokens == plain.timings.prompt_tokens + 2 + 4 + 1


def test_raw_and_plain_tags(model: Model) -> None:
    raw = model.generate([picture(), "<grounding>An image of"], raw=True, grammar=True, **SHORT)
    assert raw.token_ids == model.caption(picture(), ground=True, **SHORT).token_ids
    plain = model.generate([picture(), "<grounding>An image of"], **SHORT)
    assert plain.timings.prompt_tokens > raw.timings.prompt_tokens  # the tag's letters


def test_raw_phrase_prompt_keeps_its_phrase(model: Model) -> None:
    raw = model.generate([picture(), "<grounding><phrase> a dog</phrase>"], raw=True, grammar=True, max_tokens=16)
    assert raw.text.startswith("a dog")


def test_examples_go_into_the_prompt(model: Model) -> None:
    shots = [(picture(3), "a red house.")]
    result = model.caption(picture(), examples=shots, **SHORT)
    by_hand = model.generate([picture(3), "An image of a red house.", picture(), "An image of"], grammar=True, **SHORT)
    assert result.token_ids == by_hand.token_ids
    asked = model.ask(picture(), "Who?", examples=[(picture(3), "What?", "a house")], **SHORT)
    by_hand = model.generate(
        [picture(3), "Question: What? Answer: a house", picture(), "Question: Who? Answer:"], grammar=True, **SHORT
    )
    assert asked.token_ids == by_hand.token_ids
    assert model.describe(picture(), (0, 0, 50, 50), examples=[(picture(3), (0, 0, 9, 9), "a house")], **SHORT).ok


# ---- images


def test_every_kind_of_image_and_an_encoded_one(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "Ж 画像.png"
    path.write_bytes(png())
    encoded = model.encode(path)
    assert encoded.shape == (model.image_tokens, 256) and len(encoded.tobytes()) == encoded.shape[0] * 256 * 4
    expected = model.caption(picture(), **SHORT)
    for image in (path, str(path), png(), io.BytesIO(png()), Image.open(path), encoded, kosmos_edge.open_image(path)):
        result = model.caption(image, **SHORT)
        check(result, model)
        assert result.token_ids == expected.token_ids
    assert model.caption(path, **SHORT).source == str(path) and model.caption(encoded, **SHORT).source == str(path)
    assert model.caption(encoded, **SHORT).timings.encode_ms == 0 < expected.timings.encode_ms


def test_an_encoded_image_belongs_to_its_model(model: Model) -> None:
    encoded = model.encode(picture())
    with load(tiny_file(), threads=1) as other, pytest.raises(InvalidRequest, match="encoded"):
        other.caption(encoded)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_answers_do_not_depend_on_how_a_camera_was_held(model: Model, orientation: int) -> None:
    from helpers.pictures import stored_for, with_tag

    buffer = io.BytesIO()
    stored_for(Image.fromarray(picture()), orientation).save(buffer, "PNG", exif=with_tag(orientation))
    upright = model.describe(picture(), (10, 10, 60, 70), **SHORT)
    result = model.describe(buffer.getvalue(), (10, 10, 60, 70), **SHORT)
    check(result, model)
    assert result.token_ids == upright.token_ids and result.entities == upright.entities and result.box == upright.box
    assert any("EXIF" in note for note in result.notes) == (orientation != 1)


def test_the_same_file_object_twice_is_read_once(model: Model) -> None:
    file = io.BytesIO(png())
    result = model.generate([file, "and", file, "An image of"], **SHORT)
    assert result.token_ids == model.generate([picture(), "and", picture(), "An image of"], **SHORT).token_ids


# ---- options


def test_max_tokens_and_finish_reason(model: Model) -> None:
    result = model.caption(picture(), max_tokens=3)
    assert len(result.token_ids) <= 3 and result.finish_reason in ("length", "stop")
    full = model.caption(picture())
    assert len(full.token_ids) <= 128


def test_sampling_is_seeded(model: Model) -> None:
    options = {"temperature": 1.5, "max_tokens": 16}
    first = model.caption(picture(), seed=1, **options)
    assert first.token_ids == model.caption(picture(), seed=1, **options).token_ids
    others = [model.caption(picture(), seed=seed, **options).token_ids for seed in range(2, 8)]
    assert any(ids != first.token_ids for ids in others)
    greedy = model.caption(picture(), max_tokens=16)
    assert model.caption(picture(), temperature=1.0, top_k=1, max_tokens=16).token_ids == greedy.token_ids


def test_the_whole_picture_in_fractions_is_asked_about(model: Model) -> None:
    """But for a picture of one pixel, where both readings are the same."""
    for call in (
        lambda image, **unit: model.describe(image, (0, 0, 1, 1), max_tokens=2, **unit),
        lambda image, **unit: model.generate([image, (0, 0, 1, 1), "is"], max_tokens=2, **unit),
    ):
        with pytest.raises(InvalidRequest, match=r"fractions of the picture.*normalized=True.*pixels"):
            call(picture())
        assert call(picture(), normalized=True).token_ids
        assert call(picture(1, 1, 1)).token_ids == call(picture(1, 1, 1), normalized=True).token_ids


def test_the_smallest_temperatures_and_top_p_are_greedy(model: Model) -> None:
    greedy = model.caption(picture(), max_tokens=12).token_ids
    for temperature in (1e-12, 1e-38, 2e-39, 1e-44, 1e-46, 5e-324):
        for more in ({}, {"top_k": 5}, {"top_p": 0.9}):
            assert model.caption(picture(), temperature=temperature, seed=3, max_tokens=12, **more).token_ids == greedy
    for top_p in (1e-30, 1e-46, 5e-324):
        assert model.caption(picture(), temperature=5.0, top_p=top_p, max_tokens=12).token_ids == greedy
    for seed in (0, 2**63, 2**64 - 1):
        assert model.caption(picture(), temperature=1.0, seed=seed, max_tokens=3).token_ids


@pytest.mark.parametrize("length_penalty", [-10.0, -3.0, 0.0, 3.0, 10.0])
def test_beams_at_the_ends_of_the_length_penalty(model: Model, length_penalty: float) -> None:
    """A score below any fixed number is still the score of an answer."""
    result = model.caption(picture(), num_beams=2, length_penalty=length_penalty, max_tokens=100)
    assert result.token_ids
    check(result, model)


def test_beams(model: Model) -> None:
    result = model.caption(picture(), num_beams=3, max_tokens=12)
    check(result, model)
    located = model.locate(picture(), "a dog", num_beams=2, max_tokens=8)
    check(located, model)


def test_logprobs_only_when_asked(model: Model) -> None:
    assert model.caption(picture(), **SHORT).logprobs is None
    result = model.caption(picture(), logprobs=True, **SHORT)
    assert result.logprobs is not None and len(result.logprobs) == len(result.token_ids)
    assert all(value <= 0 for value in result.logprobs)


def test_scores_come_from_location_tokens(model: Model) -> None:
    prompt = [picture(), "<grounding><phrase> a dog</phrase><object>"]
    options = {"raw": True, "grammar": True, "max_tokens": 3, "logprobs": True, "temperature": 2.0}
    answers = (model.generate(prompt, seed=seed, **options) for seed in range(50))
    result = next(answer for answer in answers if answer.entities)  # the third token closes the box or goes on
    assert result.logprobs is not None and [entity.phrase for entity in result.entities] == ["a dog"]
    expected = math.exp((result.logprobs[0] + result.logprobs[1]) / 2)
    assert result.boxes[0].score == pytest.approx(expected) and result.entities[0].score == pytest.approx(expected)
    assert result.entities[0].phrase_score is None  # the prompt's words
    prompt_box = model.describe(picture(), (0, 0, 50, 50), lead_in=True, **SHORT)
    assert prompt_box.entities[0].phrase == "It" and prompt_box.entities[0].score is None


@pytest.mark.parametrize("beams", [1, 3])
def test_a_phrases_score_is_the_probability_of_its_words(beams: int) -> None:
    with kosmos_edge.load("nano") as nano:
        find = nano._open.engine.tokenizer.find
        options = {"ground": True, "num_beams": beams}
        result = nano.caption(EXAMPLES[0], logprobs=True, **options)
        begin, end = (
            [i for i, token in enumerate(result.token_ids) if token == find(tag)] for tag in ("<phrase>", "</phrase>")
        )
        assert result.logprobs is not None and len(result.entities) == len(begin) > 0
        for entity, first, last in zip(result.entities, begin, end, strict=True):
            assert entity.phrase_score == pytest.approx(math.exp(math.fsum(result.logprobs[first + 1 : last])))
            assert 0 < entity.phrase_score <= 1 and entity.to_dict()["phrase_score"] == entity.phrase_score
        unasked = nano.caption(EXAMPLES[0], **options)
        assert unasked.entities == result.entities and unasked.logprobs is None
        assert nano.locate(EXAMPLES[0], result.entities[0].phrase).entities[0].phrase_score is None


def test_stop(model: Model) -> None:
    text = model.generate([picture(), "An image of"], max_tokens=40).text
    word = next(w for w in text.split() if text.find(w) > 2 and "<" not in w)
    result = model.generate([picture(), "An image of"], max_tokens=40, stop=word)
    assert result.finish_reason == "stop_string"
    assert word not in result.text and result.text == text[: text.find(word)].rstrip()
    many = model.generate([picture(), "An image of"], max_tokens=40, stop=["never to be met", text[4:9], word])
    assert many.finish_reason == "stop_string" and many.text == text[: min(4, text.find(word))].rstrip()


def test_to_hf_is_the_reading_of_prompt_and_answer(model: Model) -> None:
    engine = model._open.engine
    for result, prompt in (
        (model.caption(picture(), ground=True, **SHORT), [("tags", "<grounding>"), ("text", "An image of")]),
        (model.ask(picture(), "Who?", **SHORT), [("text", "Question: Who? Answer:")]),
        (model.caption(picture(), examples=[(picture(2), "a dog")], **SHORT), [("text", "An image of")]),
    ):
        ids = engine.prompt_ids(prompt)[1:]  # without <s>
        assert result.to_hf() == hf_reading(model, [*ids, *result.token_ids])


# ---- batch


def test_batch_keeps_order_and_goes_on(model: Model, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(png())
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing of the kind")
    results = list(model.batch([good, bad, tmp_path / "missing.png", picture(4)], **SHORT))
    assert [r.ok for r in results] == [True, False, False, True]
    assert isinstance(results[1].error, ImageDecodeError) and isinstance(results[2].error, KosmosIOError)
    assert results[1].source == str(bad) and results[1].to_dict()["error_type"] == "ImageDecodeError"
    assert results[0].token_ids == model.caption(good, **SHORT).token_ids
    assert results[3].token_ids == model.caption(picture(4), **SHORT).token_ids
    with pytest.raises(ImageDecodeError):
        list(model.batch([good, bad], on_error="raise", **SHORT))


def test_batch_of_every_task(model: Model) -> None:
    images = [picture(1), picture(2)]
    for task, arguments in {
        "caption": {"ground": True, **SHORT},
        "ground": SHORT,
        "locate": {"phrase": "a dog"},
        "describe": {"box": (0, 0, 20, 20), **SHORT},
        "ask": {"question": "Who?", **SHORT},
        "score": {"texts": ["a dog", "a cat"]},
    }.items():
        results = list(model.batch(images, task, **arguments))
        alone = [getattr(model, task)(image, **arguments) for image in images]
        if task == "score":
            assert [r.best for r in results] == [r.best for r in alone]
        else:
            assert [r.token_ids for r in results] == [r.token_ids for r in alone]


def test_batch_is_lazy_and_checks_its_arguments_first(model: Model) -> None:
    taken = []

    def images():
        for seed in range(100):
            taken.append(seed)
            yield picture(seed)

    results = model.batch(images(), **SHORT, batch_size=2)
    assert taken == []
    next(results)
    assert 0 < len(taken) <= 2 * 2 + 1 + 1
    for arguments in (
        {"task": "paint"},
        {"on_error": "ignore"},
        {"batch_size": 0},
        {"batch_size": 257},
        {"max_tokens": 0},
        {"stream": True},
        {"phrase": "x"},
        {"task": "locate"},
        {"task": "score", "texts": []},
        {"task": "ask", "question": ""},
        {"length": "medium"},
    ):
        with pytest.raises(InvalidRequest):
            model.batch([], **arguments)
    with pytest.raises(InvalidRequest, match="images"):
        model.batch("a.png")


# ---- life and threads


def test_facts(model: Model) -> None:
    assert model.model_info == _core.model_info(str(tiny_file()))
    assert model.device == "cpu" and model.threads == 1 and model.isa in _core.available_isas()
    assert model.context_length == 512 and model.image_tokens == 64 and model.path == tiny_file()
    assert model.metadata["general.architecture"] == "kosmos2" and "cpu" in model.description
    assert model.name in repr(model)


def test_close_and_context_manager() -> None:
    with load(tiny_file(), threads=1) as model:
        assert not model.closed
    assert model.closed and "closed" in repr(model)
    for call in (lambda: model.caption(picture()), lambda: model.device, lambda: model.encode(picture())):
        with pytest.raises(InvalidRequest, match="closed"):
            call()
    model.close()


def test_closing_lets_go_of_the_engine() -> None:
    model = load(tiny_file(), threads=1)
    engine = model._open.engine
    assert sys.getrefcount(engine) > 2
    model.close()
    assert sys.getrefcount(engine) == 2  # `engine` and the argument


@pytest.mark.parametrize("mode", ["mmap", "copy"])
def test_load_modes_give_the_same_answers(model: Model, mode: str) -> None:
    with load(str(tiny_file()), mode=mode, threads=2) as other:
        assert other.caption(picture(), **SHORT).token_ids == model.caption(picture(), **SHORT).token_ids


def test_four_threads_one_model(model: Model) -> None:
    expected = [model.caption(picture(seed), ground=True, **SHORT).to_dict() for seed in range(4)]
    results: dict[tuple[int, int], dict] = {}

    def work(thread: int) -> None:
        for seed in range(4):
            results[thread, seed] = model.caption(picture(seed), ground=True, **SHORT).to_dict()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (_, seed), record in results.items():
        assert {**record, "timings": None} == {**expected[seed], "timings": None}
    assert len(results) == 16


def test_the_package_is_lazy_and_complete() -> None:
    for name in kosmos_edge.__all__:
        assert getattr(kosmos_edge, name) is not None
    assert kosmos_edge.__version__[0].isdigit() and set(kosmos_edge.__all__) <= set(dir(kosmos_edge))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kosmos_edge.nonsense


def test_numpy_views_are_pictures(model: Model) -> None:
    flipped = picture()[::-1]
    assert not flipped.flags.c_contiguous
    assert model.caption(flipped, **SHORT).token_ids == model.caption(np.ascontiguousarray(flipped), **SHORT).token_ids


def test_the_stub_names_what_the_native_module_has() -> None:
    stub = ast.parse((Path(kosmos_edge.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))

    def public(names: Iterable[str]) -> set[str]:
        return {name for name in names if not name.startswith("_")}

    defined = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert public(defined) | {"testing"} == public(vars(_core))
    for name, node in defined.items():
        if isinstance(node, ast.ClassDef):
            members = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
            members |= {
                n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            }
            assert public(members) == public(vars(getattr(_core, name))), name


def test_numpy_is_not_needed(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(png())
    program = f"""
import sys
sys.modules["numpy"] = None  # importing it now fails
import kosmos_edge
model = kosmos_edge.load({str(tiny_file())!r}, threads=1)
result = model.ground({str(photo)!r}, max_tokens=4)
kosmos_edge.draw_boxes({str(photo)!r}, result)
print(result.width, model.score({str(photo)!r}, ["a dog"]).best.text)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "100 a dog\n", done.stderr
