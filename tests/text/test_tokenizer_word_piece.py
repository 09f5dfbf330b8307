"""WordPiece: equal to the tokenizers library on anything; bad vocabularies."""

import random
import unicodedata
from typing import Any

import pytest
from helpers.bpe_vocabularies import random_texts

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt

tokenizers = pytest.importorskip("tokenizers", reason="the reference is the tokenizers library")

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN = 1
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~éßøłждπ한ᄒ日本語。「あアー中的ا"
WORDS = (
    "the a is what who where image photo picture question answer un believ able able ##able play ##ing ##s ##ed "
    "don t isn resume naive cafe uber strasse 1990 ##90 東京 東 привет при ##вет"
)
PIECES = list(
    dict.fromkeys([*SPECIALS, *CHARACTERS, *("##" + c for c in CHARACTERS), *WORDS.split(), "x" * 40, "##" + "y" * 40])
)


def made(pieces: list[str] = PIECES) -> _core.Tokenizer:
    return _core.Tokenizer.word_piece(pieces, types_of(pieces), UNKNOWN)


def types_of(pieces: list[str]) -> list[int]:
    return [2 if i == UNKNOWN else 3 if piece in SPECIALS else 1 for i, piece in enumerate(pieces)]


@pytest.fixture(scope="module")
def reference() -> Any:
    """As transformers' BertTokenizer is built, without its special tokens: no text becomes them here."""
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    found = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    found.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    found.decoder = tokenizers.decoders.WordPiece(cleanup=False)
    return found


def assert_equal(reference: Any, texts: list[str]) -> None:
    tokenizer = made()
    expected = [found.ids for found in reference.encode_batch(texts, add_special_tokens=False)]
    wrong = [text for text, ids in zip(texts, expected, strict=True) if tokenizer.encode(text) != ids]
    assert wrong == []


def test_ids_equal_the_tokenizers_library(reference: Any) -> None:
    """80,000 strings of pieces, capitals, accents, CJK, controls, marks, emoji, long runs, any code points."""
    readable = [piece.removeprefix("##") for piece in PIECES[5:]]
    readable += [piece.upper() for piece in readable] + [unicodedata.normalize("NFD", "Éßẞ각ǆÅ"), "Ñ", "İ", "Σς"]
    texts = random_texts(readable, 80_000, seed=21)
    assert len(set(texts)) > 60_000
    assert_equal(reference, texts)


def test_every_character_is_cut_as_the_library_does(reference: Any) -> None:
    """Each code point, between letters, and behind accents and blanks."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = []
    for at in range(0, len(codes), 16):
        texts.append(" ".join(f"a{c}b {c}e\u0301{c} 1{c}" for c in map(chr, codes[at : at + 16])))
    assert_equal(reference, texts)


def test_marks_in_any_order(reference: Any) -> None:
    rng = random.Random(3)
    marks = [chr(c) for c in range(0x300, 0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.combining(chr(c))]
    starters = [*"aeiousnEOU한글", "\u1100\u1161\u11a8", "\u0915\u093c", "日", "."]
    texts = [
        "".join(rng.choice(marks if rng.random() < 0.6 else starters) for _ in range(rng.randint(2, 12)))
        for _ in range(5_000)
    ]
    assert_equal(reference, texts)


@pytest.mark.parametrize("count", [99, 100, 101, 300, 70_000])
@pytest.mark.parametrize("letter", ["a", "é", "e\u0301", "日", "."])
def test_long_words(reference: Any, count: int, letter: str) -> None:
    """A word of more than 100 characters is unknown; accents do not count, ideographs and marks are words."""
    assert_equal(reference, [letter * count, "b" + letter * count + " c"])
    one = made().encode(letter * count)
    assert (one == [UNKNOWN]) == (count > 100 and letter not in "日.")


def test_words() -> None:
    tokenizer = made()

    def pieces(text: str) -> list[str]:
        return [tokenizer.piece(i) for i in tokenizer.encode(text)]

    assert pieces("Who is PLAYING?") == ["who", "is", "play", "##ing", "?"]
    assert pieces("Caf\u00e9 r\u00e9sum\u00e9") == pieces("cafe resume") == ["cafe", "resume"]
    assert pieces("don't") == ["don", "'", "t"] and pieces("東京") == ["東", "[UNK]"]
    assert pieces("a\x00b\u200bc") == ["a", "##b", "##c"] and pieces(" \t\n") == [] and pieces("") == []
    assert pieces("[SEP]") == ["[", *pieces("sep"), "]"]  # what spells a special token is text
    assert tokenizer.decode(tokenizer.encode("Who is PLAYING?")) == "who is playing ?"


def test_decoding_equals_the_library(reference: Any) -> None:
    rng, tokenizer = random.Random(4), made()
    for _ in range(2_000):
        ids = [rng.randrange(5, len(PIECES)) for _ in range(rng.randint(0, 9))]
        if ids and PIECES[ids[0]].startswith("##"):
            continue  # the library shows the marks of a first one
        assert tokenizer.decode(ids) == reference.decode(ids), [PIECES[i] for i in ids]


BAD = {
    "unk is a word": (lambda p, t: t.__setitem__(UNKNOWN, 1), "unk is 1; expected a piece of type 2"),
    "no word": (lambda p, t: t.__setitem__(slice(2, None), [3] * (len(t) - 2)), "no normal piece begins a word"),
    "types are missing": (lambda p, t: t.pop(), "pieces but"),
    "a piece twice": (lambda p, t: p.__setitem__(9, p[10]), "are the same piece"),
    "a type of bytes": (lambda p, t: t.__setitem__(9, 6), "piece 9 has type 6"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_vocabularies_are_refused(case: str) -> None:
    pieces, types = list(PIECES), types_of(PIECES)
    change, message = BAD[case]
    change(pieces, types)
    types[0] = 3
    with pytest.raises(ModelCorrupt, match=message):
        _core.Tokenizer.word_piece(pieces, types, UNKNOWN)


@pytest.mark.parametrize("unk", [-1, 10**6])
def test_an_unk_outside_is_refused(unk: int) -> None:
    with pytest.raises(ModelCorrupt, match="unk is"):
        _core.Tokenizer.word_piece(PIECES, types_of(PIECES), unk)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at byte 1"):
        made().encode(b"a\xff")
