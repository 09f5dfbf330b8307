"""The prompts of the abilities that are made of other verbs: classify, reason, iq and webqa, word for word.

The prompts are those of the KOSMOS-1 paper where it prints them. They are made for models that continue text. Chat
models, and others whose prompts say where the image stands, get the same words in their own question format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.prompts import PictureSegment, PlanSegment
from kosmos_edge.inference.tasks import Plan, check_examples, plan_ask, plan_caption, plan_generate, plan_turn
from kosmos_edge.options import check_text, check_texts

PHOTO_OF = "The photo of the"  # ImageNet
INTRODUCE = "Introduce this picture in detail:"
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
WEB = (  # as printed, with its misspelling
    "Given the context below from web page, extract the answer from the given text like this: Qusestion: Who is the "
    "publisher of this book? Answer: Penguin Books Ltd."
)


def continues_text(info: Mapping[str, Any]) -> bool:
    """Whether the model's prompts are words behind an image, as in KOSMOS-1 and 2; False for chat models and others
    whose prompts have a place for the image."""
    prompts = info["prompts"]
    return bool(prompts["caption"]) and "{image}" not in prompts["caption"] and not prompts.get("system")


def ask_words(info: Mapping[str, Any], question: str) -> str:
    """The question in the model's question format."""
    form: str = info["prompts"]["question"]
    return form.replace("{question}", question)


def plan_sequence(info: Mapping[str, Any], segments: Sequence[str | PictureSegment]) -> Plan:
    """Images and plain texts in this order. An image's path may be a string: the segment says that it is an image."""
    plan = plan_generate(info, segments, False, False, False)
    plan.segments = [segment.source if isinstance(segment, PictureSegment) else segment for segment in plan.segments]
    return plan


# ---- classify


def plan_classify(
    info: Mapping[str, Any],
    image: Any,
    labels: Sequence[str],
    question: object,
    prompt: object,
    descriptions: object,
    category: object,
    examples: object,
) -> Plan:
    """What the labels stand behind. InvalidRequest for forms that contradict each other."""
    asked = [
        name
        for name, value in (("question", question), ("prompt", prompt), ("category", category))
        if value is not None
    ]
    if len(asked) > 1:
        raise InvalidRequest(f"{' and '.join(asked)}: expected one of them")
    if descriptions is not None and category is None:
        raise InvalidRequest("descriptions: expected with category, what all labels are, such as 'woodpecker'")
    shots = [
        (shot, check_text(f"examples[{number}]", label))
        for number, (shot, label) in enumerate(check_examples("examples", examples, 2, "(image, label)"))
    ]
    if question is not None:
        return plan_ask(info, image, question, False, None, False, [(shot, question, label) for shot, label in shots])
    if category is not None:
        before = _described(labels, descriptions, check_text("category", category))
        what = f"what is the name of the {category} in the picture?"
        if not continues_text(info):
            words = f"{before} {what}"
            return plan_ask(info, image, words, False, None, False, [(shot, words, label) for shot, label in shots])
        form = ask_words(info, what)
        parts: list[str | PictureSegment] = [before]
        for shot, label in shots:
            parts += [PictureSegment(shot), f"{form} {label}"]
        return plan_sequence(info, [*parts, PictureSegment(image), form])
    if prompt is None and not continues_text(info) and not info["embedding"]:  # plan_caption refuses that
        raise InvalidRequest("expected a question or a category: this model has a prompt for questions alone")
    template = PHOTO_OF if prompt is None else check_text("prompt", prompt)
    return plan_caption(info, image, "short", False, False, shots, template)


def _described(labels: Sequence[str], descriptions: object, category: str) -> str:
    """A sentence for each label, or one with all labels."""
    if descriptions is None:
        if len(labels) < 2:
            raise InvalidRequest(f"labels: expected at least 2 with category, got {len(labels)}")
        return f"The {category} is either {', '.join(labels[:-1])} or {labels[-1]}."
    if not isinstance(descriptions, Mapping):
        raise InvalidRequest(f"descriptions: expected texts by label, got {type(descriptions).__name__}")
    missing = [label for label in labels if label not in descriptions]
    if missing or len(descriptions) > len(set(labels)):
        more = [label for label in descriptions if label not in labels]
        wrong = f"none for {missing[0]!r}" if missing else f"one for {more[0]!r}, which is no label"
        raise InvalidRequest(f"descriptions: expected one for every label, got {wrong}")
    texts = [(label, check_text(f"descriptions[{label!r}]", descriptions[label]).strip()) for label in labels]
    return " ".join(f"Description of {label}: {text}" for label, text in texts)


def with_blank(segments: Sequence[PlanSegment]) -> list[PlanSegment]:
    """The segments with a blank at the end, which belongs to the texts that are ranked behind them."""
    out = list(segments)
    last = out[-1]
    if not isinstance(last, tuple):
        out.append(("text", " "))
    elif not last[1][-1:].isspace():
        out[-1] = (last[0], last[1] + " ")
    return out


# ---- reason


def check_rationales(examples: object) -> list[tuple[Any, str, str, str]]:
    """(image, question, rationale, answer)."""
    out = []
    found = check_examples("examples", examples, 4, "(image, question, rationale, answer)")
    for number, (shot, *texts) in enumerate(found):
        asked, rationale, answer = (check_text(f"examples[{number}]", text) for text in texts)
        out.append((shot, asked, rationale, answer))
    return out


def plan_rationale(
    info: Mapping[str, Any], image: Any, prompt: str, examples: Iterable[tuple[Any, str, str, str]]
) -> Plan:
    """Stage 1: the image and the words that ask for a description."""
    if not continues_text(info):
        shots = [(shot, prompt, rationale) for shot, _, rationale, _ in examples]
        return plan_ask(info, image, prompt, False, None, False, shots)
    parts: list[str | PictureSegment] = []
    for shot, _, rationale, _ in examples:
        parts += [PictureSegment(shot), f"{prompt} {rationale}"]
    return plan_sequence(info, [*parts, PictureSegment(image), prompt])


def plan_conclusion(
    info: Mapping[str, Any],
    image: Any,
    prompt: str,
    rationale: str,
    question: str,
    examples: Iterable[tuple[Any, str, str, str]],
) -> Plan:
    """Stage 2: the image, the rationale and the question; a conversation for models that have turns."""
    if not continues_text(info):
        turns: list[tuple[Any, str, str]] = []
        for shot, asked, said, answer in examples:
            turns += [(shot, prompt, said), (None, asked, answer)]
        return plan_turn(info, [*turns, (image, prompt, rationale)], None, question, False, None)
    parts: list[str | PictureSegment] = []
    for shot, asked, said, answer in examples:
        parts += [PictureSegment(shot), f"{said} {ask_words(info, asked)} {answer}"]
    return plan_sequence(info, [*parts, PictureSegment(image), f"{rationale} {ask_words(info, question)}".lstrip()])


# ---- iq


def matrix_segments(cells: Sequence[Any], candidate: Any) -> list[str | PictureSegment]:
    """Raven's matrix with one candidate in its free place, cells row by row."""
    if not 1 <= len(cells) <= len(NUMBERS):
        raise InvalidRequest(f"pictures: expected 1..{len(NUMBERS)} of them, got {len(cells)}")
    plural = "images" if len(cells) > 1 else "image"
    verb = "are" if len(cells) > 1 else "is"
    words = f"Here {verb} {NUMBERS[len(cells) - 1]} {plural}:"
    shown = [PictureSegment(cell) for cell in cells]
    return [words, *shown, " The following image is:", PictureSegment(candidate), " Is it correct?"]


# ---- webqa


def plan_web(info: Mapping[str, Any], image: Any, question: str, text: str) -> Plan:
    """The page's screenshot (None: without one), its text ("": without one) and the question."""
    words = " ".join([WEB, *([f"Context: {text}"] if text else []), f"Q: {question} A:"])
    if image is not None and not continues_text(info):
        return plan_ask(info, image, words, False, None, False, [])
    return plan_sequence(info, [words] if image is None else [PictureSegment(image), words])


def check_labels(labels: object) -> tuple[str, ...]:
    """1..MAX_TEXTS different texts."""
    checked = check_texts("labels", labels, _core.limits.MAX_TEXTS)
    twice = next((label for number, label in enumerate(checked) if label in checked[:number]), None)
    if twice is not None:
        raise InvalidRequest(f"labels: expected different ones, got {twice!r} twice")
    return checked
