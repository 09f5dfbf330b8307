"""What model files say of themselves (model_info): every key is checked for presence, type and range."""

import math

import pytest
from helpers.gguf_builder import GgufBuilder
from helpers.gguf_builder import f32 as f32_tensor
from helpers.tiny import GgufContent, make_tiny, write_gguf

from kosmos_edge import _core
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

TINY = make_tiny()
FIRST_INDEX = TINY.vocabulary.id("<patch_index_0000>")
NAN, INF = math.nan, math.inf


def config_of(tmp_path, **changes):
    """model_info of the tiny model's metadata after changes: key (dots as __) -> (type, value), or None to drop it."""
    metadata = dict(TINY.metadata)
    for key, entry in changes.items():
        key = key.replace("__", ".")
        if entry is None:
            del metadata[key]
        else:
            metadata[key] = entry
    path = tmp_path / "config.gguf"
    write_gguf(path, GgufContent(metadata))
    return _core.model_info(str(path))


def refused(tmp_path, message: str, **changes) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        config_of(tmp_path, **changes)


def test_reads_every_number(tmp_path):
    config = config_of(tmp_path)
    vision, decoder = config.pop("vision"), config.pop("decoder")
    assert vision.pop("mean") == pytest.approx(TINY.config.mean, rel=1e-7)
    assert vision.pop("std") == pytest.approx(TINY.config.std, rel=1e-7)
    assert vision.pop("eps") == decoder.pop("eps") == pytest.approx(1e-5, rel=1e-7)
    assert vision == {"image_size": 56, "patch_size": 14, "width": 256, "ff_width": 512, "layers": 2, "heads": 4}
    assert decoder == {
        "width": 256, "ff_width": 512, "layers": 2, "heads": 4, "context": 512, "vocab": len(TINY.vocabulary.pieces),
    }  # fmt: skip
    tag = TINY.vocabulary.id
    prompts = {key.removeprefix("kosmos2.prompt."): TINY.metadata[key][1] for key in TINY.metadata if ".prompt." in key}
    prompts |= {"read": "", "markdown": ""}
    assert config == {
        "architecture": "kosmos2", "name": "tiny", "notice": "", "trained_tasks": "", "context": 512,
        "vocabulary": len(TINY.vocabulary.pieces), "image_tokens": 64, "width": 256, "embedding": 0,
        "tasks": ["caption", "ask", "generate", "score", "ground", "locate", "describe"],
        "preprocessing": "resized to 56 x 56, aspect not kept",
        "latents": 64, "location_bins": 32, "max_new_tokens": 128, "no_repeat_ngram_size": 3,
        "repetition_penalty": 1.0,
        "bos": 0, "eos": 2, "pad": 1, "unk": 3, "prompts": prompts,
        "image": {"before": [tag("<image>")], "row": 4, "row_step": 1, "after": [tag("</image>")], "segment": 0},
        "grounding": {
            "location_bins": 32, "phrase_begin": tag("<phrase>"), "phrase_end": tag("</phrase>"),
            "object_begin": tag("<object>"), "object_end": tag("</object>"),
            "delimiter": tag("</delimiter_of_multi_objects/>"), "first_location": FIRST_INDEX,
        },
    }  # fmt: skip


OPTIONAL = {"general.quantization_version", "general.alignment", "tokenizer.ggml.add_bos_token"} | {
    key for key in TINY.metadata if key.startswith("general.") and key != "general.architecture"
} | {"kosmos2.converter"}  # fmt: skip


@pytest.mark.parametrize("key", sorted(set(TINY.metadata) - OPTIONAL))
def test_every_key_is_required_and_typed(tmp_path, key):
    name = key.replace(".", "__")
    refused(tmp_path, f'key "{key}" is missing; expected ', **{name: None})
    refused(tmp_path, f'key "{key}" is uint64; expected ', **{name: ("u64", 1)})
    other = ("[u32]", [1, 2]) if TINY.metadata[key][0] != "[u32]" else ("[u8]", [1])
    refused(tmp_path, f'key "{key}" is an array of 2 uint32; expected ', **{name: other})


@pytest.mark.parametrize("key", sorted(OPTIONAL - {"general.alignment"}))
def test_other_keys_are_optional(tmp_path, key):
    assert config_of(tmp_path, **{key.replace(".", "__"): None})["latents"] == 64
    assert config_of(tmp_path, some__unknown__key=("u32", 7))["latents"] == 64


RANGES = {
    "kosmos2.context_length": (8, 131072), "kosmos2.embedding_length": (8, 65536), "kosmos2.block_count": (1, 512),
    "kosmos2.feed_forward_length": (8, 262144), "kosmos2.attention.head_count": (1, 1024),
    "kosmos2.vocab_size": (16, 1048576), "kosmos2.image_token_count": (1, 4096), "kosmos2.location_bins": (2, 100),
    "kosmos2.first_slot_token_id": (0, 1048576), "kosmos2.generation.max_new_tokens": (1, 131072),
    "kosmos2.generation.no_repeat_ngram_size": (0, 131072), "clip.vision.image_size": (1, 4096),
    "clip.vision.patch_size": (1, 256), "clip.vision.embedding_length": (8, 65536),
    "clip.vision.feed_forward_length": (8, 262144), "clip.vision.block_count": (1, 512),
    "clip.vision.projection_dim": (8, 65536), "clip.vision.attention.head_count": (1, 1024),
    "tokenizer.ggml.bos_token_id": (0, 1048576), "tokenizer.ggml.eos_token_id": (0, 1048576),
    "tokenizer.ggml.unknown_token_id": (0, 1048576), "tokenizer.ggml.padding_token_id": (0, 1048576),
}  # fmt: skip


@pytest.mark.parametrize("key", RANGES)
def test_ranges_of_whole_numbers(tmp_path, key):
    low, high = RANGES[key]
    for value in {0, low - 1, high + 1, 2**31, 2**32 - 1}:
        if not low <= value <= high and value >= 0:
            message = rf"{key} is {value}; expected {low}\.\.{high}"
            refused(tmp_path, message, **{key.replace(".", "__"): ("u32", value)})


def test_every_whole_number_has_a_range():
    keys = {key for key, (kind, _) in TINY.metadata.items() if kind == "u32"}
    assert set(RANGES) == {key for key in keys if not key.startswith("general.")}


@pytest.mark.parametrize("key", ["kosmos2.attention.layer_norm_epsilon", "clip.vision.attention.layer_norm_epsilon"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 0.0, -1e-5, 0.11, 1e-13])
def test_ranges_of_epsilon(tmp_path, key, value):
    refused(tmp_path, f"{key} is .*; expected 1e-12..0.1", **{key.replace(".", "__"): ("f32", value)})


@pytest.mark.parametrize("value", [[0.5, 0.5], [0.5] * 4, [], [0.5, 0.5, NAN], [0.5, INF, 0.5]])
def test_mean_and_std_are_three_finite_numbers(tmp_path, value):
    refused(tmp_path, "clip.vision.image_mean has ", clip__vision__image_mean=("[f32]", value))
    refused(tmp_path, "clip.vision.image_std has ", clip__vision__image_std=("[f32]", value))


def test_std_is_positive(tmp_path):
    for bad in (0.0, -0.2):
        refused(tmp_path, "clip.vision.image_std has ", clip__vision__image_std=("[f32]", [0.2, bad, 0.2]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kosmos2.attention.head_count": 3}, "decoder has 3 heads in a width of 256; expected heads of 8, 16, 24"),
        ({"kosmos2.attention.head_count": 64}, "decoder has 64 heads"),  # of 4 values
        ({"clip.vision.attention.head_count": 5}, "vision encoder has 5 heads in a width of 256"),
        ({"kosmos2.embedding_length": 512, "kosmos2.attention.head_count": 1, "clip.vision.projection_dim": 512},
         "decoder has 1 heads in a width of 512"),
        ({"clip.vision.projection_dim": 128}, "projection_dim is 128; expected kosmos2.embedding_length, 256"),
        ({"clip.vision.patch_size": 15}, "image_size is 56; expected a multiple of clip.vision.patch_size, 15"),
        ({"clip.vision.image_size": 4096, "clip.vision.patch_size": 16}, "pictures have 65536 patches; at most 16384"),
        ({"kosmos2.context_length": 67}, "context_length is 67; expected room for a picture's 64 tokens and 4 more"),
        ({"kosmos2.context_length": 127}, "max_new_tokens is 128; expected at most kosmos2.context_length, 127"),
        ({"kosmos2.first_slot_token_id": 1_000_000}, "first_slot_token_id is 1000000; expected room for 64 slots"),
        ({"kosmos2.context_length": 131072, "kosmos2.embedding_length": 65536, "clip.vision.projection_dim": 65536,
          "kosmos2.attention.head_count": 256}, "context_length times kosmos2.embedding_length is 8589934592; at most"),
        ({"kosmos2.vocab_size": 1000}, "tokenizer.ggml.tokens has [0-9]+ elements; expected kosmos2.vocab_size, 1000"),
        ({"tokenizer.ggml.bos_token_id": 1_000_000}, "bos_token_id is 1000000; expected less than kosmos2.vocab_size"),
        ({"tokenizer.ggml.bos_token_id": 4}, "bos_token_id is 4, a token of type 1; expected type 3"),
        ({"tokenizer.ggml.unknown_token_id": 2}, "unknown_token_id is 2, a token of type 3; expected type 2"),
        ({"tokenizer.ggml.eos_token_id": 0}, "begin, end and padding share a token id: 0, 0, 1"),
        ({"general.quantization_version": 1}, "general.quantization_version is 1; expected 2"),
    ],
)  # fmt: skip
def test_numbers_that_contradict_each_other(tmp_path, changes, message):
    refused(tmp_path, message, **{key.replace(".", "__"): ("u32", value) for key, value in changes.items()})


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        (
            "general.architecture",
            ("str", "llama"),
            'general.architecture is "llama"; expected one that this build runs: kosmos2',
        ),
        ("clip.projector_type", ("str", "mlp"), 'clip.projector_type is "mlp"'),
        ("tokenizer.ggml.model", ("str", "gpt2"), 'tokenizer.ggml.model is "gpt2"; expected "t5"'),
        ("clip.has_vision_encoder", ("bool", False), "clip.has_vision_encoder is false; only true is supported"),
        ("clip.use_gelu", ("bool", True), "clip.use_gelu is true; only false is supported"),
        ("kosmos2.prompt.caption", ("str", "x" * 4097), "kosmos2.prompt.caption has 4097 bytes; expected at most 4096"),
        ("kosmos2.prompt.locate", ("str", b"\xff"), "kosmos2.prompt.locate has 1 bytes; .* valid UTF-8"),
    ],
)
def test_texts_and_flags(tmp_path, key, entry, message):
    refused(tmp_path, message, **{key.replace(".", "__"): entry})


def vocabulary(index: int, **change) -> dict:
    """The tiny vocabulary with token `index` changed: piece=, score= or type=."""
    v = TINY.vocabulary
    kinds = {
        "piece": ("tokens", "[str]", v.pieces),
        "score": ("scores", "[f32]", v.scores),
        "type": ("token_type", "[i32]", v.types),
    }
    out = {}
    for what, value in change.items():
        key, kind, values = kinds[what]
        out[f"tokenizer__ggml__{key}"] = (kind, [*values[:index], value, *values[index + 1 :]])
    return out


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (5, {"piece": ""}, "token 5 has 0 bytes; expected 1..1024"),
        (5, {"piece": "x" * 1025}, "token 5 has 1025 bytes"),
        (5, {"piece": b"\xe2\x96"}, "token 5 has 2 bytes; expected 1..1024 of valid UTF-8"),
        (6, {"piece": "▁the"}, 'token 6 is "▁the", as is token 5'),
        (5, {"type": 0}, "token 5 has type 0; expected 1..5"),
        (5, {"type": 6}, "token 5 has type 6"),
        (5, {"type": -1}, "token 5 has type -1"),
        (5, {"score": NAN}, "token 5 has score -?nan; expected a finite number"),
        (5, {"score": INF}, "token 5 has score inf"),
        (FIRST_INDEX, {"piece": "gone"}, "tokens lacks <patch_index_0000>"),
        (FIRST_INDEX + 1023, {"piece": "gone"}, "tokens lacks <patch_index_1023>"),
        (FIRST_INDEX + 7, {"type": 1}, "token <patch_index_0007> has type 1; expected 4"),
        (FIRST_INDEX - 1, {"piece": "<ground>"}, "tokens lacks <grounding>"),
        (TINY.vocabulary.id("<image>"), {"type": 3}, "token <image> has type 3; expected 4"),
    ],
)
def test_tokens(tmp_path, index, change, message):
    refused(tmp_path, message, **vocabulary(index, **change))


def test_patch_indices_follow_each_other(tmp_path):
    pieces = list(TINY.vocabulary.pieces)
    i = FIRST_INDEX + 3
    pieces[i], pieces[i + 1] = pieces[i + 1], pieces[i]
    refused(tmp_path, f"<patch_index_0003> is token {i + 1}; expected {i}", tokenizer__ggml__tokens=("[str]", pieces))
    refused(tmp_path, "tokens lacks <patch_index_1024>", kosmos2__location_bins=("u32", 33))
    assert config_of(tmp_path, kosmos2__location_bins=("u32", 10))["location_bins"] == 10


def test_path(tmp_path):
    with pytest.raises(ModelNotFound):
        _core.model_info(str(tmp_path / "none.gguf"))


# ------------------------------------------------------------------------------------ tensors by name and shape


@pytest.fixture
def three(tmp_path) -> str:
    """A file of three small tensors."""
    path = tmp_path / "three.gguf"
    tensors = [f32_tensor(b"a", [2, 3], [1, 2, 3, 4, 5, 6]), f32_tensor(b"b", [2], [7, 8]), f32_tensor(b"c", [1], [9])]
    path.write_bytes(GgufBuilder(tensors=tensors).build())
    return str(path)


def test_tensors_are_claimed_by_name_and_shape(three):
    claim = _core.testing.claim_tensors
    assert claim(three, [("a", [3, 2]), ("b", [2]), ("c", [1])]) == [[1, 2, 3, 4, 5, 6], [7, 8], [9]]
    with pytest.raises(ModelCorrupt, match=r"tensor d is missing; expected shape \(4, 5\)"):
        claim(three, [("d", [4, 5])])
    for shape in ([2, 3], [6], [3, 2, 1]):
        with pytest.raises(ModelCorrupt, match=r"tensor a has shape \(3, 2\); expected \("):
            claim(three, [("a", shape)])
    with pytest.raises(ModelCorrupt, match=r"2 tensors are no part of this model: b \(2\), c \(1\)$"):
        claim(three, [("a", [3, 2])])


def test_only_five_unused_tensors_are_listed(tmp_path):
    path = tmp_path / "many.gguf"
    path.write_bytes(GgufBuilder(tensors=[f32_tensor(b"t%d" % i, [1], [0]) for i in range(7)]).build())
    with pytest.raises(ModelCorrupt, match=r"7 tensors are no part of this model: t0 \(1\), .*t4 \(1\), \.\.\.$"):
        _core.testing.claim_tensors(str(path), [])
