"""Every metadata key of every model x {missing, wrong type, 0, 1, -1, max, max + 1, 2^31, 2^32 - 1, NaN, short and long
arrays}: the file loads and captions, or the error names the key, what was expected and what was found.

What is expected follows from the schema tables in the engine and from `accepted` in the model's description, which
lists by hand what is accepted within a row's own bounds: a key that is added to a table without a row there fails.
"""

import functools
import math
import re
from pathlib import Path

import pytest
from helpers import sweep
from helpers.tiny import GgufContent, write_gguf

from kosmos_edge import _core
from kosmos_edge.errors import KosmosError, ModelCorrupt
from models.description import every

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {name: {row["key"]: row for row in rows} for name, rows in _core.testing.model_schemas().items()}
MODELS = sorted(SCHEMAS)
PICTURE = bytes(range(256))[: 8 * 8 * 3]
NAN = math.nan
KINDS = {"uint32": "u32", "float32": "f32", "bool": "bool", "string": "str", "int32": "i32", "uint8": "u8"}


def rows(wanted) -> pytest.MarkDecorator:
    """Runs a test for each key of each model whose row is wanted."""
    pairs = [(name, key) for name in MODELS for key, row in SCHEMAS[name].items() if wanted(row)]
    return pytest.mark.parametrize("name,key", pairs, ids=[f"{name}: {key}" for name, key in pairs])


def fits(name: str, key: str, *values) -> bool:
    """Whether the model's description accepts one of these values."""
    return any(value in every()[name].accepted[key] for value in values)


@functools.cache
def small(name: str) -> GgufContent:
    """The model's small file, to be left as it is."""
    return every()[name].small()


def trial(path: Path, name: str, key: str, entry: tuple | None) -> str:
    """ "" when the model with that entry loads and captions, else the error's text; another exception is a failure."""
    content = GgufContent(dict(small(name).metadata), small(name).tensors)
    if entry is None:
        del content.metadata[key]
    else:
        content.metadata[key] = entry
    write_gguf(path, content, alignment=65536 if key == "general.alignment" else 64)
    try:
        engine = _core.Engine(str(path), threads=1)
    except ModelCorrupt as error:
        return str(error)
    try:
        every()[name].try_out(engine, (PICTURE, 8, 8))
    except KosmosError as error:  # non-finite scores are an error of the request, by name
        assert "finite" in str(error), error
    return ""


def check(path: Path, name: str, key: str, entry: tuple | None, accepted: bool, shown: str = "") -> None:
    """The trial's verdict; an error names the key (or one that contradicts it), what was expected, what was found."""
    error = trial(path, name, key, entry)
    if accepted:
        assert error == "", f"{key} = {entry}"
        return
    assert error.startswith(f"{path}: "), f"{key} = {entry}: {error or 'accepted'}"
    assert re.search(r"expected|supported|accepted|allowed|lacks|no part|too short", error), error
    named = [key for key in SCHEMAS[name] if key in error]
    part = re.search(r"the (decoder|vision encoder) has|tensors? |pictures have|room for|tokenizer\.ggml", error)
    assert named or part, error
    assert shown in error, error


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "hostile.gguf"


@pytest.mark.parametrize("name", MODELS)
def test_the_unchanged_file_captions(path, name):
    assert trial(path, name, "general.name", ("str", "small")) == ""


@pytest.mark.parametrize("name", MODELS)
def test_every_key_has_a_row_here(name):
    assert set(every()[name].accepted) == set(SCHEMAS[name])
    assert all(row["min"] <= row["max"] for row in SCHEMAS[name].values())


def test_keys_that_the_engine_reads_anywhere_are_keys_of_a_table():
    """And the other way round. Those of a model's own stand for <architecture>.key."""
    literal = re.compile(r'"((?:general|clip|tokenizer)\.[a-z0-9_.]+[a-z0-9_])"')
    own = re.compile(r'(?:\ba|\barchitecture|kName)(?: \+|,) "(\.[a-z0-9_.]+[a-z0-9_])"')
    foreign = "pair.cpp"  # reads llama.cpp's keys and writes those of the tables: tests/models/test_pairs.py
    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "csrc").rglob("*.cpp") if p.name != foreign]
    found = {key for text in texts for key in literal.findall(text)} | {k for text in texts for k in own.findall(text)}
    tables = {key.removeprefix(name) for name, table in SCHEMAS.items() for key in table}
    assert found - tables <= set(_core.testing.group_keys())  # of kinds that no model has
    assert tables - found == set()


@rows(lambda row: True)
def test_missing_and_wrong_types(path, name, key):
    row = SCHEMAS[name][key]
    if key in small(name).metadata:
        check(path, name, key, None, accepted=not row["required"])
    right = f"[{KINDS[row['type']]}]" if row["array"] else KINDS[row["type"]]
    wrong = {
        "u8": 1, "i8": -1, "u16": 1, "i16": -1, "u32": 1, "i32": -1, "u64": 2**63, "i64": -1, "f32": 1.0, "f64": 1.0,
        "bool": True, "str": "1", "[u8]": [1], "[u32]": [], "[f32]": [1.0], "[f64]": [1.0] * 3, "[str]": ["1"],
        "[i32]": [1],
    }  # fmt: skip
    # A row that several models have is tried with every type on the first of them, with some on the others.
    alike = [
        other
        for other in MODELS
        if SCHEMAS[other].get(key.replace(name, other)) == row | {"key": key.replace(name, other)}
    ]
    kinds = list(wrong) if name == alike[0] else sweep.some(list(wrong), 6, alike.index(name))
    for kind in kinds:
        value = wrong[kind]
        if kind == right or (kind == "[u8]" and row["type"] == "uint8"):
            continue
        check(path, name, key, (kind, value), accepted=False, shown=key)


@rows(lambda row: row["type"] in ("uint32", "float32", "bool") or (row["type"] == "int32" and not row["array"]))
def test_numbers_and_flags(path, name, key):
    row = SCHEMAS[name][key]
    kind = KINDS[row["type"]]
    low, high = row["min"], row["max"]
    if kind == "bool":
        for value in (0, 1):
            check(path, name, key, ("bool", bool(value)), fits(name, key, value), "" if fits(name, key, value) else key)
        return
    if key == "tokenizer.ggml.scores":
        return  # below, with the other arrays
    values = {0, 1, -1, 2**31, 2**32 - 1, "max", "above", "below"} | ({NAN, math.inf} if kind == "f32" else set())
    if kind == "u32":
        values -= {-1}  # that is another type, which test_missing_and_wrong_types tries
    if kind == "i32":
        values = {0, 1, -1, 2**31 - 1, -(2**31), "max", "above", "below"}
    step = max(abs(high), abs(low)) * 1e-3 if kind == "f32" else 1
    for given in values:
        value = {"max": high, "above": high + step, "below": low - step}.get(given, given)
        if kind != "f32":
            value = int(value)
            if kind == "u32" and value < 0:
                continue
        inside = low <= value <= high
        accepted = inside and fits(name, key, given, value, *(["max"] if value == high else []))
        entry = ("[f32]", [value] * 3) if row["array"] else (kind, value)
        check(path, name, key, entry, accepted, "" if inside else key)


@rows(lambda row: row["type"] == "string" and not row["array"])
def test_texts(path, name, key):
    row = SCHEMAS[name][key]
    values = ["", "x" * 4096, "x" * 4097, b"\xff\xfe", "\x1b[31m", f"{name}\0", "{question}" * 400, "%s%n" * 100]
    if row["only"]:
        values += [name.upper(), "gemma", row["only"] + " "]
    for value in row["among"]:
        check(path, name, key, ("str", value), fits(name, key, value))  # refused, it may contradict tensors
        values += [value + " ", value.upper()]
    for value in values:
        inside = isinstance(value, str) and len(value) <= 4096
        free = row["only"] is None and not row["among"]
        place = row["rule"].split()[-1] if row["rule"] else ""
        accepted = inside and free and place in value
        if value in ("", "x" * 4096) and inside:
            assert accepted == fits(name, key, value)
        check(path, name, key, ("str", value), accepted, "" if accepted else key)


@rows(lambda row: row["array"])
def test_short_and_long_arrays(path, name, key):
    row = SCHEMAS[name][key]
    kind = f"[{KINDS[row['type']]}]"
    good = small(name).metadata.get(key, (kind, ["0" * 64] * len(small(name).tensors)))[1]
    fill = {"string": "new", "float32": 1.0, "int32": 1, "uint8": 0}[row["type"]]
    free = key in ("tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.merges")
    shown = {"tokenizer.ggml.precompiled_charsmap": "charsmap", "tokenizer.ggml.merges": "merges"}.get(key, key)
    check(path, name, key, (kind, []), accepted=free, shown="" if free else shown)
    for values in (good[:-1], [*good, fill], [*good, *[fill] * 100_000]):
        if values != good:
            fewer = key == "tokenizer.ggml.merges" and len(values) < len(good)
            check(path, name, key, (kind, list(values)), accepted=fewer, shown="" if fewer else shown)


# The vocabulary's elements; token 9 of a small model is a plain piece.


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("value", [0, 1, -1, 5, 6, 7, 2**31 - 1, -(2**31)])
def test_types_of_tokens(path, name, value):
    key = "tokenizer.ggml.token_type"
    types = list(small(name).metadata[key][1])
    types[9] = value
    check(path, name, key, ("[i32]", types), 1 <= value <= 5)  # it is not spelled as a byte, 6


@pytest.mark.parametrize("name", [name for name in MODELS if "tokenizer.ggml.scores" in SCHEMAS[name]])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e30, 1.1e30, -1.1e30, 3e38, NAN, math.inf, -math.inf])
def test_scores_of_tokens(path, name, value):
    scores = list(small(name).metadata["tokenizer.ggml.scores"][1])
    scores[9] = value
    ok = abs(value) <= 1e30
    check(path, name, "tokenizer.ggml.scores", ("[f32]", scores), ok, "" if ok else "tokenizer.ggml.scores: token 9")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("value", ["", "x" * 1024, "x" * 1025, b"\xff", "another", "first", "odd"])
def test_texts_of_tokens(path, name, value):
    pieces = list(small(name).metadata["tokenizer.ggml.tokens"][1])
    odd = min(every()[name].piece_texts, key=len)
    pieces[9] = {"first": pieces[0], "another": pieces[-1], "odd": odd}.get(value, value)  # two are there already
    ok = pieces[9] in every()[name].piece_texts
    check(path, name, "tokenizer.ggml.tokens", ("[str]", pieces), ok, "" if ok else "tokenizer.ggml.tokens: token ")


@pytest.mark.parametrize("name", MODELS)
def test_checksums(path, name):
    good = ["0" * 64] * len(small(name).tensors)
    key = f"{name}.checksum.sha256"
    check(path, name, key, ("[str]", good), accepted=True)
    for bad in ("0" * 63, "0" * 65, "G" + "0" * 63, b"\xff" * 64, ""):
        check(path, name, key, ("[str]", [bad, *good[1:]]), accepted=False, shown=key)
