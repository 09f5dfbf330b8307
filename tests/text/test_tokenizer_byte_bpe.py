"""Byte-level BPE: equal to the tokenizers library on anything, for each way to cut a text; bad vocabularies."""

import base64
import random
import unicodedata
from pathlib import Path

import pytest
from helpers.bpe_vocabularies import random_texts
from helpers.vocabularies import NORMAL

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt

tokenizers = pytest.importorskip("tokenizers", reason="the reference is the tokenizers library")
from helpers.byte_bpe_vocabularies import ADDED, CONTROL, Trained, cut_by  # noqa: E402 (it needs tokenizers)
from helpers.cut_patterns import PATTERNS  # noqa: E402


def alphabet() -> dict[int, str]:
    """GPT-2's byte -> character."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in prints]
    return {b: chr(b) for b in prints} | {b: chr(256 + i) for i, b in enumerate(hidden)}


@pytest.fixture(scope="module", params=[("gpt2", False), ("cl100k", False), ("qwen2", False), ("cl100k", True)])
def trained(request: pytest.FixtureRequest) -> Trained:
    return Trained(*request.param)


def known(text: str) -> bool:
    """Whether all its characters are assigned in Python's Unicode and hold no control string."""
    return "</s>" not in text and all(unicodedata.category(c) != "Cn" for c in text)


def test_ids_equal_the_tokenizers_library(trained: Trained) -> None:
    readable = [trained.tokenizer.text(i) for i, kind in enumerate(trained.types) if kind == NORMAL]
    texts = [t for t in random_texts(readable, 4_000, seed=8) if known(t) and not any(a in t for a in ADDED)]
    assert len(texts) > 2_000
    wrong = [t for t in texts if trained.tokenizer.encode(t) != trained.expected(t)]
    assert wrong == []


def test_tags_cut_the_text(trained: Trained) -> None:
    rng = random.Random(9)
    for _ in range(500):
        text = "".join(rng.choice([*ADDED, "a b", " ", "\n", "'s", "1234", "", "é "]) for _ in range(rng.randint(1, 9)))
        assert trained.tokenizer.encode_with_tags(text) == trained.expected(text), text


def test_every_kind_of_character_is_cut_as_the_library_does() -> None:
    """Each assigned character of the BMP, and some beyond, between letters, digits, blanks and newlines."""
    codes = [c for c in [*range(0x10000), *range(0x10000, 0x110000, 37)] if not 0xD800 <= c < 0xE000]
    codes = [c for c in codes if unicodedata.category(chr(c)) != "Cn"]
    for kind in PATTERNS:
        trained = Trained(kind)
        texts = ["".join(f"a{c}b 1{c}2 {c} .{c}\n{c}{c}x'{c}" for c in map(chr, codes[i : i + 8]))
                 for i in range(0, len(codes), 8)]  # fmt: skip
        wrong = [t for t in texts if trained.tokenizer.encode(t) != trained.expected(t)]
        assert wrong == [], kind


@pytest.mark.parametrize("text", ["a", " ", "\n", "1", ".", "é", "🙂", " \n", "'"])
def test_a_long_run_equals_the_library(trained: Trained, text: str) -> None:
    long = text * ((1 << 16) // len(text.encode()))
    assert trained.tokenizer.encode(long + "x") == trained.expected(long + "x")


def test_decoding_equals_the_library(trained: Trained) -> None:
    """Also of ids whose bytes are no text: one U+FFFD for each ill-formed stretch."""
    rng = random.Random(10)
    byte_ids = [trained.pieces.index(c) for c in alphabet().values()]
    for _ in range(3_000):
        ids = [rng.choice([rng.choice(byte_ids), rng.randrange(len(trained.pieces))]) for _ in range(rng.randint(0, 9))]
        kept = [i for i in ids if trained.types[i] != CONTROL]
        assert trained.tokenizer.decode(ids) == trained.reference.decode(kept, skip_special_tokens=False), ids


def test_any_text_comes_back(trained: Trained) -> None:
    for text in random_texts(["ab", "Ä", "\0"], 500, seed=11):
        assert trained.tokenizer.decode(trained.tokenizer.encode(text)) == text


def test_parts_are_encoded_as_one_text(trained: Trained) -> None:
    tokenizer = trained.tokenizer
    assert tokenizer.encode_parts([("ba", True), ("ke lo", False)]) == tokenizer.encode("bake lo")
    image = trained.pieces.index("<image>")
    quoted = tokenizer.encode_parts([("x <image>", True), ("<image>", False)])
    assert quoted == [*tokenizer.encode("x "), image, *tokenizer.encode("<image>")]


BAD = {
    "a byte is missing": (lambda v: v[1].__setitem__(v[0].index("A"), 5), "no normal piece is the byte 65"),
    "a piece is not spelled": (lambda v: v[0].__setitem__(-3, "a b"), "not spelled in the byte alphabet"),
    "a merge of unknown pieces": (lambda v: v[2].append("zz qqqq"), "names a piece that is not a normal one"),
    "a merge of one piece": (lambda v: v[2].append("zz"), "expected two pieces with one blank"),
    "a merge of three": (lambda v: v[2].append("a b c"), "expected two pieces with one blank"),
    "a merge twice": (lambda v: v[2].append(v[2][0]), "occurs twice"),
    "a merge of a tag": (lambda v: v[2].append("< image>"), "names a piece"),
    "a long merge": (lambda v: v[2].append("a" * 3000), "bytes, at most 2049"),
    "types are missing": (lambda v: v[1].pop(), "pieces but"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_vocabularies_are_refused(case: str) -> None:
    trained = Trained("gpt2")
    parts = [list(trained.pieces), list(trained.types), list(trained.merges)]
    change, message = BAD[case]
    change(parts)
    with pytest.raises(ModelCorrupt, match=message):
        _core.Tokenizer.byte_bpe(*parts, "gpt2")


def test_bad_requests_are_refused() -> None:
    trained = Trained("gpt2")
    with pytest.raises(InvalidRequest, match="expected 'gpt2', 'cl100k', 'qwen2' or 'clip'"):
        _core.Tokenizer.byte_bpe(trained.pieces, trained.types, trained.merges, "gpt3")
    with pytest.raises(InvalidRequest, match="at byte 1"):
        trained.tokenizer.encode(b"a\xff")


def split_pair(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The merge that makes a tiktoken token: merge its bytes by rank until two parts are left."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 30))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


# KOSMOS-2.5's tags behind <mask>, all 4,096 coordinates of each axis.
PAGE_TAGS = (
    "<ocr>", "<image>", "</image>", "</chunk>", "<bbox>", "</bbox>", "<md>",
    *(tag for i in range(4096) for tag in (f"<x_{i}>", f"<y_{i}>")),
)  # fmt: skip


class Cl100k:
    """cl100k_base behind four special tokens and in front of KOSMOS-2.5's tags: ids are ranks + 4."""

    def __init__(self, path: Path, whole_pieces: bool) -> None:
        self.whole_pieces = whole_pieces
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in path.read_bytes().splitlines())}
        letters = alphabet()

        def spell(token: bytes) -> str:
            return "".join(letters[b] for b in token)

        plain = [spell(token) for token in sorted(ranks, key=ranks.__getitem__)]
        pairs = [split_pair(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
        merges = [(spell(a), spell(b)) for a, b in pairs]
        unused = [f"<|unused_{i}|>" for i in range(len(plain), 100277)]
        pieces = ["<s>", "<pad>", "</s>", "<unk>", *plain, *unused, "<mask>", *PAGE_TAGS]
        model = tokenizers.models.BPE(
            vocab={p: i for i, p in enumerate(pieces)}, merges=merges, ignore_merges=whole_pieces
        )
        self.reference = tokenizers.Tokenizer(model)
        self.reference.pre_tokenizer = cut_by(PATTERNS["cl100k"])
        self.reference.add_tokens([tokenizers.AddedToken(t, normalized=False, special=False) for t in PAGE_TAGS])
        types = [CONTROL] * 4 + [NORMAL] * len(plain) + [5] * len(unused) + [CONTROL] + [4] * len(PAGE_TAGS)
        joined = [" ".join(m) for m in merges]
        self.tokenizer = _core.Tokenizer.byte_bpe(pieces, types, joined, "cl100k", whole_pieces)
        self.readable = [self.tokenizer.text(i) for i in range(4, 4 + len(plain), 3)]


@pytest.fixture(scope="module", params=[False, True], ids=["merges", "whole pieces"])
def cl100k(request: pytest.FixtureRequest, shared_dir: Path) -> Cl100k:
    path = shared_dir / "data" / "kosmos-2.5" / "cl100k_base.tiktoken"
    if not path.exists():
        pytest.skip("cl100k_base.tiktoken is not here")
    return Cl100k(path, request.param)


def test_cl100k_base_equals_its_conversion_for_the_tokenizers_library(cl100k: Cl100k) -> None:
    """Whether its merges always run or not makes no difference: they reach every piece."""
    count = 10_000 if cl100k.whole_pieces else 80_000
    texts = [t for t in random_texts(cl100k.readable, count, seed=12) if known(t) and "<" not in t]
    assert len(texts) > count // 2
    expected = [found.ids for found in cl100k.reference.encode_batch(texts, add_special_tokens=False)]
    wrong = [t for t, ids in zip(texts, expected, strict=True) if cl100k.tokenizer.encode(t) != ids]
    assert wrong == []
    assert cl100k.tokenizer.encode("hello world") == [4 + 15339, 4 + 1917]  # published by tiktoken


def test_tags_between_texts_of_cl100k_base(cl100k: Cl100k) -> None:
    """Texts beside tags are encoded as they are, as in answers about pages."""
    rng = random.Random(13)
    parts = [t for t in random_texts(cl100k.readable, 4_000, seed=14) if known(t) and "<" not in t]
    texts = [
        "".join(rng.choice(PAGE_TAGS[:7] if rng.random() < 0.3 else PAGE_TAGS) + rng.choice(["", "\n", *parts])
                for _ in range(rng.randint(1, 6)))
        for _ in range(10_000)
    ]  # fmt: skip
    expected = [found.ids for found in cl100k.reference.encode_batch(texts, add_special_tokens=False)]
    wrong = [t for t, ids in zip(texts, expected, strict=True) if cl100k.tokenizer.encode_with_tags(t) != ids]
    assert wrong == []
    first = 100289  # <x_0>
    line = "<bbox><x_53><y_573><x_69><y_606></bbox>1\n"
    ids = [100286, first + 106, first + 1147, first + 138, first + 1213, 100287, 4 + 16, 4 + 198]
    assert cl100k.tokenizer.encode_with_tags(line) == ids and cl100k.tokenizer.decode(ids) == line


def test_form_c_is_unicodes() -> None:
    """Every character, its decomposition, and random runs of marks become what Python's unicodedata and the tokenizers
    library make of them."""
    trained = Trained("qwen2")
    tokenizer = _core.Tokenizer.byte_bpe(trained.pieces, trained.types, trained.merges, "qwen2", nfc=True)
    codes = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs")]
    texts = []
    for at in range(0, len(codes), 64):
        some = [chr(c) for c in codes[at : at + 64]]
        texts += [" ".join(some), " ".join(unicodedata.normalize("NFD", c) for c in some)]
    rng = random.Random(12)
    old = unicodedata.ucd_3_2_0  # what the library's tables know for sure
    marks = [c for c in map(chr, codes) if old.combining(c)]
    starters = [
        *"aeiouAEIOUsnc한글각ᄀ각আ",
        *(chr(c) for c in range(0xC0, 0x250)),
        "\u1100\u1161\u11a8",
        "\u0915\u093c",
    ]
    for _ in range(3000):
        run = (rng.choice(marks if rng.random() < 0.6 else starters) for _ in range(rng.randint(2, 12)))
        texts.append("".join(run))
    wrong = [t for t in texts if tokenizer.encode(t) != tokenizer.encode(unicodedata.normalize("NFC", t))]
    assert wrong == []
    assert [t for t in texts if tokenizer.decode(tokenizer.encode(t)) != unicodedata.normalize("NFC", t)] == []
    trained.reference.normalizer = tokenizers.normalizers.NFC()
    assert [t for t in texts[-3000:] if tokenizer.encode(t) != trained.expected(t)] == []
    plain = trained.tokenizer.encode("e\u0301")
    assert plain != tokenizer.encode("e\u0301") == trained.tokenizer.encode("\u00e9")
