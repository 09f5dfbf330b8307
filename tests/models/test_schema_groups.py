"""The shared groups of schema rows, one by one: what decoders and vocabularies of every kind must say of themselves."""

import math
from pathlib import Path

import pytest
from helpers.tiny import GgufContent, write_gguf

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt

DECODER = {
    "x.context_length": ("u32", 64), "x.embedding_length": ("u32", 96), "x.block_count": ("u32", 2),
    "x.feed_forward_length": ("u32", 160), "x.attention.head_count": ("u32", 6), "x.vocab_size": ("u32", 300),
    "x.attention.head_count_kv": ("u32", 2), "x.attention.layer_norm_rms_epsilon": ("f32", 1e-6),
    "x.rope.freq_base": ("f32", 500000.0),
}  # fmt: skip
PIECES = ["<unk>", "<s>", "</s>", "a", "b", "ab", "<image>", "<pad>"]
TYPES = [2, 3, 3, 1, 1, 1, 4, 3]
VOCABULARY = {
    "tokenizer.ggml.tokens": ("[str]", PIECES), "tokenizer.ggml.token_type": ("[i32]", TYPES),
    "tokenizer.ggml.eos_token_id": ("u32", 2),
}  # fmt: skip
SPM = {
    **VOCABULARY, "tokenizer.ggml.model": ("str", "llama"), "tokenizer.ggml.scores": ("[f32]", [0.0] * 8),
    "tokenizer.ggml.bos_token_id": ("u32", 1), "tokenizer.ggml.unknown_token_id": ("u32", 0),
    "tokenizer.ggml.add_space_prefix": ("bool", True), "tokenizer.ggml.remove_extra_whitespaces": ("bool", False),
}  # fmt: skip
BYTES = {
    **VOCABULARY, "tokenizer.ggml.model": ("str", "gpt2"), "tokenizer.ggml.pre": ("str", "gpt-2"),
    "tokenizer.ggml.merges": ("[str]", ["a b"]),
}  # fmt: skip
GROUPS = {"rotary_decoder": DECODER, "spm_bpe": SPM, "byte_bpe": BYTES}


def read(folder: Path, group: str, **changes) -> dict:
    """The group's facts after changes: the key's end (dots as __) -> (type, value), or None to drop it."""
    metadata = {"general.architecture": ("str", "x"), **GROUPS[group]}
    for end, entry in changes.items():
        key = ("x." if group == "rotary_decoder" else "tokenizer.ggml.") + end.replace("__", ".")
        metadata.pop(key, None)
        if entry is not None:
            metadata[key] = entry
    write_gguf(folder / "x.gguf", GgufContent(metadata))
    return _core.testing.read_group(str(folder / "x.gguf"), group)


def test_what_a_rotary_decoder_says(tmp_path: Path) -> None:
    facts = read(tmp_path, "rotary_decoder")
    assert facts.pop("decoder.eps") == pytest.approx(1e-6)
    assert facts == {
        "decoder.context": 64, "decoder.width": 96, "decoder.layers": 2, "decoder.ff_width": 160, "decoder.heads": 6,
        "decoder.vocab": 300, "decoder.kv_heads": 2, "decoder.rope_base": 500000.0,
    }  # fmt: skip
    read(tmp_path, "rotary_decoder", attention__head_count=("u32", 4), attention__key_length=("u32", 40))
    read(tmp_path, "rotary_decoder", rope__scaling__type=("str", "linear"), rope__scaling__factor=("f32", 4.0))


@pytest.mark.parametrize("key", DECODER)
def test_every_number_of_a_rotary_decoder_is_needed(key: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=f'key "{key}" is missing'):
        read(tmp_path, "rotary_decoder", **{key.removeprefix("x.").replace(".", "__"): None})


@pytest.mark.parametrize(
    ("end", "entry", "message"),
    [
        ("attention__head_count_kv", ("u32", 4), "head_count_kv is 4; expected a divisor of x.attention.head_count, 6"),
        ("attention__head_count_kv", ("u32", 0), "expected 1..1024"),
        ("attention__head_count", ("u32", 7), "7 heads in a width of 96"),
        ("attention__key_length", ("u32", 20), "key_length is 20; expected a multiple of 8"),
        ("attention__key_length", ("u32", 264), "expected 8..256"),
        ("rope__freq_base", ("f32", 0.5), "expected 1..1000000000"),
        ("rope__freq_base", ("f32", math.nan), "expected 1..1000000000"),
        ("rope__scaling__type", ("str", "yarn"), 'is "yarn"; expected "linear"'),
        ("rope__scaling__factor", ("f32", 0.5), "expected 1..10000"),
    ],
)
def test_numbers_of_a_rotary_decoder(end: str, entry: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        read(tmp_path, "rotary_decoder", **{end: entry})


@pytest.mark.parametrize("group", ["spm_bpe", "byte_bpe"])
def test_bpe_vocabularies(group: str, tmp_path: Path) -> None:
    spm = group == "spm_bpe"
    assert read(tmp_path, group) == {"bos": 1 if spm else -1, "eos": 2, "pad": -1, "unk": 0 if spm else -1}
    assert read(tmp_path, group, padding_token_id=("u32", 7))["pad"] == 7
    byte_type = ("[i32]", [*TYPES[:5], 6, *TYPES[6:]])
    if spm:
        read(tmp_path, group, token_type=byte_type)  # the tokenizer wants all 256 of them, the group none
    else:  # pieces of GPT-2's kind are spelled in bytes
        with pytest.raises(ModelCorrupt, match=r"token 5 has type 6; expected 1\.\.5"):
            read(tmp_path, group, token_type=byte_type)
        tag = [*TYPES[:2], 4, *TYPES[3:]]
        assert read(tmp_path, group, token_type=("[i32]", tag))["eos"] == 2  # <|im_end|> in the format of prompts
    needed = [
        "tokens",
        "token_type",
        "eos_token_id",
        "model",
        *(["scores", "bos_token_id"] if spm else ["merges", "pre"]),
    ]
    for name in needed:
        with pytest.raises(ModelCorrupt, match=f"tokenizer.ggml.{name}"):
            read(tmp_path, group, **{name: None})
    for kind in {"t5", "llama", "gpt2"} - {GROUPS[group]["tokenizer.ggml.model"][1]}:
        with pytest.raises(ModelCorrupt, match=r"tokenizer\.ggml\.model is"):
            read(tmp_path, group, model=("str", kind))
    with pytest.raises(ModelCorrupt, match=rf"has type 7; expected 1..{6 if spm else 5}"):
        read(tmp_path, group, token_type=("[i32]", [*TYPES[:5], 7, *TYPES[6:]]))
    with pytest.raises(ModelCorrupt, match="eos_token_id is 3, a token of type 1; expected type 3"):
        read(tmp_path, group, eos_token_id=("u32", 3))
    with pytest.raises(ModelCorrupt, match="share a token id"):
        read(tmp_path, group, padding_token_id=("u32", 2))


def test_begin_and_end_are_one_token_in_byte_level_vocabularies_alone(tmp_path: Path) -> None:
    assert read(tmp_path, "byte_bpe", bos_token_id=("u32", 2))["bos"] == 2
    with pytest.raises(ModelCorrupt, match="share a token id"):
        read(tmp_path, "spm_bpe", bos_token_id=("u32", 2))


def test_scores_and_splits(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"token 3 has score"):
        read(tmp_path, "spm_bpe", scores=("[f32]", [0.0, 0.0, 0.0, math.inf, 0.0, 0.0, 0.0, 0.0]))
    with pytest.raises(ModelCorrupt, match=r"tokenizer.ggml.scores has 7 elements"):
        read(tmp_path, "spm_bpe", scores=("[f32]", [0.0] * 7))
    for pre in ("gpt-2", "llama-bpe", "dbrx", "qwen2"):
        read(tmp_path, "byte_bpe", pre=("str", pre))
    with pytest.raises(ModelCorrupt, match='pre is "tekken"; expected "gpt-2" or "llama-bpe" or "dbrx" or "qwen2"'):
        read(tmp_path, "byte_bpe", pre=("str", "tekken"))
    with pytest.raises(ModelCorrupt, match="add_space_prefix is true; only false"):
        read(tmp_path, "byte_bpe", add_space_prefix=("bool", True))
