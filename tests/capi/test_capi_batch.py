"""kosmos_batch: the answers of single calls, bit for bit, whatever stands beside them and however it ends."""

import ctypes
from ctypes import byref, c_void_p

import pytest
from helpers import capi
from helpers.api_model import grounded_file, picture
from helpers.capi import CANCELLED, INVALID, CError, call, lib, make

CAPTION, GROUND, LOCATE, DESCRIBE, ASK = range(1, 6)
VERBS = {CAPTION: "caption", GROUND: "ground", LOCATE: "locate", DESCRIBE: "describe", ASK: "ask"}


@pytest.fixture(scope="module")
def model():
    return capi.load(grounded_file(), threads=2)


@pytest.fixture(scope="module")
def images(model):
    """Three pictures."""
    array = picture()
    return [capi.encode(model, turned.copy()) for turned in (array, array[::-1], 255 - array)]


def plan(images):
    """(task, image, text, region, options) of many kinds and lengths."""
    region = capi.Region(x1=0.1, y1=0.2, x2=0.6, y2=0.9, unit=1)
    stops = capi.texts("e")
    choices = capi.texts("yes", "no it is not")
    return [
        (CAPTION, images[0], None, None, {"max_tokens": 12, "logprobs": 1}),
        (GROUND, images[1], None, None, {"max_tokens": 24}),
        (LOCATE, images[2], b"a dog", None, {}),
        (DESCRIBE, images[0], None, region, {"max_tokens": 9}),
        (ASK, images[1], b"What is it?", None, {"max_tokens": 3}),
        (ASK, images[2], b"Is it red?", None, {"choices": choices, "choice_count": 2}),
        (CAPTION, images[1], None, None, {"max_tokens": 20, "stop": stops, "stop_count": 1}),
        (CAPTION, images[2], None, None, {"max_tokens": 8, "num_beams": 3}),
        (GROUND, images[0], b"Here is", None, {"max_tokens": 30, "temperature": 0.9, "seed": 5}),
        (CAPTION, images[0], None, None, {"max_tokens": 1, "detailed": 1, "ground": 1}),
    ]


def alone(model, task, image, text, region, options):
    arguments = [text] if task in (GROUND, LOCATE, ASK) else [byref(region)] if task == DESCRIBE else []
    return capi.read(make(VERBS[task], model, image, *arguments, byref(capi.Options(**options))))


def batch(model, requests, size=0, on_answer=None, **more):
    """id -> what the batch said: a result, or a CError."""
    kept, waiting, answers = [], list(enumerate(requests)), {}

    def take(request, _):
        if not waiting:
            return 0
        number, (task, image, text, region, options) = waiting.pop(0)
        kept.append((capi.Options(**options), region))
        given = request.contents
        given.task, given.id, given.image, given.text = task, number, image, text
        given.options = ctypes.pointer(kept[-1][0])
        if region is not None:
            given.region = ctypes.pointer(region)
        return 1

    def give(number, result, error, _):
        assert (result is None) != (error is None) and number not in answers
        if result is not None:
            answers[number] = capi.read(c_void_p(result))
        else:
            answers[number] = CError(lib().kosmos_error_code(error), lib().kosmos_error_message(error).decode())
            lib().kosmos_error_free(error)
        return on_answer(number) if on_answer else 0

    options = capi.BatchOptions(batch_size=size, on_next=capi.OnNext(take), on_answer=capi.OnAnswer(give), **more)
    try:
        call("batch", model, byref(options))
    except CError as error:
        error.answers = answers
        raise
    return answers


def essence(answer: dict) -> str:
    return repr({k: v for k, v in answer.items() if k not in ("ms", "reused")})  # repr: NaN equals NaN


@pytest.mark.parametrize("size", [1, 2, 3, 8, 256])
def test_answers_are_those_of_single_calls(model, images, size):
    requests = plan(images)
    want = [essence(alone(model, *request)) for request in requests]
    got = batch(model, requests, size)
    assert [essence(got[i]) for i in range(len(requests))] == want


def test_a_short_answer_makes_room_before_long_ones_end(model, images):
    lengths = [60, 2, 2, 2]
    order = []
    requests = [(CAPTION, images[0], None, None, {"max_tokens": n, "no_repeat_ngram_size": -1}) for n in lengths]
    batch(model, requests, 2, on_answer=lambda number: order.append(number) or 0)
    assert order == [1, 2, 3, 0]


def test_a_bad_request_ends_alone(model, images):
    requests = plan(images)[:5]
    bad = [
        (9, images[0], None, None, {}),
        (CAPTION, images[0], b"words", None, {}),
        (LOCATE, images[0], None, None, {}),
        (DESCRIBE, images[0], None, None, {}),
        (ASK, images[0], b"\xff", None, {}),
        (CAPTION, None, None, None, {}),
        (CAPTION, images[0], None, None, {"max_tokens": -1}),
    ]
    words = ["task", "text", "phrase", "region", "question", "image", "max_tokens"]
    mixed = [r for pair in zip(bad, requests + requests[:2], strict=True) for r in pair]
    got = batch(model, mixed, 3)
    for i, word in enumerate(words):
        assert got[2 * i].code == INVALID and word in got[2 * i].message
    for i, request in enumerate(requests):
        assert essence(got[2 * i + 1]) == essence(alone(model, *request))


def test_one_answer_is_cancelled_and_the_others_go_on(model, images):
    cancel = make("cancel_create")
    seen = []

    def on_event(event, _):
        if event.contents.kind == 1:
            seen.append(event.contents.token_id)
            if len(seen) == 3:
                call("cancel_set", cancel)
        return 0

    watch = capi.OnEvent(on_event)
    long = {"max_tokens": 40, "no_repeat_ngram_size": -1}
    requests = [
        (CAPTION, images[0], None, None, long | {"cancel": cancel, "on_event": watch}),
        (CAPTION, images[1], None, None, long),
    ]
    got = batch(model, requests)
    assert got[0].code == CANCELLED and len(seen) < 40
    assert essence(got[1]) == essence(alone(model, *requests[1]))
    lib().kosmos_cancel_free(cancel)


def test_events_of_each_answer_are_its_own(model, images):
    texts = {0: b"", 1: b""}

    def watcher(number):
        def on_event(event, _):
            if event.contents.kind == 2:
                texts[number] += ctypes.string_at(event.contents.text, event.contents.text_length)
            return 0

        return capi.OnEvent(on_event)

    requests = [(GROUND, images[i], None, None, {"max_tokens": 25, "on_event": watcher(i)}) for i in (0, 1)]
    got = batch(model, requests)
    assert {i: text.decode() for i, text in texts.items()} == {i: got[i]["text"] for i in (0, 1)}


def test_the_whole_batch_is_cancelled(model, images):
    requests = plan(images)
    cancel = make("cancel_create")
    call("cancel_set", cancel)
    with pytest.raises(CError) as raised:
        batch(model, requests, cancel=cancel)
    assert raised.value.code == CANCELLED and not raised.value.answers
    lib().kosmos_cancel_free(cancel)
    with pytest.raises(CError) as raised:
        batch(model, requests, 2, on_answer=lambda number: number == 4)
    assert raised.value.code == CANCELLED and 4 in raised.value.answers
    polls = []
    with pytest.raises(CError) as raised:
        batch(model, requests, 2, on_abort=capi.Abort(lambda _: polls.append(0) or len(polls) > 30))
    assert raised.value.code == CANCELLED and len(polls) >= 30


def test_arguments(model):
    ready = {"on_next": capi.OnNext(lambda request, _: 0), "on_answer": capi.OnAnswer(lambda *_: 0)}
    call("batch", model, byref(capi.BatchOptions(**ready)))  # nothing to do
    for options, word in [
        (None, "kosmos_batch_options"),
        (capi.BatchOptions(on_next=ready["on_next"]), "on_answer"),
        (capi.BatchOptions(on_answer=ready["on_answer"]), "on_next"),
        (capi.BatchOptions(batch_size=257, **ready), "batch_size"),
        (capi.BatchOptions(batch_size=-1, **ready), "batch_size"),
    ]:
        with pytest.raises(CError) as raised:
            call("batch", model, byref(options) if options else None)
        assert raised.value.code == INVALID and word in raised.value.message
    with pytest.raises(CError) as raised:
        call("batch", None, byref(capi.BatchOptions(**ready)))
    assert raised.value.code == INVALID
