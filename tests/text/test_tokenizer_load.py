"""The tokenizer of a GGUF file, by tokenizer.ggml.model; and streaming: deltas are whole characters."""

import random
from pathlib import Path
from typing import Any

import pytest
from helpers.bpe_vocabularies import SpmBpe, random_texts
from helpers.gguf_builder import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT8, UINT32, GgufBuilder
from helpers.vocabularies import Vocabulary, train

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt


@pytest.fixture(scope="module")
def spm() -> SpmBpe:
    return SpmBpe(added=("<image>",))


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return train(tmp_path_factory.mktemp("spm"))


LETTERS = [chr(c) for c in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144)]]
BYTE_LEVEL = [*LETTERS, "th", "Ġth", "</s>", "<image>"]  # the space is U+0120
MERGES = ["t h", "Ġ th"]


def write(path: Path, **values: Any) -> str:
    """A GGUF file of tokenizer.ggml.* keys."""
    kinds = {
        "tokens": (STRING, lambda v: [p.encode() for p in v]), "merges": (STRING, lambda v: [p.encode() for p in v]),
        "scores": (FLOAT32, list), "token_type": (INT32, list), "precompiled_charsmap": (UINT8, list),
    }  # fmt: skip
    builder = GgufBuilder()
    for key, value in values.items():
        if key in kinds:
            kind, convert = kinds[key]
            entry: tuple[int, Any] = (ARRAY, (kind, convert(value)))
        elif isinstance(value, bool):
            entry = (BOOL, int(value))
        else:
            entry = (UINT32, value) if isinstance(value, int) else (STRING, value.encode())
        builder.metadata[b"tokenizer.ggml." + key.encode()] = entry
    path.write_bytes(builder.build())
    return str(path)


def spm_keys(spm: SpmBpe, **more: Any) -> dict[str, Any]:
    return {"model": "llama", "tokens": spm.pieces, "scores": spm.scores, "token_type": spm.types} | more


def byte_keys(**more: Any) -> dict[str, Any]:
    types = [1] * (len(BYTE_LEVEL) - 2) + [3, 4]
    return {"model": "gpt2", "pre": "gpt-2", "tokens": BYTE_LEVEL, "token_type": types, "merges": MERGES} | more


def test_t5_is_unigram(unigram: Vocabulary, tmp_path: Path) -> None:
    v = unigram
    path = write(tmp_path / "a.gguf", model="t5", tokens=v.pieces, scores=v.scores, token_type=v.types,
                 precompiled_charsmap=v.charsmap, unknown_token_id=3)  # fmt: skip
    for text in random_texts(v.pieces[4:200], 200, seed=1):
        assert _core.Tokenizer.load(path).encode(text) == v.expected(text)


def test_llama_is_sentencepiece_bpe_with_its_options(spm: SpmBpe, tmp_path: Path) -> None:
    options = {
        "blank_prefix": "add_space_prefix", "fold_blanks": "remove_extra_whitespaces",
        "prefix_every_stretch": "space_prefix_every_segment", "prefix_before_blank": "space_prefix_before_space",
    }  # fmt: skip
    text = "  ba ke<image>lo  <image> mi "
    assert _core.Tokenizer.load(write(tmp_path / "a.gguf", **spm_keys(spm))).encode_with_tags(
        text
    ) == spm.tokenizer().encode_with_tags(text)
    seen = set()
    for name, key in options.items():
        for value in (False, True):
            loaded = _core.Tokenizer.load(write(tmp_path / "a.gguf", **spm_keys(spm, **{key: value})))
            ids = loaded.encode_with_tags(text)
            assert ids == spm.tokenizer(**{name: value}).encode_with_tags(text), (name, value)
            seen.add(tuple(ids))
    assert len(seen) == 5  # each option matters to this text


def test_gpt2_is_byte_level_bpe(tmp_path: Path) -> None:
    tokenizer = _core.Tokenizer.load(write(tmp_path / "a.gguf", **byte_keys()))
    assert [tokenizer.piece(i) for i in tokenizer.encode_with_tags("th th<image>é")] == [
        "th",
        "Ġth",
        "<image>",
        "Ã",
        "©",
    ]
    for pre in ("llama-bpe", "dbrx", "qwen2"):
        assert _core.Tokenizer.load(write(tmp_path / "a.gguf", **byte_keys(pre=pre))).encode("th th") == [
            BYTE_LEVEL.index("th"),
            BYTE_LEVEL.index("Ġth"),
        ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, 'tokenizer.ggml.model is "bert", expected "t5", "llama" or "gpt2"'),
        ({"pre": "deepseek"}, 'tokenizer.ggml.pre is "deepseek", expected'),
        ({"add_space_prefix": True}, "supports only false"),
        ({"merges": ["t h", "t h"]}, "occurs twice"),
        ({"token_type": [1]}, "pieces but 1 types"),
        ({"pre": 7}, "tokenizer.ggml.pre"),
    ],
)
def test_other_files_are_refused_with_their_path(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", **byte_keys(**change))
    with pytest.raises(ModelCorrupt, match=message) as caught:
        _core.Tokenizer.load(path)
    assert path in str(caught.value)


# ---- streaming


def byte_level() -> _core.Tokenizer:
    return _core.Tokenizer.byte_bpe(BYTE_LEVEL, byte_keys()["token_type"], MERGES, "gpt2")


@pytest.mark.parametrize("kind", ["spm", "byte"])
@pytest.mark.parametrize("keep_tags", [True, False])
def test_deltas_are_whole_characters_and_add_up(kind: str, keep_tags: bool, spm: SpmBpe) -> None:
    tokenizer = spm.tokenizer() if kind == "spm" else byte_level()
    rng = random.Random(6)
    texts = random_texts(["ba", "日", "🙂"], 300, seed=13)
    for text in texts:
        ids = tokenizer.encode_with_tags("<image>" + text)
        ids += [rng.randrange(tokenizer.size) for _ in range(rng.randint(0, 6))]
        decoder = _core.StreamDecoder(tokenizer, keep_tags)
        deltas = [decoder.push(i) for i in ids] + [decoder.finish()]
        kept = [i for i in ids if keep_tags or tokenizer.type(i) != 4]
        assert "".join(deltas) == tokenizer.decode(kept)


def test_a_character_is_held_back_until_it_is_whole(spm: SpmBpe) -> None:
    decoder = _core.StreamDecoder(byte_level())
    ids = byte_level().encode("🙂é")
    assert [decoder.push(i) for i in ids] == ["", "", "", "🙂", "", "é"]
    decoder = _core.StreamDecoder(byte_level())
    assert [decoder.push(i) for i in ids[:2]] == ["", ""]
    assert decoder.push(byte_level().encode("x")[0]) == "\ufffdx"
    assert decoder.push(ids[0]) == ""
    assert decoder.finish() == "\ufffd"
    tokenizer = spm.tokenizer()
    smile = [tokenizer.find(f"<0x{b:02X}>") for b in "🙂".encode()]
    decoder = _core.StreamDecoder(tokenizer)
    assert [decoder.push(i) for i in [*smile, tokenizer.find("ba")]] == ["", "", "", "", "🙂ba"]
