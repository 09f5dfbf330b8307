"""Every metadata key x {missing, wrong type, 0, 1, -1, max, max + 1, 2^31, 2^32 - 1, NaN, short and long arrays}: the
file loads and captions, or the error names the key, what was expected and what was found.

What is expected follows from the schema table in the engine and from `CROSS` below, which lists by hand what is
accepted within a row's own bounds: a key that is added to the table without a row here fails.
"""

import math
import re
from pathlib import Path

import pytest
from helpers.small_model import BINS, small_model
from helpers.tiny import write_gguf

from kosmos_edge import _core
from kosmos_edge.errors import KosmosError, ModelCorrupt

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = {row["key"]: row for row in _core.testing.model_schemas()["kosmos2"]}
SMALL = small_model()
PICTURE = bytes(range(256))[: 8 * 8 * 3]
NAN = math.nan
# Per key: the values within its bounds that no other key contradicts, so that the model must load and caption.
CROSS = {
    "general.architecture": set(),
    "general.name": {"", "x" * 4096},
    "general.alignment": {"max"},
    "general.quantization_version": {"max"},
    "general.file_type": {0, 1, "max"},
    "kosmos2.context_length": {"max"},
    "kosmos2.embedding_length": set(),
    "kosmos2.block_count": {1},
    "kosmos2.feed_forward_length": set(),
    "kosmos2.attention.head_count": {1},
    "kosmos2.attention.layer_norm_epsilon": {"max"},
    "kosmos2.vocab_size": set(),
    "kosmos2.image_token_count": set(),
    "kosmos2.location_bins": set(),
    "kosmos2.first_slot_token_id": {0, 1},
    "kosmos2.generation.max_new_tokens": {1},
    "kosmos2.generation.no_repeat_ngram_size": {0, 1, "max"},
    "kosmos2.prompt.caption": {"", "x" * 4096},
    "kosmos2.prompt.caption_detailed": {"", "x" * 4096},
    "kosmos2.prompt.question": set(),
    "kosmos2.prompt.locate": set(),
    "kosmos2.prompt.describe": set(),
    "kosmos2.prompt.grounding": {"", "x" * 4096},
    "kosmos2.notice": {"", "x" * 4096},
    "kosmos2.trained_tasks": {"", "x" * 4096},
    "kosmos2.checksum.sha256": set(),
    "clip.has_vision_encoder": {1},
    "clip.projector_type": set(),
    "clip.use_gelu": {0},
    "clip.vision.image_size": set(),
    "clip.vision.patch_size": set(),
    "clip.vision.embedding_length": set(),
    "clip.vision.feed_forward_length": set(),
    "clip.vision.block_count": {1},
    "clip.vision.projection_dim": set(),
    "clip.vision.attention.head_count": {1},
    "clip.vision.attention.layer_norm_epsilon": {"max"},
    "clip.vision.image_mean": {0, 1, -1, "max"},
    "clip.vision.image_std": {1, "max"},
    "tokenizer.ggml.model": set(),
    "tokenizer.ggml.tokens": set(),
    "tokenizer.ggml.scores": {0, 1, -1, "max"},
    "tokenizer.ggml.token_type": set(),
    "tokenizer.ggml.bos_token_id": {0},
    "tokenizer.ggml.eos_token_id": set(),
    "tokenizer.ggml.unknown_token_id": set(),
    "tokenizer.ggml.padding_token_id": {1},
    "tokenizer.ggml.add_bos_token": {1},
    "tokenizer.ggml.add_space_prefix": {1},
    "tokenizer.ggml.remove_extra_whitespaces": {1},
    "tokenizer.ggml.precompiled_charsmap": {"empty"},
}
KINDS = {"uint32": "u32", "float32": "f32", "bool": "bool", "string": "str", "int32": "i32", "uint8": "u8"}


def trial(path: Path, key: str, entry: tuple | None) -> str:
    """ "" when the model with that entry loads and captions, else the error's text; another exception is a failure."""
    content = small_model()
    if entry is None:
        del content.metadata[key]
    else:
        content.metadata[key] = entry
    write_gguf(path, content, alignment=65536 if key == "general.alignment" else 64)
    try:
        engine = _core.Engine(str(path), threads=1)
    except ModelCorrupt as error:
        return str(error)
    picture = engine.encode_image(PICTURE, 8, 8)
    params = _core.GenerateParams()
    params.max_tokens = 2
    try:
        answer = engine.generate([("image", picture), ("text", "An image of")], params)
    except KosmosError as error:  # non-finite scores are an error of the request, by name
        assert "finite" in str(error), error
        return ""
    assert 1 <= len(answer.token_ids) <= 2
    return ""


def check(path: Path, key: str, entry: tuple | None, accepted: bool, shown: str = "") -> None:
    """The trial's verdict; an error names the key (or one that contradicts it), what was expected, what was found."""
    error = trial(path, key, entry)
    if accepted:
        assert error == "", f"{key} = {entry}"
        return
    assert error.startswith(f"{path}: "), f"{key} = {entry}: {error or 'accepted'}"
    assert re.search(r"expected|supported|accepted|allowed|lacks|no part|too short", error), error
    named = [name for name in SCHEMA if name in error]
    part = re.search(r"the (decoder|vision encoder) has|tensors? |pictures have|room for|tokenizer\.ggml", error)
    assert key in named or named or part, error
    assert shown in error, error


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "hostile.gguf"


def test_the_unchanged_file_captions(path):
    assert trial(path, "general.name", ("str", "small")) == ""


# Read for tokenizers and decoders of other kinds than this architecture has (csrc/text/load_tokenizer.cpp,
# csrc/models/schema_groups.cpp; tests/models/test_schema_groups.py).
OTHERS = {
    f"tokenizer.ggml.{name}" for name in ("merges", "pre", "space_prefix_before_space", "space_prefix_every_segment")
} | {
    f"kosmos2.{name}"
    for name in (
        "attention.head_count_kv", "attention.key_length", "attention.layer_norm_rms_epsilon", "rope.freq_base",
        "rope.scaling.factor", "rope.scaling.type",
    )
}  # fmt: skip


def test_every_key_has_a_row_here_and_every_row_is_a_key():
    assert set(CROSS) == set(SCHEMA)
    assert all(row["min"] <= row["max"] for row in SCHEMA.values())
    # Keys that the engine reads anywhere are keys of the table.
    literal = re.compile(r'"((?:general|clip|tokenizer)\.[a-z0-9_.]+[a-z0-9_])"')
    own = re.compile(r'(?:\ba|\barchitecture|kName)(?: \+|,) "(\.[a-z0-9_.]+[a-z0-9_])"')  # <architecture>.key
    schemas = _core.testing.model_schemas()
    texts = {p: p.read_text(encoding="utf-8") for p in (ROOT / "csrc").rglob("*.cpp")}
    found = {key for text in texts.values() for key in literal.findall(text)}
    for path, text in texts.items():
        keys = own.findall(text)
        if path.stem in set(schemas) - {"kosmos2"}:  # a model's own file
            assert {path.stem + key for key in keys} <= {row["key"] for row in schemas[path.stem]}
        else:
            found |= {"kosmos2" + key for key in keys}
    assert found - set(SCHEMA) == OTHERS
    assert set(SCHEMA) - found == set()


@pytest.mark.parametrize("key", SCHEMA)
def test_missing_and_wrong_types(path, key):
    row = SCHEMA[key]
    if key in SMALL.metadata:
        check(path, key, None, accepted=not row["required"])
    right = f"[{KINDS[row['type']]}]" if row["array"] else KINDS[row["type"]]
    wrong = {
        "u8": 1, "i8": -1, "u16": 1, "i16": -1, "u32": 1, "i32": -1, "u64": 2**63, "i64": -1, "f32": 1.0, "f64": 1.0,
        "bool": True, "str": "1", "[u8]": [1], "[u32]": [], "[f32]": [1.0], "[f64]": [1.0] * 3, "[str]": ["1"],
        "[i32]": [1],
    }  # fmt: skip
    for kind, value in wrong.items():
        if kind == right or (kind == "[u8]" and row["type"] == "uint8"):
            continue
        check(path, key, (kind, value), accepted=False, shown=key)


@pytest.mark.parametrize("key", [key for key, row in SCHEMA.items() if row["type"] in ("uint32", "float32", "bool")])
def test_numbers_and_flags(path, key):
    row = SCHEMA[key]
    kind = KINDS[row["type"]]
    low, high = row["min"], row["max"]
    if kind == "bool":
        for value in (0, 1):
            check(path, key, ("bool", bool(value)), value in CROSS[key], "" if value in CROSS[key] else key)
        return
    if key == "tokenizer.ggml.scores":
        return  # below, with the other arrays
    values = {0, 1, -1, 2**31, 2**32 - 1, "max", "above", "below"} | ({NAN, math.inf} if kind == "f32" else set())
    if kind == "u32":
        values -= {-1}  # that is another type, which test_missing_and_wrong_types tries
    step = 1 if kind == "u32" else max(abs(high), abs(low)) * 1e-3
    for name in values:
        value = {"max": high, "above": high + step, "below": low - step}.get(name, name)
        if kind == "u32":
            value = int(value)
            if value < 0:
                continue
        inside = low <= value <= high
        accepted = inside and (name in CROSS[key] or value in CROSS[key] or (value == high and "max" in CROSS[key]))
        entry = ("[f32]", [value] * 3) if row["array"] else (kind, value)
        check(path, key, entry, accepted, "" if inside else key)


@pytest.mark.parametrize("key", [key for key, row in SCHEMA.items() if row["type"] == "string" and not row["array"]])
def test_texts(path, key):
    values = ["", "x" * 4096, "x" * 4097, b"\xff\xfe", "\x1b[31m", "kosmos2\0", "{question}" * 400, "%s%n" * 100]
    if SCHEMA[key]["only"]:
        values += ["KOSMOS2", "llama", SCHEMA[key]["only"] + " "]
    for value in values:
        inside = isinstance(value, str) and len(value) <= 4096
        free = SCHEMA[key]["only"] is None
        place = SCHEMA[key]["rule"].split()[-1] if SCHEMA[key]["rule"] else ""
        accepted = inside and free and place in value
        if value in ("", "x" * 4096) and inside:
            assert accepted == (value in CROSS[key])
        check(path, key, ("str", value), accepted, "" if accepted else key)


@pytest.mark.parametrize("key", [key for key, row in SCHEMA.items() if row["array"]])
def test_short_and_long_arrays(path, key):
    row = SCHEMA[key]
    kind = f"[{KINDS[row['type']]}]"
    good = SMALL.metadata.get(key, (kind, ["0" * 64] * len(SMALL.tensors)))[1]
    fill = {"string": "new", "float32": 1.0, "int32": 1, "uint8": 0}[row["type"]]
    free = key == "tokenizer.ggml.precompiled_charsmap"
    check(path, key, (kind, []), accepted=free, shown="" if free else key)
    for values in (good[:-1], [*good, fill], [*good, *[fill] * 100_000]):
        if values != good:
            check(path, key, (kind, list(values)), accepted=False, shown=key if not free else "charsmap")


@pytest.mark.parametrize("value", [0, 1, -1, 5, 6, 2**31 - 1, -(2**31)])
def test_types_of_tokens(path, value):
    types = list(SMALL.metadata["tokenizer.ggml.token_type"][1])
    types[9] = value
    check(path, "tokenizer.ggml.token_type", ("[i32]", types), 1 <= value <= 5, "")


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e30, 1.1e30, -1.1e30, 3e38, NAN, math.inf, -math.inf])
def test_scores_of_tokens(path, value):
    scores = list(SMALL.metadata["tokenizer.ggml.scores"][1])
    scores[9] = value
    ok = abs(value) <= 1e30
    check(path, "tokenizer.ggml.scores", ("[f32]", scores), ok, "" if ok else "tokenizer.ggml.scores: token 9")


@pytest.mark.parametrize("value", ["", "x" * 1024, "x" * 1025, b"\xff", "<image>", "<s>", "▁", "\x1b[0m"])
def test_texts_of_tokens(path, value):
    pieces = list(SMALL.metadata["tokenizer.ggml.tokens"][1])
    pieces[11] = value
    ok = value in ("x" * 1024, "\x1b[0m")
    check(path, "tokenizer.ggml.tokens", ("[str]", pieces), ok, "" if ok else "tokenizer.ggml.tokens: token ")


def test_checksums(path):
    good = ["0" * 64] * len(SMALL.tensors)
    key = "kosmos2.checksum.sha256"
    check(path, key, ("[str]", good), accepted=True)
    for bad in ("0" * 63, "0" * 65, "G" + "0" * 63, b"\xff" * 64, ""):
        check(path, key, ("[str]", [bad, *good[1:]]), accepted=False, shown=key)


def test_the_grid_of_the_small_model():
    assert SMALL.metadata["kosmos2.location_bins"] == ("u32", BINS)
