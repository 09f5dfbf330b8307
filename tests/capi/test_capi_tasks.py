"""The C interface and the Python package give the same answers, task by task."""

import ctypes
import math
from ctypes import byref, c_size_t

import pytest
from helpers import capi
from helpers.api_model import grounded_file, picture
from helpers.capi import call, lib, make, texts
from helpers.capi_pair import Pair, from_nano, same

from kosmos_edge import Box


@pytest.fixture(scope="module", params=["nano", "grounded"])
def pair(request):
    """Nano on an example; and random weights that write boxes all the time, well formed or not."""
    return from_nano() if request.param == "nano" else Pair(grounded_file(), picture())


LENGTH = {"max_tokens": 32}


@pytest.mark.parametrize("ground", [False, True])
@pytest.mark.parametrize("length", ["short", "long"])
@pytest.mark.parametrize("lead_in", [False, True])
def test_caption(pair, ground, length, lead_in):
    expected = pair.python.caption(pair.array, length=length, ground=ground, lead_in=lead_in, **LENGTH)
    same(
        pair.c("caption", ground=int(ground), detailed=int(length == "long"), lead_in=int(lead_in), **LENGTH), expected
    )


@pytest.mark.parametrize("prompt", [None, "A picture of a <phrase> & 日本", "The"])
def test_ground(pair, prompt):
    expected = pair.python.ground(pair.array, prompt, **LENGTH)
    same(pair.c("ground", prompt and prompt.encode(), **LENGTH), expected)


@pytest.mark.parametrize("phrase", ["a red circle", "the é 🦔", "</phrase> it"])
def test_locate(pair, phrase):
    same(pair.c("locate", phrase.encode(), **LENGTH), pair.python.locate(pair.array, phrase, **LENGTH))


@pytest.mark.parametrize("ground", [None, True, False])
@pytest.mark.parametrize("normalized", [False, True])
def test_describe(pair, ground, normalized):
    box = (0.1, 0.2, 0.55, 0.7) if normalized else (pair.width / 3, 1.5, pair.width, pair.height - 2)
    ask = {} if ground is None else {"ground": ground}
    expected = pair.python.describe(pair.array, box, normalized=normalized, **ask, **LENGTH)
    region = capi.Region(**dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)), unit=int(normalized))
    switch = 0 if ground is None else 1 if ground else -1
    same(pair.c("describe", byref(region), ground=switch, **LENGTH), expected)


@pytest.mark.parametrize("question", ["What colour is the square?", "Is <object> here?"])
def test_ask(pair, question):
    same(pair.c("ask", question.encode(), **LENGTH), pair.python.ask(pair.array, question, **LENGTH))


def test_tags_in_plain_texts_are_told(pair):
    """In a note, once for each tag; not in raw text, where they are tags."""
    stop = texts("</object>", "x")
    c = pair.c("ask", b"Is <object> or <grounding> here?", stop=stop, stop_count=2, **LENGTH)
    assert len(c["notes"]) == 2 and "'<object>' in a text is read as plain" in c["notes"][0]
    assert "'</object>' in a stop text never comes" in c["notes"][1]
    same(c, pair.python.ask(pair.array, "Is <object> or <grounding> here?", stop=["</object>", "x"], **LENGTH))

    def tags(result):
        return [note.split()[0] for note in result.notes if "was not trained for" not in note]

    assert tags(pair.python.ask(pair.array, "Is 3 < 5 > 2, </s>?", **LENGTH)) == []
    assert tags(pair.python.generate([pair.array, "<grounding> x"], raw=True, **LENGTH)) == []
    twice = pair.python.generate([pair.array, "<grounding> x", "y <grounding>", "<phrase>"], **LENGTH)
    assert tags(twice) == ["'<grounding>'", "'<phrase>'"]
    ranking = pair.python.score(pair.array, ["a <phrase>", "b"], template="<grounding> {text} is")
    assert tags(ranking) == ["'<phrase>'"]  # tags in the template are tags


def test_ask_with_choices(pair):
    answers = ["red", "blue", "dark green"]
    given = texts(*answers)
    c = pair.c("ask", b"What colour?", choices=given, choice_count=3, **LENGTH)
    same(c, pair.python.ask(pair.array, "What colour?", choices=answers, **LENGTH))
    assert c["finish"] == "choice" and c["text"] in answers


def test_generate_any_interleaving(pair):
    grounding, phrase = "<grounding><phrase> a thing</phrase>", "and"
    boxes = (capi.Region * 2)(capi.Region(x1=0, y1=0, x2=0.5, y2=0.5, unit=1), capi.Region(x1=1, y1=1, x2=9, y2=9))
    segments = (capi.Segment * 5)(
        capi.Segment(kind=3, image=pair.image),
        capi.Segment(kind=2, text=grounding.encode()),
        capi.Segment(kind=4, boxes=boxes, box_count=2),
        capi.Segment(kind=2, text=phrase.encode()),
        capi.Segment(kind=3, image=pair.image),
    )
    options = capi.Options(**LENGTH)
    c = capi.read(make("generate", pair.model, segments, c_size_t(5), byref(options)))
    pixels = Box.from_pixels(1, 1, 9, 9, width=pair.width, height=pair.height)
    boxed = [Box.from_normalized(0, 0, 0.5, 0.5), pixels]
    image = pair.python.encode(pair.array)
    same(c, pair.python.generate([image, grounding, boxed, phrase, image], raw=True, **LENGTH))


def test_generate_from_text_alone(pair):
    segments = (capi.Segment * 1)(capi.Segment(kind=1, text=b"Here <grounding> is"))
    c = capi.read(make("generate", pair.model, segments, c_size_t(1), byref(capi.Options(**LENGTH))))
    same(c, pair.python.generate("Here <grounding> is", **LENGTH))


SAMPLING = [
    {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "seed": 5},
    {"num_beams": 3},
    {"num_beams": 2, "length_penalty": 0.0},
    {"no_repeat_ngram_size": 0},
    {"repetition_penalty": 1.7},
    {"grammar": False},
    {"max_tokens": 1},
]


@pytest.mark.parametrize("options", SAMPLING, ids=str)
def test_options_mean_the_same(pair, options):
    expected = pair.python.caption(pair.array, ground=True, **LENGTH | options)
    given = dict(options)
    if "length_penalty" in given:
        given["use_length_penalty"] = 1
    if given.get("no_repeat_ngram_size") == 0:
        given["no_repeat_ngram_size"] = -1
    if "grammar" in given:
        given["grammar"] = -1
    same(pair.c("caption", ground=1, **LENGTH | given), expected)


def test_stop_texts_mean_the_same(pair):
    whole = pair.python.caption(pair.array, **LENGTH).text
    words = [w for w in (whole[4:6], whole[-3:], "🦔", " ") if w]
    for word in words:
        expected = pair.python.caption(pair.array, stop=word, **LENGTH)
        same(pair.c("caption", stop=texts(word), stop_count=1, **LENGTH), expected)


def test_the_likeliest_tokens(pair):
    c = pair.c("caption", top_logprobs=4, **LENGTH)
    expected = pair.python.caption(pair.array, top_logprobs=4, **LENGTH)
    assert c["top"] == [[(t.token_id, t.logprob) for t in place] for place in expected.top_logprobs]
    assert c["logprobs"] == expected.logprobs and not any(map(math.isnan, c["logprobs"]))
    assert pair.c("caption", **LENGTH)["top"] == []


def test_logprobs_of_every_token(pair):
    c = pair.c("caption", logprobs=1, **LENGTH)
    expected = pair.python.caption(pair.array, logprobs=True, **LENGTH)
    assert c["logprobs"] == expected.logprobs and not any(map(math.isnan, c["logprobs"]))
    first, begin, end = map(pair.python._open.engine.tokenizer.find, ("<patch_index_0000>", "<phrase>", "</phrase>"))
    for ground in (0, 1):
        unasked, in_phrase, wanted = pair.c("caption", ground=ground, **LENGTH), False, []
        for token in unasked["ids"]:
            in_phrase = token == begin or (in_phrase and token != end)
            wanted.append(first <= token < first + 1024 or (in_phrase and token != begin))
        assert [not math.isnan(v) for v in unasked["logprobs"]] == wanted
        assert any(wanted) or not ground


@pytest.mark.parametrize("template", [None, "{text} is a thing", "It is {text}, I think"])
@pytest.mark.parametrize("normalize", ["sum", "mean"])
def test_score(pair, template, normalize):
    given = ["a red circle", "blue", "two green squares on a 日本 table", "blue"]
    expected = pair.python.score(pair.array, given, template, normalize=normalize)
    options = capi.ScoreOptions(template_text=template and template.encode(), normalize=int(normalize == "mean"))
    ranking = make("score", pair.model, pair.image, texts(*given), c_size_t(4), byref(options))
    assert lib().kosmos_ranking_count(ranking) == 4
    for rank, row in enumerate(expected.ranking):
        info = capi.ScoreInfo()
        call("ranking_get", ranking, c_size_t(rank), byref(info))
        assert given[info.index] == row.text
        assert info.token_ids[: info.token_count] == row.token_ids
        assert info.logprobs[: info.token_count] == row.logprobs
        assert info.logprob_sum == math.fsum(row.logprobs)
        for name in ("score", "share", "logprob_sum", "logprob_mean"):
            assert getattr(info, name) == getattr(row, name)
    about = capi.RankingInfo()
    call("ranking_get_info", ranking, byref(about))
    assert (about.count, about.token_count) == (4, expected.timings.tokens)
    assert (about.width, about.height) == (expected.width, expected.height)
    assert (about.device.decode(), about.model.decode()) == (expected.device, expected.model)
    assert [note.decode() for note in about.notes[: about.note_count]] == expected.notes
    with pytest.raises(capi.CError, match="rank"):
        call("ranking_get", ranking, c_size_t(4), byref(capi.ScoreInfo()))
    lib().kosmos_ranking_free(ranking)


def test_score_without_a_picture(pair):
    ranking = make("score", pair.model, None, texts("a", "b"), c_size_t(2), None)
    info = capi.ScoreInfo()
    call("ranking_get", ranking, c_size_t(0), byref(info))
    assert ["a", "b"][info.index] == pair.python.score(None, ["a", "b"]).best.text
    lib().kosmos_ranking_free(ranking)
    options = capi.ScoreOptions(template_text=b"{text}")
    with pytest.raises(capi.CError, match="without a picture"):
        make("score", pair.model, None, texts("a"), c_size_t(1), byref(options))
    given = texts("a <phrase> b", "c")
    ranking = make(
        "score", pair.model, None, given, c_size_t(2), byref(capi.ScoreOptions(template_text=b"It is {text}"))
    )
    about = capi.RankingInfo()
    call("ranking_get_info", ranking, byref(about))
    notes = [note.decode() for note in about.notes[: about.note_count]]
    assert notes == pair.python.score(None, ["a <phrase> b", "c"], "It is {text}").notes
    assert "'<phrase>' in a text is read as plain characters" in notes[0] and (about.width, about.height) == (0, 0)
    lib().kosmos_ranking_free(ranking)
    for bad in (b"no place", b"{text}{text}", b"", b"\xff{text}"):
        with pytest.raises(capi.CError, match="template"):
            make("score", pair.model, pair.image, texts("a"), c_size_t(1), byref(capi.ScoreOptions(template_text=bad)))


# ---- events


def run_with_events(pair, verb, *arguments, stop_after=None, **options):
    """The result and [("token", id) | ("text", text) | ("entity", phrase, boxes)]."""
    events = []

    @capi.OnEvent
    def on_event(event, user):
        e = event.contents
        assert user == 1234 and e.struct_size == ctypes.sizeof(capi.Event)
        if e.kind == 1:
            events.append(("token", e.token_id))
        elif e.kind == 2:
            events.append(("text", ctypes.string_at(e.text, e.text_length).decode()))
        else:
            entity = e.entity.contents
            events.append(("entity", entity.phrase.decode(), entity.box_count))
        return int(stop_after is not None and len(events) >= stop_after)

    return pair.c(verb, *arguments, on_event=on_event, user=1234, **options), events


@pytest.mark.parametrize(
    "options", [{}, {"ground": 1}, {"grammar": -1, "ground": 1}, {"num_beams": 2}, {"lead_in": 1}], ids=str
)
def test_events_add_up_to_the_result(pair, options):
    result, events = run_with_events(pair, "caption", **LENGTH | options)
    assert result["ids"] == pair.c("caption", **LENGTH | options)["ids"]
    assert [e[1] for e in events if e[0] == "token"] == result["ids"]
    assert "".join(e[1] for e in events if e[0] == "text") == result["text"]
    found = [(e[1], e[2]) for e in events if e[0] == "entity"]
    assert found == [(phrase, len(boxes)) for phrase, _, _, boxes in result["entities"]]


def test_events_respect_stop_texts(pair):
    whole = pair.c("caption", **LENGTH)["text"]
    result, events = run_with_events(pair, "caption", stop=texts(whole[6:8]), stop_count=1, **LENGTH)
    assert "".join(e[1] for e in events if e[0] == "text") == result["text"]
    assert result["finish"] == "stop_string" and whole.startswith(result["text"])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_event_callback_can_end_the_answer(pair, count):
    for verb, arguments in (("caption", ()), ("locate", (b"a red circle",))):
        result, events = run_with_events(pair, verb, *arguments, stop_after=count, **LENGTH)
        if len(events) < count:
            continue  # it was over before
        assert result["finish"] == "callback" and len(events) == count
        assert len(result["ids"]) == sum(e[0] == "token" for e in events) >= 1


# ---- what an image keeps


def test_a_kept_image_is_not_computed_again_and_answers_the_same(pair):
    kept, bare = capi.encode(pair.model, pair.array), capi.encode(pair.model, pair.array, keep=-1)

    def answer(image, question: bytes) -> dict:
        return capi.read(make("ask", pair.model, image, question, byref(capi.Options(max_tokens=6))))

    first, second = answer(kept, b"What is this?"), answer(kept, b"What colour is it?")
    plain = answer(bare, b"What is this?"), answer(bare, b"What colour is it?")
    assert [first["ids"], second["ids"]] == [p["ids"] for p in plain]
    assert [first["text"], second["text"]] == [p["text"] for p in plain]
    info = capi.ModelInfo()
    call("model_get", pair.model, byref(info))
    assert info.image_tokens < second["reused"] < second["prompt_tokens"]
    assert max(p["reused"] for p in plain) <= 2  # <s><image> alone
    lib().kosmos_image_free(kept)
    lib().kosmos_image_free(bare)
