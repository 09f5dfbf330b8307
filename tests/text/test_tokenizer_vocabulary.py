"""What a model file may bring as vocabulary and normaliser map: exact behaviour or ModelCorrupt, whatever the bytes."""

import random
import struct
from typing import Any

import pytest
import sentencepiece
from helpers.charsmaps import double_array, make_charsmap
from helpers.vocabularies import Vocabulary, train, with_charsmap

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(tmp_path_factory.mktemp("spm"))


def small(**changes: Any) -> _core.Tokenizer:
    arguments = {
        "pieces": ["<unk>", "▁", "a", "b", "ab", "<t>"],
        "scores": [0.0, -2.0, -1.0, -1.0, -3.0, 0.0],
        "types": [2, 1, 1, 1, 1, 4],
        "charsmap": b"",
        "unk": 0,
    }
    return _core.Tokenizer(**(arguments | changes))


def test_a_small_vocabulary_by_hand() -> None:
    tokenizer = small()
    assert tokenizer.encode("ab") == [1, 2, 3]  # -1 - 1 beats -3
    assert small(scores=[0.0, -2.0, -1.0, -1.0, -2.0, 0.0]).encode("ab") == [
        1,
        4,
    ]  # equal: the longer piece, found first
    assert tokenizer.encode("a\u00a0b") == [1, 2, 0, 3]  # without a map only U+0020 is a blank
    assert tokenizer.encode("  a  b ") == [1, 2, 1, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pieces": [], "scores": [], "types": []}, "0 pieces"),
        ({"scores": [0.0] * 5}, "6 pieces but 5 scores and 6 types"),
        ({"types": [2, 1, 1, 1, 1]}, "6 pieces but 6 scores and 5 types"),
        ({"unk": 6}, "id 6 is named as the unknown piece"),
        ({"unk": -1}, "id -1 is named as the unknown piece"),
        ({"unk": 1}, "id 1 is named as the unknown piece"),
        ({"types": [2, 1, 1, 1, 6, 4]}, "piece 4 has type 6"),
        ({"types": [2, 1, 0, 1, 1, 4]}, "piece 2 has type 0"),
        ({"types": [2, 4, 4, 4, 4, 4]}, "no piece of type Normal"),
        ({"scores": [0.0, -2.0, float("nan"), -1.0, -3.0, 0.0]}, "score of piece 2 is not finite"),
        ({"scores": [0.0, -2.0, -1.0, float("-inf"), -3.0, 0.0]}, "score of piece 3 is not finite"),
        ({"pieces": ["<unk>", "▁", "a", "b", "", "<t>"]}, "piece 4 has 0 bytes"),
        ({"pieces": ["<unk>", "▁", "a", "b", "a" * 1025, "<t>"]}, "piece 4 has 1025 bytes"),
        ({"pieces": ["<unk>", "▁", "a", "b", "a", "<t>"]}, "ids [24] and [24] are the same piece"),
        ({"pieces": ["<unk>", "▁", "a", "b", b"\xc3", "<t>"]}, "piece 4 is not well-formed UTF-8"),
        ({"charsmap": b"\0"}, "too short"),
        ({"charsmap": bytes(5 << 20)}, "at most 4194304 bytes"),
    ],
)
def test_inconsistent_vocabularies_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        small(**changes)


def test_many_megabytes_of_pieces_are_refused() -> None:
    pieces = ["<unk>", *(f"{i:04d}" * 250 for i in range(9_000))]
    with pytest.raises(ModelCorrupt, match="the pieces have 9000005 bytes"):
        _core.Tokenizer(pieces, [0.0] * 9_001, [2] + [1] * 9_000, b"", 0)


def test_a_piece_of_1024_bytes_works() -> None:
    long = "a" * 1024
    tokenizer = _core.Tokenizer(["<unk>", "▁", long, "a"], [0.0, -1.0, -2.0, -3.0], [2, 1, 1, 1], b"", 0)
    assert tokenizer.encode(long + "a") == [1, 3, 2]  # of two equal segmentations the one whose last piece is longer


def trie(units: list[int], replacements: bytes) -> bytes:
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + replacements


def test_broken_maps_are_refused() -> None:
    good = double_array({b"a": 0})
    leaf = next(i for i, u in enumerate(good) if u >> 31)
    node = next(i for i, u in enumerate(good) if u & 0xFF == ord("a") and u >> 8 & 1)
    assert small(charsmap=trie(good, b"b\0")).encode("a") == [1, 3]

    def changed(at: int, unit: int) -> list[int]:
        return [unit if i == at else u for i, u in enumerate(good)]

    cycle = changed(node, (good[node] & ~(0x3FFFFF << 10)) | (node ^ (good[0] >> 10)) << 10)
    broken = {
        "the header says": struct.pack("<I", 4 * len(good) + 8) + trie(good, b"b\0")[4:],
        "the header says 6 bytes": struct.pack("<I", 6) + trie(good, b"b\0")[4:],
        "the header says 0 bytes": struct.pack("<I", 0) + trie(good, b"b\0")[4:],
        "the last replacement is not terminated": trie(good, b"b"),
        "replacements are not UTF-8 at byte 1": trie(good, b"b\xff\0"),
        "points at": trie(changed(0, 0xFFFFFC00), b"b\0"),
        "the trie has a cycle": trie(cycle, b"b\0"),
        "has no value where it says so": trie(changed(leaf, 0), b"b\0"),
        "begins at byte 9": trie(changed(leaf, 9 | 1 << 31), b"b\0"),
        "not at a character": trie(changed(leaf, 1 | 1 << 31), "é\0".encode()),
        "longer than 1024 bytes": trie(good, b"b" * 1025 + b"\0"),
        "a key is longer than 256 bytes": make_charsmap({b"x" * 257: b"y"}),
    }
    for message, charsmap in broken.items():
        with pytest.raises(ModelCorrupt, match=message):
            small(charsmap=charsmap)


def unit_of(units: list[int], key: bytes) -> int:
    """Index of the unit that a key leads to."""
    at = 0
    for byte in key:
        at ^= units[at] >> 10 ^ byte
    return at


def share(units: list[int], key: bytes, other: bytes) -> None:
    """Gives the node of key the children of the node of other."""
    node, base = unit_of(units, key), unit_of(units, other)
    base ^= units[base] >> 10
    units[node] = units[node] & 0x1FF | (node ^ base) << 10


@pytest.mark.parametrize(("tail", "accepted"), [(54, True), (55, True), (56, False), (200, False)])
def test_keys_that_share_their_ends_are_measured_whole(tail: int, accepted: bool) -> None:
    units = double_array({b"a" + b"x" * 100: 0, b"b" + b"y" * 101: 0, b"c" + b"z" * (tail + 1): 0})
    share(units, b"b" + b"y" * 100, b"a")
    share(units, b"c" + b"z" * tail, b"b")
    charsmap = trie(units, b"b\0")
    if accepted:
        assert small(charsmap=charsmap).encode("c" + "z" * tail + "y" * 100 + "x" * 100) == [1, 3]
    else:
        with pytest.raises(ModelCorrupt, match="a key is longer than 256 bytes"):
            small(charsmap=charsmap)


def test_the_limits_of_a_map_are_inside() -> None:
    tokenizer = small(charsmap=make_charsmap({b"x" * 256: b"ab", b"y": b"a" * 1024}))
    assert tokenizer.encode("x" * 256) == [1, 2, 3]
    assert tokenizer.encode("y") == [1] + [2] * 1024
    with pytest.raises(InvalidRequest, match="longer than 33554432 bytes after normalisation"):
        tokenizer.encode("y" * (1 << 16))


def test_a_key_that_ends_inside_a_character_leaves_replacement_characters() -> None:
    pieces = ["<unk>", "▁", "a", "\ufffd"]
    charsmap = make_charsmap({"é".encode()[:1]: b"a"})
    tokenizer = _core.Tokenizer(pieces, [0.0, -1.0, -1.0, -1.0], [2, 1, 1, 1], charsmap, 0)
    assert tokenizer.encode("é") == [1, 2, 3]


def test_random_maps_equal_sentencepiece(trained: Vocabulary) -> None:
    rng = random.Random(11)
    alphabet = ["a", "b", "é", "e", "\u0301", "日", "😀", " ", "\u3000", "<", "\n"]
    outputs = ["", " ", "  ", " a", "a ", "b", "aé", "▁", "日", "de", " \u0301"]
    for _ in range(25):
        keys = {"".join(rng.choices(alphabet, k=rng.randint(1, 4))).encode() for _ in range(rng.randint(1, 40))}
        charsmap = make_charsmap({key: rng.choice(outputs).encode() for key in keys})
        reference = sentencepiece.SentencePieceProcessor(model_proto=with_charsmap(trained.model, charsmap))
        tokenizer = _core.Tokenizer(trained.pieces, trained.scores, trained.types, charsmap)
        for _ in range(100):
            text = "".join(rng.choices(alphabet, k=rng.randint(1, 15)))
            expected = [3 if i == 0 else i + 1 for i in reference.encode(text)]
            assert tokenizer.encode(text) == expected, (text, keys)


def test_mutated_maps_are_refused_or_work(trained: Vocabulary) -> None:
    rng = random.Random(12)
    accepted = 0
    for _ in range(150):
        charsmap = bytearray(trained.charsmap)
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            charsmap[rng.randrange(len(charsmap))] = rng.randrange(256)
        if rng.random() < 0.1:
            del charsmap[rng.randrange(len(charsmap)) :]
        try:
            tokenizer = _core.Tokenizer(trained.pieces[:40], [-1.0] * 40, trained.types[:40], bytes(charsmap))
        except ModelCorrupt:
            continue
        accepted += 1
        ids = tokenizer.encode("".join(chr(rng.randrange(0x20, 0x3000)) for _ in range(2_000)))
        assert all(0 <= i < 40 for i in ids)
    assert 0 < accepted < 150
