"""Text to ids and back: equal to sentencepiece on anything, tags as kosmos-2 has them, typed errors for bad input."""

import random
import re
from collections.abc import Iterator

import pytest
from helpers import sweep
from helpers.vocabularies import NORMAL, TAG, TAGS, Vocabulary, train

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

SHARED_MODEL = ("data", "kosmos-2", "sentencepiece.bpe.model")
MIB = 1 << 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(tmp_path_factory.mktemp("spm"))


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest) -> Vocabulary:
    return Vocabulary(request.getfixturevalue("shared_dir").joinpath(*SHARED_MODEL).read_bytes())


@pytest.fixture(params=["trained", "published"])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return request.getfixturevalue(request.param)


def random_character(rng: random.Random) -> str:
    while 0xD800 <= (code := rng.randrange(0x110000)) < 0xE000:
        pass
    return chr(code)


ODD = (
    "\x00\x01\t\n\r\x1b\x7f\u0085\u00a0\u00ad\u00b4\u034f\u061c\u115f\u1680\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029"
    "\u202e\u2060\u2581\u3000\u3099\ufdfa\ufeff\uff21\uff9e\ufffc\ufffd\uffff\u1e9b\u0323\u0344\u1100\u1161\u11a8½ﬁ①㎏ｶﾞ"
)
STRINGS = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<mask>",
    *TAGS,
    "<patch_index_0044>",
    "  ",
    " ",
    "...",
    "e\u0301",
    "👩\u200d👧",
]


def random_texts(vocabulary: Vocabulary, count: int, seed: int) -> Iterator[str]:
    """Strings of 1 to 120 parts: pieces, ASCII, controls, marks, CJK, Hangul, right-to-left, emoji, anything."""
    rng = random.Random(seed)
    pieces = [p.replace("▁", " ") for p, t in zip(vocabulary.pieces, vocabulary.types, strict=True) if t == NORMAL]
    parts = [
        lambda: rng.choice(pieces),
        lambda: rng.choice(pieces),
        lambda: rng.choice(pieces),
        lambda: rng.choice(STRINGS),
        lambda: rng.choice(ODD),
        lambda: random_character(rng),
        lambda: chr(rng.randrange(0x20, 0x7F)),
        lambda: chr(rng.randrange(0x80, 0x250)),
        lambda: chr(rng.randrange(0x300, 0x370)),
        lambda: chr(rng.randrange(0x590, 0x700)),
        lambda: chr(rng.randrange(0x4E00, 0xA000)),
        lambda: chr(rng.randrange(0xAC00, 0xD7A4)),
        lambda: chr(rng.randrange(0x1F300, 0x1FB00)),
    ]
    for _ in range(count):
        few = rng.sample(parts, rng.randint(1, 5))
        yield "".join(rng.choice(few)() for _ in range(rng.choice([1, 2, 3, 5, 10, 30, 120])))


def test_ids_equal_sentencepiece_on_random_unicode(vocabulary: Vocabulary) -> None:
    texts = list(random_texts(vocabulary, sweep.many(10_000, 40_000), seed=3))
    wrong = [t for t in texts if vocabulary.tokenizer.encode(t) != vocabulary.expected(t)]
    assert wrong == []


def test_ids_equal_sentencepiece_on_every_bmp_character_and_a_share_of_the_rest(vocabulary: Vocabulary) -> None:
    codes = [
        c for c in [*range(0x10000), *range(0x10000, 0x110000, 7 if sweep.WHOLE else 31)] if not 0xD800 <= c < 0xE000
    ]
    texts = [f"a{chr(c)} b{chr(c)}\u0301 {chr(c)}" for c in codes]
    wrong = [
        hex(c) for c, t in zip(codes, texts, strict=True) if vocabulary.tokenizer.encode(t) != vocabulary.expected(t)
    ]
    assert wrong == []


@pytest.mark.parametrize("text", ["a", " ", "é", "日", "<", "\x00", "\U000e0001", "ab ", "ﷺ", "😀"])
def test_a_mebibyte_of_one_text_equals_sentencepiece(trained: Vocabulary, text: str) -> None:
    """Of most texts a quarter."""
    long = text * ((MIB if sweep.WHOLE or text in "aﷺ" else MIB // 4) // len(text.encode()))
    assert trained.tokenizer.encode(long) == trained.expected(long)


def test_runs_of_unknown_characters_are_one_unk(trained: Vocabulary) -> None:
    assert trained.tokenizer.encode("☃☄★") == [trained.id("▁"), 3]
    assert trained.tokenizer.encode("☃ ☄") == [trained.id("▁"), 3, trained.id("▁"), 3]
    assert trained.expected("☃ ☄") == trained.tokenizer.encode("☃ ☄")


def test_blank_texts_have_no_ids(vocabulary: Vocabulary) -> None:
    for text in ["", " ", "\n\t", "\u3000\u200b", "\x01\x02", "▁▁"]:
        assert vocabulary.tokenizer.encode(text) == []
        assert vocabulary.tokenizer.encode_with_tags(text) == []


def test_tag_and_control_strings_are_plain_text_for_encode(vocabulary: Vocabulary) -> None:
    for text in ["<s>", "</s>", "<pad>", "<unk>", "<mask>", *TAGS, "<patch_index_0000>", "a<phrase>b</phrase>"]:
        ids = vocabulary.tokenizer.encode(text)
        assert ids == vocabulary.expected(text)
        assert {vocabulary.types[i] for i in ids} <= {NORMAL, 2}


def test_tags_split_the_text(vocabulary: Vocabulary) -> None:
    tags = [p for p, t in zip(vocabulary.pieces, vocabulary.types, strict=True) if t == TAG]
    splitter = re.compile("(" + "|".join(map(re.escape, sorted(tags, key=len, reverse=True))) + ")")

    def split_at_tags(text: str) -> list[int]:  # the segmentation rule in Python
        parts = enumerate(splitter.split(text))
        return [id for i, part in parts for id in ([vocabulary.id(part)] if i % 2 else vocabulary.expected(part))]

    rng = random.Random(5)
    glue = [
        "",
        "",
        " ",
        "\n",
        "a",
        "the dog",
        ".",
        "<",
        ">",
        "<phrase",
        "<patch_index_",
        "<s>",
        "</s>",
        "<unk>",
        "<mask>",
        "é",
    ]
    literals = [*TAGS, "<patch_index_0000>", "<patch_index_1023>", "<patch_index_7>", "<Phrase>"]
    for _ in range(sweep.many(300, 1_000)):
        text = "".join(rng.choice(literals if rng.random() < 0.5 else glue) for _ in range(rng.randint(1, 12)))
        assert vocabulary.tokenizer.encode_with_tags(text) == split_at_tags(text), text


def test_blanks_around_tags_do_not_matter(trained: Vocabulary) -> None:
    encode = trained.tokenizer.encode_with_tags
    assert encode("<grounding>ba de") == encode(" <grounding> \n ba de ") == encode("<grounding>  ba de")
    assert encode("<phrase> </phrase>") == [trained.id("<phrase>"), trained.id("</phrase>")]
    assert encode("</phrase>.") == [trained.id("</phrase>"), *trained.expected(".")]


def test_the_longest_tag_wins() -> None:
    pieces = ["<unk>", "a", "▁", "<t>", "<t>a", "<t>ab", "b"]
    tokenizer = _core.Tokenizer(pieces, [0.0, -1, -2, 0, 0, 0, -1], [2, 1, 1, 4, 4, 4, 1], b"", 0)
    assert tokenizer.encode_with_tags("<t>") == [3]
    assert tokenizer.encode_with_tags("<t>a<t>ab<t>b<t>ac") == [4, 5, 3, 2, 6, 4, 2, 0]
    assert tokenizer.encode_with_tags("<t<t>") == [2, 0, 3]


PROMPTS = {  # model card prompts, without the picture (kosmos-2's processor)
    "<grounding>An image of": [64012, 712, 1648, 9],
    "<grounding> An image of": [64012, 712, 1648, 9],
    "<grounding>Describe this image in detail:": [64012, 34645, 247, 38, 1648, 12, 3391, 55],
    "<grounding><phrase> a snowman</phrase>": [64012, 64007, 10, 43867, 64008],
    "<grounding><phrase> a snowman next to a fire</phrase>": [64012, 64007, 10, 43867, 197, 7, 10, 646, 64008],
    "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is": [
        *(64012, 64007, 67, 64008, 64009, 64057, 64876, 64010, 17),
    ],
    "<grounding> Question: What is special about this image? Answer:": [
        *(64012, 14895, 55, 352, 17, 667, 57, 38, 1648, 93, 20032, 55),
    ],
    "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005><patch_index_0911></object>"
    " next to? Answer:": [
        *(64012, 14895, 55, 3220, 17, 64007, 5, 646, 64008, 64009, 64018, 64924, 64010, 197, 7, 93, 20032, 55),
    ],
    "An image of": [712, 1648, 9],
    "Yes": [1544],
    "Answer:": [20032, 55],
    "</phrase>.": [64008, 106, 4],
}


def test_published_prompts_have_the_published_ids(published: Vocabulary) -> None:
    assert published.tokenizer.size == 65037
    assert {p: published.tokenizer.encode_with_tags(p) for p in PROMPTS} == PROMPTS


def test_published_answer_decodes_to_the_published_text(published: Vocabulary) -> None:
    ids = [64012, 712, 1648, 9, 64007, 10, 43867, 64008, 64009, 64057, 64876, 64010]
    ids += [5950, 597, 32, 64007, 10, 646, 64008, 64009, 64018, 64924, 64010, 4, 2]
    assert published.tokenizer.decode(ids) == (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>"
        " warming himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
    )


def test_decode_is_the_joined_pieces_without_the_first_blank(trained: Vocabulary) -> None:
    rng = random.Random(6)
    for _ in range(500):
        ids = [rng.randrange(trained.tokenizer.size) for _ in range(rng.randint(0, 20))]
        kept = [trained.pieces[i].replace("▁", " ") for i in ids if trained.types[i] in (NORMAL, TAG)]
        expected = "".join(kept).removeprefix(" ") if kept and kept[0].startswith(" ") else "".join(kept)
        assert trained.tokenizer.decode(ids) == expected
        assert [trained.tokenizer.text(i) for i in ids if trained.types[i] in (NORMAL, TAG)] == kept


def test_control_unknown_and_unused_ids_decode_to_nothing(trained: Vocabulary) -> None:
    assert trained.tokenizer.decode([0, 1, 2, 3, trained.mask]) == ""
    assert [trained.tokenizer.text(i) for i in (0, 1, 2, 3, trained.mask)] == [""] * 5


def test_known_text_comes_back(vocabulary: Vocabulary) -> None:
    for text in ["ba de", "Kla mon.", "a b c?"]:
        assert vocabulary.tokenizer.decode(vocabulary.tokenizer.encode(text)) == text


def test_pieces_can_be_looked_up(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    assert len(tokenizer) == tokenizer.size == len(vocabulary.pieces)
    assert [tokenizer.piece(i) for i in range(tokenizer.size)] == vocabulary.pieces
    assert [tokenizer.find(p) for p in vocabulary.pieces] == list(range(tokenizer.size))
    assert [tokenizer.type(i) for i in range(tokenizer.size)] == vocabulary.types
    assert [tokenizer.find(p) for p in ("", "\0", "<phrase", "<phrase>>", "zzzzzz", "\U0010ffff")] == [-1] * 6


@pytest.mark.parametrize("bad", [-1, 10**6, -(2**31), 2**31 - 1])
def test_ids_outside_the_vocabulary_are_refused(trained: Vocabulary, bad: int) -> None:
    for call in (trained.tokenizer.piece, trained.tokenizer.text, trained.tokenizer.type):
        with pytest.raises(InvalidRequest, match=f"token id {bad} is outside the vocabulary"):
            call(bad)
    with pytest.raises(InvalidRequest, match=str(bad)):
        trained.tokenizer.decode([0, bad])


ILL_FORMED = {  # bytes -> offset of the first ill-formed character
    b"\x80": 0,
    b"ab\xc3": 2,
    b"\xc3(": 0,
    b"a\xc0\xaf": 1,  # overlong
    b"\xe0\x80\xaf": 0,
    b"\xf0\x80\x80\xaf": 0,
    b"ok \xed\xa0\x80": 3,  # surrogate
    b"\xf4\x90\x80\x80": 0,  # beyond U+10FFFF
    b"\xf5\x80\x80\x80": 0,
    b"\xff": 0,
    "é日😀".encode() + b"\xf0\x9f\x98": 9,
    "é日😀".encode()[:-1]: 5,
}


@pytest.mark.parametrize("text", ILL_FORMED, ids=repr)
def test_ill_formed_utf8_is_refused_with_its_offset(trained: Vocabulary, text: bytes) -> None:
    for call in (trained.tokenizer.encode, trained.tokenizer.encode_with_tags):
        with pytest.raises(InvalidRequest, match=rf"not well-formed UTF-8 at byte {ILL_FORMED[text]}$"):
            call(text)


def test_lone_surrogates_and_other_types_are_refused(trained: Vocabulary) -> None:
    with pytest.raises(InvalidRequest, match="at byte 3"):
        trained.tokenizer.encode("é \ud800")
    with pytest.raises(InvalidRequest, match="str or bytes, not int"):
        trained.tokenizer.encode(7)
    assert trained.tokenizer.encode("é 日".encode()) == trained.tokenizer.encode("é 日")


def test_overlong_texts_are_refused(trained: Vocabulary) -> None:
    with pytest.raises(InvalidRequest, match="at most 16777216"):
        trained.tokenizer.encode("a" * (16 * MIB + 1))
