"""An answer from a list is one of the given texts, character for character, or the request is refused at once."""

import itertools
from ctypes import byref, c_size_t
from typing import Any

import pytest
from helpers import capi
from helpers.api_model import picture

import kosmos_edge
from kosmos_edge import Model, TextDelta, hub
from kosmos_edge.errors import InvalidRequest

PLAIN = ["red", "a red circle", "a red circle on a blue square", "42", "No, it is not.", "a < b", "a > b", "don't"]
# Given text -> what the published normaliser and vocabulary (or the reading of tags) would make of it.
REFUSED = {
    "red  circle": "red circle",
    "red\ncircle": "red circle",
    "red\tcircle": "red circle",
    " red": "red",
    "red ": "red",
    "red\u3000circle": "red circle",
    "\uff52\uff45\uff44": "red",  # full width
    "H\u2082O": "H2O",
    "\u2460": "1",
    "e\u0301": "",  # composed to a character that nano does not know
    "red\u200b": "red",
    "\U0001f600": "",
    "red \U0001f600": "red",
    "<phrase>red</phrase>": "red",
    "a <b> c": "a c",
    "</s>": "",
}


@pytest.fixture(scope="module")
def nano() -> Model:
    if not hub.nano_path().is_file():
        pytest.skip("this checkout has no packaged model")
    return kosmos_edge.load("nano", threads=1)


def texts_of(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_tokenizer_cannot_write_is_refused_by_name(nano: Model, text: str) -> None:
    """With the choice and with what it would become; before the picture is even opened."""
    quoted = text.replace("\n", "\\x0a").replace("\t", "\\x09")
    calls = [
        lambda c: nano.ask("no picture.png", "What?", choices=c),
        lambda c: nano.generate(["What is it?"], choices=c),
        lambda c: list(nano.ask("no picture.png", "What?", choices=c, stream=True)),
        lambda c: nano.batch([], "ask", question="What?", choices=c),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest) as error:
            call(["a dog", text])
        message = str(error.value)
        assert message.startswith(f'choices[1]: no answer can be exactly "{quoted}"') and "\n" not in message
        assert " ".join(message.rpartition('the text "')[2].rstrip('"').split()) == REFUSED[text]


def test_long_choices_are_cut_in_the_message(nano: Model) -> None:
    with pytest.raises(InvalidRequest, match=r'choices\[0\]: .*\.\.\."') as error:
        nano.generate(["x"], choices=["red  circle " * 5000])
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0}, {"num_beams": 3}, {"no_repeat_ngram_size": 1}])
def test_every_way_to_an_answer_gives_a_choice_itself(nano: Model, options: dict[str, Any]) -> None:
    seen = set()
    for seed, count in itertools.product(range(3), (1, 2, len(PLAIN))):
        choices = PLAIN[-count:] if seed % 2 else PLAIN[:count]
        sampled = {"seed": seed} if "temperature" in options else {}
        for question in ("What is this?", "Is it a red circle on a blue square?"):
            answer = nano.ask(picture(seed), question, choices=choices, **options, **sampled)
            assert answer.text in choices and answer.finish_reason in ("choice", "stop")
            seen.add(answer.text)
            events = list(nano.ask(picture(seed), question, choices=choices, stream=True, **options, **sampled))
            assert texts_of(events) == answer.text == events[-1].result.text
    batch = nano.batch([picture(s) for s in range(3)], "ask", question="What is this?", choices=PLAIN, **options)
    assert all(answer.text in PLAIN for answer in batch)
    assert len(seen) > 1


def test_a_choice_that_begins_another(nano: Model) -> None:
    """Each can come, whole: the shorter one ends with </s>."""
    nested = ["red", "red circle", "red circle and"]
    seen = {nano.ask(picture(), "?", choices=nested, temperature=50.0, seed=s).text for s in range(40)}
    assert seen == set(nested)


def test_max_tokens_never_cuts_a_choice(nano: Model) -> None:
    """One that was asked for and is too small is refused; the model's own makes room."""
    with pytest.raises(InvalidRequest, match=r'max_tokens: expected at least \d+ for choices\[1\], "a red circle"'):
        nano.ask(picture(), "?", choices=["red", "a red circle"], max_tokens=1)
    long = "red circle " * 100 + "."
    given = long.replace(" .", " and")
    assert nano.ask(picture(), "?", choices=[given]).text == given
    tokens = len(nano.ask(picture(), "?", choices=["a red circle"]).token_ids)
    for nested in (["a red circle"], ["a red", "a red circle"]):
        for seed in range(5):
            answer = nano.ask(picture(), "?", choices=nested, max_tokens=tokens, temperature=50.0, seed=seed)
            assert answer.text in nested and answer.finish_reason == "choice"


def test_stop_texts_never_cut_a_choice(nano: Model) -> None:
    with pytest.raises(InvalidRequest, match=r'the stop text "d c" would end choices\[0\], "a red circle"'):
        nano.ask(picture(), "?", choices=["a red circle", "x"], stop=["z", "d c"])
    assert nano.ask(picture(), "?", choices=["a red circle"], stop=["z", "circles", "\n"]).text == "a red circle"
    with pytest.raises(InvalidRequest, match='the stop text " " would end'):  # the blank behind the question
        nano.ask(picture(), "?", choices=["red"], stop=" ", lead_in=True)


def test_words_of_the_prompt_go_before_only_with_lead_in(nano: Model) -> None:
    prompt = ["<grounding><phrase> It</phrase>"]
    assert nano.generate(prompt, raw=True, choices=["red"]).text == "red"
    assert nano.generate([*prompt], raw=True, choices=["red"], lead_in=True).text == "It red"
    assert nano.ask(picture(), "Who?", choices=["a > b"], lead_in=True).text == "Question: Who? Answer: a > b"
    with pytest.raises(InvalidRequest, match=r'choices\[0\]: no answer can be exactly "a > b"'):  # from < to > is a tag
        nano.ask(picture(), "3 < 5?", choices=["a > b"], lead_in=True)
    assert nano.ask(picture(), "3 < 5?", choices=["a > b"]).text == "a > b"


def test_in_a_worker_process(nano: Model) -> None:
    with kosmos_edge.load("nano", threads=1, isolation="process") as model:
        for call in (
            lambda: model.ask(picture(), "?", choices=["red  circle"]),
            lambda: model.batch([], "ask", question="?", choices=["red  circle"]),
        ):
            with pytest.raises(InvalidRequest, match=r'choices\[0\]: no answer can be exactly "red  circle"'):
                call()
        given = "red circle " * 90 + "and"
        assert [a.text for a in model.batch([picture()], "ask", question="?", choices=[given])] == [given]


def c_answer(verb: str, *arguments: Any, choices: list[str], stop: tuple[str, ...] = (), **options: Any) -> dict:
    given, stops = capi.texts(*choices), capi.texts(*stop)
    lists = {"choices": given, "choice_count": len(choices), "stop": stops, "stop_count": len(stop)}
    return capi.read(capi.make(verb, *arguments, byref(capi.Options(**lists, **options))))


def test_through_the_c_interface(nano: Model) -> None:
    """The same answers and the same refusals, alone and in a batch."""
    model = capi.load(nano.path, threads=1)
    image = capi.encode(model, picture())

    def ask(**options: Any) -> dict:
        return c_answer("ask", model, image, b"Who? 3 < 5", **options)

    for text in REFUSED:
        with pytest.raises(capi.CError, match=r"choices\[1\]: no answer can be exactly") as error:
            ask(choices=["a dog", text])
        assert error.value.code == capi.INVALID
        with pytest.raises(InvalidRequest) as python:
            nano.ask(picture(), "Who? 3 < 5", choices=["a dog", text])
        assert error.value.message == str(python.value)
    assert ask(choices=PLAIN)["text"] == nano.ask(picture(), "Who? 3 < 5", choices=PLAIN).text
    given = "red circle " * 90 + "and"
    assert ask(choices=[given])["text"] == given  # more tokens than the default of max_tokens
    for wrong, why in [
        ({"choices": ["red circle"], "max_tokens": 1}, "max_tokens: expected at least 2"),
        ({"choices": ["red circle"], "stop": ("d c",)}, 'the stop text "d c" would end'),
        ({"choices": ["a > b"], "lead_in": 1}, 'no answer can be exactly "a > b"'),
    ]:
        with pytest.raises(capi.CError, match=why):
            ask(**wrong)
    words = (capi.Segment * 1)(capi.Segment(kind=2, text=b"<grounding><phrase> It</phrase>"))
    assert c_answer("generate", model, words, c_size_t(1), choices=["red"])["text"] == "red"
    for handle, free in ((image, "image"), (model, "model")):
        getattr(capi.lib(), f"kosmos_{free}_free")(handle)
