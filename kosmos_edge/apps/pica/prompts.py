"""Prompts for a text-only language model, character by character as published: PICa, PromptCap, ScienceQA.

Pure functions of texts. What stands in a field is data and cannot begin a line of the format: line ends become the two
characters \\n, as ScienceQA writes those of its lectures, and "===", which separates PICa's parts, becomes "= = =".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kosmos_edge.errors import InvalidRequest

Style: TypeAlias = Literal["pica", "promptcap"]
_BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BAR = re.compile("={3,}")
LETTERS = "ABCDE"  # of ScienceQA's options
_HEAD = "Please answer the question according to the above context."


@dataclass(frozen=True, slots=True)
class Shot:
    """An example in a prompt."""

    context: str
    question: str
    answer: str


def context_of(caption: str, tags: Sequence[str], style: Style = "pica") -> str:
    """A caption and tags as one context: "caption. tag, tag" (PICa), "caption tag, tag" (PromptCap)."""
    caption, words = one_line(caption), ", ".join(one_line(tag) for tag in tags)
    if not words:
        return caption
    return f"{caption.rstrip('.')}. {words}" if style == "pica" else f"{caption} {words}"


def question_prompt(shots: Sequence[Shot], context: str, question: str, style: Style = "pica") -> str:
    """The prompt of one question. shots: the most similar first; PromptCap's prompt has it last."""
    if style not in ("pica", "promptcap"):
        raise InvalidRequest(f"style: expected pica or promptcap, got {style!r}")
    parts = [f"{_HEAD}\n===\n"]
    for shot in shots if style == "pica" else reversed(shots):
        head = f"Context: {one_line(shot.context)}\n===\nQ: {one_line(shot.question)}\n"
        parts.append(f"{head}A: {one_line(shot.answer)}\n\n===\n")
    parts.append(f"Context: {one_line(context)}\n===\nQ: {one_line(question)}\nA:")
    return "".join(parts)


def one_line(text: str) -> str:
    """The text as it stands in a prompt: no line ends, separators, other control characters and outer blanks."""
    line = _BAR.sub(lambda bar: " ".join(bar[0]), _BREAK.sub(r"\\n", text.strip()))
    return "".join(c if c >= " " and not "\x7f" <= c < "\xa0" else "\ufffd" for c in line.replace("\t", " "))


# ---- ScienceQA

# L is the lecture, E the explanation (the data call it solution). AL and AE are the other way round, as published.
_BEHIND = {"A": "", "AL": "E", "AE": "L", "ALE": "LE", "AEL": "EL"}
_BEFORE = {"LA": "L", "EA": "E", "LEA": "LE", "ELA": "EL"}
_INPUTS = ("CQM", "QCM", "QCML", "QCME", "QCMLE", "QCLM", "QCEM", "QCLEM")


def scienceqa_prompt(shots: Sequence[Mapping[str, Any]], problem: Mapping[str, Any], form: str = "QCM-ALE") -> str:
    """The prompt of a ScienceQA problem. Each is a record of problems.json, with "caption" where a picture has one.

    form: INPUT-OUTPUT as the authors name them: QCM-A, QCM-ALE, QCM-LEA, CQM-A ... InvalidRequest for another one, and
    for a record that lacks a field.
    """
    into, _, out = form.partition("-")
    if into not in _INPUTS or out not in _BEHIND.keys() | _BEFORE.keys():
        raise InvalidRequest(
            f"form: expected INPUT-OUTPUT of {', '.join(_INPUTS)} and {', '.join([*_BEHIND, *_BEFORE])}, got {form!r}"
        )
    texts = [_science(shot, into, out, asked=False) for shot in shots]
    return "\n\n".join([*texts, _science(problem, into, out, asked=True)])


def scienceqa_choice(text: str, choices: int) -> int | None:
    """The number of the option, 0.., in "The answer is B."; None where there is none."""
    _, found, after = text.partition("The answer is ")
    letter = after[:1]
    if not found or after[1:2] != "." or letter not in LETTERS[:choices] or not letter:
        return None
    return LETTERS.index(letter)


def _science(problem: Mapping[str, Any], into: str, out: str, *, asked: bool) -> str:
    try:
        choices = problem["choices"]
        if not 1 <= len(choices) <= len(LETTERS):
            raise InvalidRequest(f"a ScienceQA problem: expected 1..{len(LETTERS)} choices, got {len(choices)}")
        context = one_line(" ".join([problem["hint"], problem.get("caption") or ""])) or "N/A"
        told = {"L": problem.get("lecture") or "", "E": problem.get("solution") or ""}
        told = {name: one_line(text) for name, text in told.items()}
        options = " ".join(f"({LETTERS[n]}) {one_line(choice)}" for n, choice in enumerate(choices))
        lines = {
            "Q": f"Question: {one_line(problem['question'])}\n",
            "C": f"Context: {context}\n",
            "M": f"Options: {options}\n",
        }
        right = problem["answer"] if not asked else 0
        if right not in range(len(choices)):
            raise InvalidRequest(f"a ScienceQA problem: answer: expected 0..{len(choices) - 1}, got {right!r}")
        answer = "" if asked else f"The answer is {LETTERS[right]}."
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"a ScienceQA problem: {type(error).__name__}: {error}") from error
    because = " ".join(told[name] for name in into if name in told)
    text, said = "", False
    for name in into:
        if name in lines:
            text += lines[name]
        elif not said:
            text, said = text + f"BECAUSE: {because}\n", True
    if asked:
        text += "Answer:"
    elif out in _BEFORE:
        text += f"Answer: {' '.join(told[name] for name in _BEFORE[out])} {answer}"
    else:
        behind = " ".join(told[name] for name in _BEHIND[out])
        text += f"Answer: {answer}" + (f" BECAUSE: {behind}" if out != "A" else "")
    text = text.replace("  ", " ").strip()
    return text.replace("BECAUSE:", "").strip() if text.endswith("BECAUSE:") else text


__all__ = [
    "LETTERS",
    "Shot",
    "Style",
    "context_of",
    "one_line",
    "question_prompt",
    "scienceqa_choice",
    "scienceqa_prompt",
]
