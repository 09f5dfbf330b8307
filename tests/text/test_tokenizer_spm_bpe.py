"""sentencepiece BPE with byte fallback: equal to sentencepiece and to transformers on anything; bad vocabularies."""

import random

import pytest
from helpers.bpe_vocabularies import BYTE, SpmBpe, random_texts
from helpers.vocabularies import NORMAL, TAG

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt

MIB = 1 << 20
OPTIONS = {  # of the trainer -> of the tokenizer
    "llama": ({}, {}),
    "no prefix": ({"add_dummy_prefix": False}, {"blank_prefix": False}),
    "folded": ({"remove_extra_whitespaces": True}, {"fold_blanks": True}),
    "normalised": (
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True, "split_digits": False},
        {"fold_blanks": True},
    ),
    "no bytes": ({"byte_fallback": False, "vocab_size": 400}, {}),
}


@pytest.fixture(scope="module", params=OPTIONS)
def pair(request: pytest.FixtureRequest) -> tuple[SpmBpe, _core.Tokenizer]:
    trainer, options = OPTIONS[request.param]
    vocabulary = SpmBpe(**trainer)
    return vocabulary, vocabulary.tokenizer(**options)


@pytest.fixture(scope="module")
def llama() -> SpmBpe:
    return SpmBpe(added=("<image>", "<pad>"))


def test_ids_equal_sentencepiece(pair: tuple[SpmBpe, _core.Tokenizer]) -> None:
    vocabulary, tokenizer = pair
    texts = random_texts(vocabulary.pieces, 3_000, seed=2)
    wrong = [t for t in texts if tokenizer.encode(t) != vocabulary.reference.encode(t)]
    assert wrong == []


@pytest.mark.parametrize("text", ["a", " ", "é", "日", "🙂", "ba", "\n"])
def test_a_long_run_equals_sentencepiece(llama: SpmBpe, text: str) -> None:
    long = text * (MIB // 4 // len(text.encode()))
    assert llama.tokenizer().encode(long) == llama.reference.encode(long)


def hf_tokenizer(vocabulary: SpmBpe, legacy: bool) -> object:
    from transformers import AddedToken, LlamaTokenizer

    ids = {piece: i for i, piece in enumerate(vocabulary.pieces) if piece not in vocabulary.added}
    tokenizer = LlamaTokenizer(vocab=ids, merges=vocabulary.merges(), legacy=legacy)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in vocabulary.added])
    return tokenizer


@pytest.mark.parametrize("legacy", [True, False])
def test_ids_equal_transformers(llama: SpmBpe, legacy: bool) -> None:
    pytest.importorskip("transformers", reason="the reference is transformers")
    reference = hf_tokenizer(llama, legacy)
    tokenizer = llama.tokenizer(prefix_every_stretch=legacy, prefix_before_blank=False)
    rng = random.Random(3)
    plain = [t.replace("<s>", "").replace("</s>", "") for t in random_texts(llama.pieces[:-2], 2_000, seed=4)]
    texts = plain + [
        "".join(rng.choice([rng.choice(plain)[:20], "<image>", " ", ""]) for _ in range(rng.randint(1, 6)))
        for _ in range(1_500)
    ]
    texts += ["USER: <image>\nWhat", "<image>What", " <image> x", " leading", "<image><pad>", "▁x", ""]
    special = ("<unk>", "<s>", "</s>")  # transformers finds these strings in text; here they are text
    texts = [t for t in texts if not any(s in t for s in special)]
    wrong = [t for t in texts if tokenizer.encode_with_tags(t) != reference.encode(t, add_special_tokens=False)]
    assert wrong == []


def test_decoding_equals_transformers(llama: SpmBpe) -> None:
    """Also where bytes are no text: a run of byte tokens is text as a whole, or one U+FFFD per byte."""
    pytest.importorskip("transformers", reason="the reference is transformers")
    reference = hf_tokenizer(llama, legacy=False)
    tokenizer = llama.tokenizer()
    byte_ids = [i for i, kind in enumerate(llama.types) if kind == BYTE]
    rng = random.Random(5)
    for _ in range(2_000):
        ids = []
        for _ in range(rng.randint(0, 8)):
            some = rng.choice(["é", "日", "🙂", "\n", "🙂日"]).encode()
            whole = [byte_ids[b] for b in some]
            ids += rng.choice([whole, whole, whole[:-1], [rng.choice(byte_ids)], [rng.randrange(len(llama.pieces))]])
        kept = [i for i in ids if llama.types[i] in (NORMAL, TAG, BYTE)]
        assert tokenizer.decode(ids) == reference.decode(kept, skip_special_tokens=True), ids


def test_a_prefix_before_every_stretch_or_only_before_the_prompt(llama: SpmBpe) -> None:
    blank, image = llama.pieces.index("▁"), llama.pieces.index("<image>")
    every = llama.tokenizer(prefix_before_blank=False).encode_with_tags("<image>\n")
    once = llama.tokenizer(prefix_every_stretch=False, prefix_before_blank=False)
    newline = llama.pieces.index("<0x0A>")
    assert every == [image, blank, newline]
    assert once.encode_with_tags("<image>\n") == [image, newline]
    assert once.encode("\n") == [blank, newline]
    assert once.encode("\n", at_start=False) == [newline]
    assert llama.tokenizer().encode("") == []


def test_parts_are_encoded_as_one_text(llama: SpmBpe) -> None:
    tokenizer = llama.tokenizer()
    assert tokenizer.encode_parts([("ba", True), ("ke", False)]) == tokenizer.encode("bake")
    quoted = tokenizer.encode_parts([("x <image>y", True), ("<image>", False), ("z", True)])
    image = llama.pieces.index("<image>")
    assert quoted == [*tokenizer.encode("x "), image, *tokenizer.encode("y<image>z")]
    assert tokenizer.encode_parts([]) == []


def test_the_score_decides_not_the_order(llama: SpmBpe) -> None:
    def encode(ab: float, bc: float) -> list[int]:
        pieces, types = ["<unk>", "a", "b", "c", "ab", "bc"], [2, 1, 1, 1, 1, 1]
        return _core.Tokenizer.spm_bpe(pieces, [0.0, -9, -9, -9, ab, bc], types, blank_prefix=False).encode("abc")

    assert encode(-1.0, -2.0) == [4, 3]
    assert encode(-2.0, -1.0) == [1, 5]
    assert encode(-1.0, -1.0) == [4, 3]  # the left one on a tie


BAD = {
    "a byte is missing": (lambda v: v.types.__setitem__(v.pieces.index("<0x41>"), 1), "255 pieces of type Byte"),
    "a byte is misspelt": (lambda v: v.pieces.__setitem__(v.pieces.index("<0x41>"), "<0x4g>"), "not spelled <0x00>"),
    "a score is not finite": (lambda v: v.scores.__setitem__(300, float("nan")), "score of piece 300 is not finite"),
    "a type is unknown": (lambda v: v.types.__setitem__(300, 7), r"has type 7, 1 \(normal\) to 6 \(byte\)"),
    "the unknown piece is normal": (lambda v: v.types.__setitem__(0, 1), "not of type Unknown"),
    "a piece occurs twice": (lambda v: v.pieces.__setitem__(300, v.pieces[301]), "are the same piece"),
    "scores are missing": (lambda v: v.scores.pop(), "pieces but"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_vocabularies_are_refused(llama: SpmBpe, case: str) -> None:
    import copy

    broken = copy.copy(llama)
    broken.pieces, broken.scores, broken.types = list(llama.pieces), list(llama.scores), list(llama.types)
    change, message = BAD[case]
    change(broken)
    with pytest.raises(ModelCorrupt, match=message):
        broken.tokenizer()


def test_ill_formed_and_overlong_texts_are_refused(llama: SpmBpe) -> None:
    tokenizer = llama.tokenizer()
    with pytest.raises(InvalidRequest, match="at byte 2"):
        tokenizer.encode(b"ab\xc3")
    with pytest.raises(InvalidRequest, match="at most 16777216"):
        tokenizer.encode_parts([("a" * (8 * MIB), True), ("a" * (8 * MIB + 1), True)])
