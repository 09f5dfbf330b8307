"""The prompts that recorded goldens and live parity tests run: every task of the model, several pictures, none.

A case is a list of segments in the form that `_core.Engine.generate` takes: ("tags", text), ("boxes", cells) and
("image", n) for the case's n-th picture. "{word}" in a text is filled in when goldens are made, so that a prompt
without a picture can be varied too.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.tiny import Tiny

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
WORD_LIST = "red blue green yellow white black small large big old young snow fire water sky grass wall door"
SIZES = [(97, 61), (56, 56), (31, 140), (200, 150), (64, 48)]  # (width, height) of pictures by their number


@dataclass(frozen=True)
class Case:
    """One prompt and how it is decoded."""

    name: str
    segments: list[tuple[str, object]]
    ngram: int = 3
    beams: int = 1
    length_penalty: float = 1.0
    max_tokens: int = 64
    ends: bool = False  # goldens: look for a picture whose answer ends with </s> before max_tokens

    @property
    def pictures(self) -> int:
        """How many pictures the prompt has."""
        return sum(kind == "image" for kind, _ in self.segments)


def _one(name: str, text: str, **how: object) -> Case:
    return Case(name, [("image", 0), ("tags", text)], **how)


BRIEF = "<grounding>An image of"
DETAILED = "<grounding>Describe this image in detail:"
REFER = [("image", 0), ("tags", "<grounding><phrase> It</phrase>")]

CASES = [
    _one("brief", BRIEF),
    _one("brief, repeats allowed", BRIEF, ngram=0),
    _one("brief, 128 tokens", BRIEF, max_tokens=128),
    _one("brief, to the end", BRIEF, ends=True),
    _one("detailed", DETAILED),
    _one("detailed, repeats allowed", DETAILED, ngram=0),
    _one("plain caption", "An image of"),
    _one("plain caption, no token twice", "An image of", ngram=1),
    _one("plain caption, no pair twice", "An image of", ngram=2),
    _one("question", "Question: What color is the ball? Answer:"),
    _one("grounded question", "<grounding> Question: Where is the dog? Answer:"),
    _one("question with a box to fill", "<grounding> Question: Where is the dog? Answer:<phrase> The dog</phrase>"),
    _one("locate", "<grounding><phrase> a red ball</phrase>"),
    _one("locate in context", "<grounding>An image of a man and<phrase> a small dog</phrase>"),
    Case("refer", [*REFER, ("boxes", [(44, 863)]), ("tags", " is")]),
    Case("refer, two boxes", [*REFER, ("boxes", [(5, 100), (33, 1023)]), ("tags", " is")]),
    Case(
        "question about a box",
        [
            ("image", 0),
            ("tags", "<grounding> Question: Where is<phrase> the fire</phrase>"),
            ("boxes", [(5, 911)]),
            ("tags", " next to? Answer:"),
        ],
    ),
    Case(
        "two phrases with boxes",
        [
            ("image", 0),
            ("tags", "<grounding> An image of<phrase> a dog</phrase>"),
            ("boxes", [(0, 40)]),
            ("tags", " and<phrase> a cat</phrase>"),
            ("boxes", [(512, 700), (513, 701), (1, 33)]),
        ],
    ),
    Case("two pictures", [("image", 0), ("tags", "An image of a cat."), ("image", 1), ("tags", "An image of")]),
    Case(
        "three pictures", [("tags", "Here are"), ("image", 0), ("image", 1), ("image", 2), ("tags", "Is it the dog?")]
    ),
    Case("text, picture, text", [("tags", "Question: What is this?"), ("image", 0), ("tags", "Answer:")]),
    Case(
        "refer by example",
        [
            *REFER,
            ("boxes", [(10, 600)]),
            ("tags", " is a young dog."),
            ("image", 1),
            ("tags", "<grounding><phrase> It</phrase>"),
            ("boxes", [(100, 1000)]),
            ("tags", " is"),
        ],
    ),
    Case("text only", [("tags", "Is the {word} house large? Answer:")]),
    Case("text only, repeats allowed", [("tags", "The color of {word} is")], ngram=0),
    _one("raw tags", "</line> a </doc><phrase> b <grounding></chunk><object></object></delimiter_of_multi_objects/> c"),
    _one("unknown characters", "An image  of ☃ snow ☃☃ 日本, {hat}!"),
    _one("beams 2", BRIEF, beams=2),
    _one("beams 5", "An image of", beams=5),
    _one("beams 5, long answers favoured", BRIEF, beams=5, length_penalty=2.0),
    _one("beams 5, no length penalty", DETAILED, beams=5, length_penalty=0.0),
    _one("beams 3, short answers favoured", "An image of", beams=3, length_penalty=-1.0, ngram=0),
    _one("beams 8, two words", "An image of", beams=8, max_tokens=2),
    Case("beams 2, two pictures", [("image", 0), ("image", 1), ("tags", "An image of")], beams=2, max_tokens=32),
    Case("beams 3, text only", [("tags", "Is the {word} house large? Answer:")], beams=3, max_tokens=32),
]


def weights_digest(tiny: Tiny) -> str:
    """SHA-256 over names and bytes of all weights: recorded goldens are worth nothing for other weights."""
    digest = hashlib.sha256()
    for name, array in tiny.weights.items():
        digest.update(name.encode() + array.astype("<f4").tobytes())
    return digest.hexdigest()


def load_json(name: str) -> dict:
    """goldens/NAME.json as make_goldens.py wrote it."""
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))


def load_arrays() -> dict[str, np.ndarray]:
    """goldens/arrays.npz."""
    with np.load(GOLDENS / "arrays.npz") as file:
        return dict(file)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The project's measure for vectors: per row, largest difference over largest magnitude; the worst row."""
    got, expected = np.atleast_2d(got).astype(np.float64), np.atleast_2d(expected).astype(np.float64)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    assert np.isfinite(got).all()
    return float((np.abs(got - expected).max(-1) / np.abs(expected).max(-1)).max())
