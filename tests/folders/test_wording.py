"""Captions as their readers want them."""

import pytest

from kosmos_edge import InvalidRequest
from kosmos_edge.folders import Wording
from kosmos_edge.folders.wording import whole_sentences


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A dog runs. It is br", "A dog runs."),
        ('A sign says "Stop." The road', 'A sign says "Stop."'),
        ("Is it? Yes! Perha", "Is it? Yes!"),
        ("a dog with a ball", "a dog with a ball"),
        ("At 3.50, e.g. by Mr. Smith or J. Doe in", "At 3.50, e.g. by Mr. Smith or J. Doe in"),
        ("One. Two.", "One. Two."),
        ("", ""),
    ],
)  # fmt: skip
def test_the_last_half_sentence_goes(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole
    assert Wording(whole_sentences=True).apply(text, cut_off=True) == whole
    assert Wording(whole_sentences=True).apply(text) == text  # the model ended there


def test_what_is_asked_for_and_no_more() -> None:
    assert Wording().apply("a dog") == "a dog" and not Wording().changes
    assert Wording(capital=True, full_stop=True).apply("élan of a dog") == "Élan of a dog."
    for text in ("Is it?", "So…", 'He says "no."'):
        assert Wording(full_stop=True).apply(text) == text
    assert Wording(full_stop=True).apply("a dog, ") == "a dog." == Wording(full_stop=True).apply("a dog;")
    assert Wording(capital=True, full_stop=True).apply("") == ""
    words = Wording(capital=True, full_stop=True, prefix="photo of ", suffix=" 8k", trigger="sks dog")
    assert words.apply("a dog") == "sks dog, photo of A dog. 8k"
    assert Wording(trigger="sks").apply("") == "sks"
    with pytest.raises(InvalidRequest, match="suffix: expected one line"):
        Wording(suffix="a\nb")
