"""Few-shot examples, own prompt formats and min_score through the C interface: answers, and what is refused."""

import math
from ctypes import byref, c_size_t, c_void_p, sizeof

import pytest
from helpers import capi
from helpers.api_model import grounded_file, picture
from helpers.capi import call, lib, make, texts
from helpers.capi_pair import Pair, from_nano, same

from kosmos_edge import Box, InvalidRequest

LENGTH = {"max_tokens": 24}


@pytest.fixture(scope="module", params=["nano", "grounded"])
def pair(request):
    """Nano on an example; and random weights that write boxes all the time."""
    return from_nano() if request.param == "nano" else Pair(grounded_file(), picture())


@pytest.fixture(scope="module")
def shot(pair):
    """Another picture on both sides."""
    array = picture(3, 60, 50)
    return array, capi.encode(pair.model, array)


def examples(*given: capi.Example) -> dict:
    return {"examples": (capi.Example * len(given))(*given), "example_count": len(given)}


def refused(pair, verb: str, *arguments, **options) -> str:
    with pytest.raises(capi.CError) as error:
        pair.c(verb, *arguments, **options)
    assert error.value.code == capi.INVALID
    return error.value.message


# ---- the same answers


@pytest.mark.parametrize("ground", [False, True])
def test_captions_after_examples(pair, shot, ground):
    array, image = shot
    given = [(array, "a dog & a 日本 cat."), (pair.array, "a <phrase> hat.")]
    expected = pair.python.caption(pair.array, ground=ground, examples=given, **LENGTH)
    c = pair.c(
        "caption",
        ground=int(ground),
        **examples(
            capi.Example(image=image, answer=given[0][1].encode()),
            capi.Example(image=pair.image, answer=given[1][1].encode()),
        ),
        **LENGTH,
    )
    same(c, expected)
    assert c["prompt_tokens"] > 2 * pair.c("caption", ground=int(ground), **LENGTH)["prompt_tokens"]
    assert any("'<phrase>' in a text is read as plain" in note for note in c["notes"])


@pytest.mark.parametrize("choices", [None, ["red", "blue"]])
def test_answers_after_examples(pair, shot, choices):
    array, image = shot
    expected = pair.python.ask(
        pair.array, "What now?", choices=choices, examples=[(array, "What is {phrase}?", "A dog.")], **LENGTH
    )
    given = {} if choices is None else {"choices": texts(*choices), "choice_count": len(choices)}
    example = capi.Example(image=image, text=b"What is {phrase}?", answer=b"A dog.")
    same(pair.c("ask", b"What now?", **examples(example), **given, **LENGTH), expected)


@pytest.mark.parametrize("ground", [True, False])
def test_descriptions_after_examples(pair, shot, ground):
    array, image = shot
    pixels = Box.from_pixels(3, 4, 30, 40, width=array.shape[1], height=array.shape[0])
    expected = pair.python.describe(
        pair.array, (0.1, 0.1, 0.9, 0.5), normalized=True, ground=ground, examples=[(array, pixels, "sky.")], **LENGTH
    )
    region = capi.Region(x1=3, y1=4, x2=30, y2=40)
    own = capi.Region(x1=0.1, y1=0.1, x2=0.9, y2=0.5, unit=1)
    example = capi.Example(image=image, region=capi.ctypes.pointer(region), answer=b"sky.")
    switch = 1 if ground else -1
    same(pair.c("describe", byref(own), ground=switch, **examples(example), **LENGTH), expected)


def test_examples_in_a_batch(pair, shot):
    """As the function of the task answers."""
    image = shot[1]
    keep = examples(capi.Example(image=image, answer=b"a dog."))
    alone = pair.c("caption", **keep, **LENGTH)
    options = capi.Options(**keep, **LENGTH)
    left, found = [1, 2, 3], []

    @capi.OnNext
    def on_next(request, user):
        if not left:
            return 0
        request.contents.task, request.contents.image = 1, pair.image
        request.contents.id = left.pop()
        request.contents.options = capi.ctypes.pointer(options)
        return 1

    @capi.OnAnswer
    def on_answer(number, result, error, user):
        assert result and not error
        found.append(capi.read(c_void_p(result)))
        return 0

    given = capi.BatchOptions(batch_size=2, on_next=on_next, on_answer=on_answer)
    call("batch", pair.model, byref(given))
    assert [answer["ids"] for answer in found] == [alone["ids"]] * 3
    assert [answer["notes"] for answer in found] == [alone["notes"]] * 3


@pytest.mark.parametrize(
    ("verb", "template", "argument", "python"),
    [
        ("caption", "A scene with", (), ()),
        ("caption", "<grounding>Here are", (), ()),
        ("ask", "Q: {question}\nA:", (b"What is <object>?",), ("What is <object>?",)),
        ("locate", "<phrase> the {phrase}</phrase>", (b"red circle",), ("red circle",)),
    ],
)
def test_own_formats(pair, shot, verb, template, argument, python):
    expected = getattr(pair.python, verb)(pair.array, *python, template=template, **LENGTH)
    c = pair.c(verb, *argument, template_text=template.encode(), **LENGTH)
    same(c, expected)
    usual = getattr(pair.python, verb)(pair.array, *python, **LENGTH)
    assert (c["prompt_tokens"], c["ids"]) != (usual.timings.prompt_tokens, usual.token_ids)
    given = pair.python.batch(
        [pair.array], verb, template=template, **LENGTH, **dict(zip(NAMES[verb], python, strict=True))
    )
    assert [answer.token_ids for answer in given] == [expected.token_ids]


NAMES = {"caption": (), "ask": ("question",), "locate": ("phrase",)}


def test_an_own_format_of_describe(pair):
    template = "<phrase> That</phrase>{boxes} shows"
    box = (0.2, 0.2, 0.7, 0.7)
    expected = pair.python.describe(pair.array, box, normalized=True, template=template, **LENGTH)
    region = capi.Region(**dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), unit=1)
    same(pair.c("describe", byref(region), template_text=template.encode(), **LENGTH), expected)


def test_the_model_gives_its_formats(pair):
    info = capi.ModelInfo()
    call("model_get", pair.model, byref(info))
    for name, text in pair.python.model_info["prompts"].items():
        assert getattr(info, f"prompt_{name}").decode() == text


@pytest.mark.parametrize("min_score", [0.0, 0.3, 1.0])
def test_entities_below_min_score_are_left_out(pair, min_score):
    for verb, argument, python in (("caption", (), ()), ("locate", (b"a red circle",), ("a red circle",))):
        ground = {"ground": True} if verb == "caption" else {}
        expected = getattr(pair.python, verb)(pair.array, *python, min_score=min_score, **ground, **LENGTH)
        events = []

        @capi.OnEvent
        def on_event(event, user, events=events):
            if event.contents.kind == 3:
                entity = event.contents.entity.contents
                events.append((entity.phrase.decode(), entity.phrase_score, entity.found_score))
            return 0

        given = {name: 1 for name in ground}
        c = pair.c(verb, *argument, min_score=min_score, on_event=on_event, **given, **LENGTH)
        same(c, expected)
        told = [(phrase, *scores[1:3]) for phrase, _, scores, _ in c["entities"]]
        assert repr(events) == repr(told)
        for _, phrase_score, found_score in told:
            sure = found_score if math.isnan(phrase_score) else phrase_score
            assert math.isnan(sure) or sure >= min_score


def test_locate_tells_how_likely_boxes_were(pair):
    c = pair.c("locate", b"a red circle", logprobs=1, **LENGTH)
    unasked = pair.c("locate", b"a red circle", **LENGTH)
    assert unasked["ids"] == c["ids"]
    first = pair.python._open.engine.tokenizer.find("<patch_index_0000>")
    for token, asked, got in zip(c["ids"], c["logprobs"], unasked["logprobs"], strict=True):
        assert got == asked if token >= first else math.isnan(got)
    if c["entities"]:
        assert c["entities"][0][2][2] == pytest.approx(math.exp(c["logprobs"][0]))
        assert [repr(e[2][2]) for e in unasked["entities"]] == [repr(e[2][2]) for e in c["entities"]]
    for entity in pair.c("caption", ground=1, **LENGTH)["entities"]:
        assert math.isnan(entity[2][2])


# ---- what is refused


def test_wrong_examples_are_refused(pair, shot):
    image = shot[1]
    good = {"image": image, "answer": b"a dog"}
    region = capi.ctypes.pointer(capi.Region(x2=0.5, y2=0.5, unit=1))
    for wrong, why in [
        ({"image": None}, "examples[0].image: expected a handle"),
        ({"image": 12345}, "examples[0].image: not a live handle"),
        ({"answer": None}, "examples[0].answer: expected a text"),
        ({"answer": b" "}, "examples[0].answer"),
        ({"answer": b"\xff"}, "examples[0].answer: not well-formed"),
        ({"text": b"What?"}, "examples[0].text: only ask takes one"),
        ({"region": region}, "examples[0].region: this task does not take one"),
    ]:
        assert why in refused(pair, "caption", **examples(capi.Example(**good | wrong)))
    assert "examples[0].text: expected a text" in refused(pair, "ask", b"?!", **examples(capi.Example(**good)))
    own = byref(capi.Region(x2=0.5, y2=0.5, unit=1))
    assert "examples[0].region" in refused(pair, "describe", own, **examples(capi.Example(**good)))
    outside = capi.ctypes.pointer(capi.Region(x2=1e9, y2=float("nan")))
    bad = examples(capi.Example(**good, region=outside))
    assert "examples[0].region" in refused(pair, "describe", own, **bad)
    for verb, argument in (("ground", (None,)), ("locate", (b"a dog",))):
        assert "examples: only" in refused(pair, verb, *argument, **examples(capi.Example(**good)))


def test_wrong_arrays_of_examples_are_refused(pair, shot):
    many = examples(*[capi.Example(image=shot[1], answer=b"x")] * 65)
    assert "examples: expected at most 64, got 65" in refused(pair, "caption", **many)
    assert "examples: expected at most 64, got 18446744073709551615" in refused(
        pair, "caption", examples=many["examples"], example_count=2**64 - 1
    )
    assert "got NULL" in refused(pair, "caption", example_count=1)
    for number, size, why in [
        (0, 0, "examples[0].struct_size"),
        (0, 7, "examples[0].struct_size"),
        (0, 4104, "examples[0].struct_size"),
        (1, 8, "examples[1].struct_size: expected"),
    ]:
        wrong = examples(*[capi.Example(image=shot[1], answer=b"x") for _ in range(2)])
        wrong["examples"][number].struct_size = size
        assert why in refused(pair, "caption", **wrong)


def test_an_image_of_another_model_is_no_example(pair):
    other = capi.load(grounded_file(), threads=1)
    image = capi.encode(other, picture())
    message = refused(pair, "caption", **examples(capi.Example(image=image, answer=b"x")))
    assert "examples[0].image" in message and "only with the model that encoded it" in message
    lib().kosmos_image_free(image)
    lib().kosmos_model_free(other)


@pytest.mark.parametrize(
    ("verb", "template", "why"),
    [
        ("caption", "What {question}", "expected no {question}"),
        ("caption", " ", "template_text"),
        ("caption", "{answer}", "expected no {answer}"),
        ("ask", "no place", "exactly one {question}"),
        ("ask", "{question}{question}", "exactly one {question}"),
        ("locate", "{question}", "template"),
        ("ground", "x", "template_text: only"),
    ],
)
def test_wrong_formats_are_refused(pair, verb, template, why):
    arguments = {"caption": (), "ask": ("Who?",), "locate": ("a dog",), "ground": ("a dog",)}[verb]
    message = refused(pair, verb, *[a.encode() for a in arguments], template_text=template.encode())
    assert why in message
    with pytest.raises(InvalidRequest, match="template"):
        getattr(pair.python, verb)(pair.array, *arguments, template=template)
    with pytest.raises(InvalidRequest, match="template"):
        pair.python.generate(["a"], template=template)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, math.inf])
def test_min_score_has_a_range(pair, wrong):
    assert "min_score: expected 0..1" in refused(pair, "caption", min_score=wrong)


def test_free_sequences_take_no_examples(pair, shot):
    segments = (capi.Segment * 1)(capi.Segment(kind=1, text=b"a"))
    options = capi.Options(**examples(capi.Example(image=shot[1], answer=b"x")))
    with pytest.raises(capi.CError, match="examples: only"):
        make("generate", pair.model, segments, c_size_t(1), byref(options))


def test_a_program_of_the_header_before_examples(pair):
    """Its options end before them, whatever the memory behind holds."""
    options = capi.Options(example_count=9, min_score=7.0, **LENGTH)
    options.struct_size = capi.Options.examples.offset
    assert options.struct_size < sizeof(options)
    c = capi.read(make("caption", pair.model, pair.image, byref(options)))
    assert c["ids"] == pair.c("caption", **LENGTH)["ids"]
    entity, result = (
        capi.Entity(found_score=5.0),
        make("locate", pair.model, pair.image, b"a red circle", byref(options)),
    )
    entity.struct_size = capi.Entity.found_score.offset
    info = capi.ResultInfo()
    call("result_get", result, byref(info))
    if info.entity_count:
        call("result_get_entity", result, c_size_t(0), byref(entity))
        assert entity.found_score == 5.0 and entity.box_count >= 1
    lib().kosmos_result_free(result)


# ---- conversations


def turns(*given: capi.Turn) -> dict:
    return {"turns": (capi.Turn * len(given))(*given), "turn_count": len(given)}


def test_a_conversation_has_the_answers_of_python(pair, shot):
    array, image = shot
    chat = pair.python.chat(pair.array)
    first, second = chat.ask("What is it?", **LENGTH), chat.ask("Why?", **LENGTH)
    third = chat.ask("And this?", image=array, **LENGTH)
    told = [("What is it?", first, pair.image), ("Why?", second, None)]
    given = [capi.Turn(image=i, question=q.encode(), answer=a.text.encode()) for q, a, i in told]

    def ask(shown, question, so_far):
        options = capi.Options(**turns(*so_far), **LENGTH)
        return capi.read(make("ask", pair.model, shown, question, byref(options)))

    same(pair.c("ask", b"What is it?", **LENGTH), first)
    same(ask(None, b"Why?", given[:1]), second)
    same(ask(image, b"And this?", given), third)


def test_turns_that_are_refused(pair):
    good = {"question": b"What?", "answer": b"A dog."}
    assert "turns: only ask" in refused(pair, "caption", **turns(capi.Turn(**good)))
    assert "turns[0].question" in refused(pair, "ask", b"Why?", **turns(capi.Turn(answer=b"x")))
    assert "turns[0].answer: expected a text, got NULL" in refused(
        pair, "ask", b"Why?", **turns(capi.Turn(question=b"x"))
    )
    assert "turns[0].answer: not well-formed" in refused(
        pair, "ask", b"Why?", **turns(capi.Turn(question=b"x", answer=b"\xff"))
    )
    assert "turns: expected at most 1024, got NULL" in refused(pair, "ask", b"Why?", turn_count=1)
    assert "image" in refused_without_image(pair)


def refused_without_image(pair) -> str:
    with pytest.raises(capi.CError) as error:
        make("ask", pair.model, None, b"Why?", byref(capi.Options(**LENGTH)))
    return error.value.message
