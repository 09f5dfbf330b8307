"""Scales folded into norms: the same model, bit by bit, with channels of more equal size."""

import array
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import png_folder
from helpers.tiny import make_tiny, write_tiny
from models.description import described

from kosmos_edge import _core, load
from kosmos_edge.calibration import calibration_set, record
from kosmos_edge.convert import folding, requantize
from kosmos_edge.convert.calibrated import Calibration
from kosmos_edge.convert.statistics import Inputs, Statistics, recorded
from kosmos_edge.errors import InvalidRequest


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return png_folder(tmp_path_factory.mktemp("pictures"), 8)


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, _, shape, *_ in _core.GgufFile(str(path)).tensors()}


def uneven(source: Path, target: Path) -> Path:
    """The same model, other floats: channels behind norms are up to 64 times larger, so that there is much to fold."""
    random = np.random.default_rng(5)
    shapes = shapes_of(source)
    everything = Statistics({n: Inputs(1, array.array("f", bytes(4 * s[-1]))) for n, s in shapes.items()}, [], 1)
    factors = folding.factors_of(source, everything)
    for norm in [name for name in factors if name.endswith("norm.weight") or ("ln" in name and "weight" in name)]:
        prefix, part = norm.removesuffix(".weight").rsplit(".", 1)
        up = array.array("f", (2.0 ** random.integers(-6, 7, shapes[norm][-1])).tolist())
        down = array.array("f", (1 / value for value in up))
        readers = [f"{prefix}.{reader}.weight" for reader in folding._READERS[part]]
        factors |= {name: down for name in readers if name in factors}
        factors |= {name: up for name in (norm, norm.removesuffix("weight") + "bias") if name in factors}
    requantize(source, target, type="f32", factors=factors)
    return target


@pytest.mark.parametrize("architecture", ["kosmos1", "kosmos2", "kosmos2_5", "llava"])
def test_every_answer_keeps_its_bits(architecture: str, pictures: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf", tiny=described()[architecture].tiny)
    source = uneven(tmp_path / "tiny.gguf", tmp_path / "uneven.gguf")
    things = calibration_set(pictures)
    shapes = shapes_of(source)
    before = recorded(record(source, things, set()), shapes, ["x"], 1)
    factors = folding.factors_of(source, before)
    requantize(source, tmp_path / "folded.gguf", type="f32", factors=factors)
    assert sum(value != 1 for columns in factors.values() for value in columns) > 0.4 * sum(map(len, factors.values()))

    after = recorded(record(tmp_path / "folded.gguf", things, set()), shapes, ["x"], 1)
    known = folding.folded(before, factors)
    assert known.sha256 == before.sha256
    assert {name: (row.count, row.squares, row.sum) for name, row in known.inputs.items()} == {
        name: (row.count, row.squares, row.sum) for name, row in after.inputs.items()
    }  # what was recorded is what the folded model would have given, to the last bit
    watched = {"blk.0.attn_q.weight", "blk.1.ffn_down.weight", "v.blk.0.ffn_up.weight"}
    for name in watched & set(factors):  # LLaMA has no norm before ffn_down
        spread = [np.std(np.log2(np.asarray(row.inputs[name].squares))) for row in (before, after)]
        assert spread[1] < 0.3 * spread[0], (name, spread)

    with load(source, device="cpu") as a, load(tmp_path / "folded.gguf", device="cpu") as b:
        verbs = {
            "caption": lambda m, image: m.caption(image, max_tokens=8),
            "ask": lambda m, image: m.ask(image, "How many?", max_tokens=8),
            "read": lambda m, image: m.read(image, max_tokens=8),
        }
        said = [verb for name, verb in verbs.items() if name in a.model_info["tasks"]]
        assert said
        for image in (pictures / "0.png", pictures / "1.png"):
            for verb in said:
                one, other = verb(a, image), verb(b, image)
                assert one.token_ids == other.token_ids
                assert one.logprobs == other.logprobs


def test_channels_of_no_use_stay(tmp_path: Path) -> None:
    """A channel that is always 0, and one that is nearly so: no factor is 0 or infinite."""
    write_tiny(tmp_path / "m.gguf", tiny=make_tiny(0))
    shapes = shapes_of(tmp_path / "m.gguf")
    name = "blk.0.ffn_up.weight"
    squares = array.array("f", [0.0, 1e-36, *[4.0] * (shapes[name][-1] - 2)])
    found = folding.factors_of(tmp_path / "m.gguf", Statistics({name: Inputs(2, squares)}, [], 1))
    assert set(found) == {name, "blk.0.ffn_norm.weight", "blk.0.ffn_norm.bias"}
    assert found[name][0] == 1 and found[name][1] == 2.0**-folding.MOST and math.isfinite(sum(found[name]))
    inverse = found["blk.0.ffn_norm.weight"]
    assert [a * b for a, b in zip(inverse, found[name], strict=True)] == [1.0] * len(squares)


def test_only_what_one_norm_alone_gives_is_folded(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.gguf", tiny=make_tiny(0))
    shapes = shapes_of(tmp_path / "m.gguf")
    width = shapes["blk.0.attn_q.weight"][-1]
    even, other = (Inputs(1, array.array("f", [value] * (width - 1) + [9.0])) for value in (1.0, 2.0))
    parts = ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight")
    known = Statistics(dict.fromkeys(parts, even), [], 1)
    assert set(folding.factors_of(tmp_path / "m.gguf", known)) == {
        *parts,
        "blk.0.attn_norm.weight",
        "blk.0.attn_norm.bias",
    }
    known = Statistics({**dict.fromkeys(parts, even), parts[2]: other}, [], 1)
    assert folding.factors_of(tmp_path / "m.gguf", known) == {}
    known = Statistics(dict.fromkeys(parts[:2], even), [], 1)
    assert folding.factors_of(tmp_path / "m.gguf", known) == {}


def test_other_architectures_stay(tmp_path: Path) -> None:
    """Norms behind sums, as in query transformers, are read by more than matrices."""
    write_tiny(tmp_path / "m.gguf", tiny=described()["blip2"].tiny)
    shapes = shapes_of(tmp_path / "m.gguf")
    known = {n: Inputs(1, array.array("f", [1.0] * s[-1])) for n, s in shapes.items() if len(s) == 2}
    assert folding.factors_of(tmp_path / "m.gguf", Statistics(known, [], 1)) == {}


def test_factors_go_with_no_calibration(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.gguf", tiny=make_tiny(0))
    with pytest.raises(InvalidRequest, match="factors: expected no calibration"):
        requantize(
            *(tmp_path / "m.gguf", tmp_path / "n.gguf"),
            type="q4_k_m",
            calibration=Calibration(Statistics({}, [], 1)),
            factors={"output_norm.weight": array.array("f", [1.0])},
        )


def test_columns_are_multiplied_row_by_row() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    by = np.float32([1, 2, 0.5, -4])
    assert _core.multiply_columns(x, by) == (x * by).tobytes()
    assert _core.multiply_columns(b"", by) == b""
    for data, factors in ((x, by[:0]), (x, by[:0].tobytes() + b"123"), (x.tobytes()[:-4], by)):
        with pytest.raises(InvalidRequest, match="as many values as the factors"):
            _core.multiply_columns(data, factors)
