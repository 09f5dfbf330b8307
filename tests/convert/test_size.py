"""Files of a given size: the choice among options, what a type costs a tensor, and the conversions."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import png, tiny_file
from helpers.tiny import make_tiny
from helpers.tiny_hf import write_hf_folder

from kosmos_edge import _core, load
from kosmos_edge.calibration import calibrated_convert, calibration_set
from kosmos_edge.convert import convert, requantize, stored_type, verify
from kosmos_edge.convert.budget import Option, choose, parse_size, shown, smallest
from kosmos_edge.convert.gguf import TensorInfo
from kosmos_edge.convert.recipe import TYPES
from kosmos_edge.convert.sizing import possible, sampled_rows
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.quality import sensitivity
from kosmos_edge.quality.sensitivity import groups_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("900MB", 900_000_000),
        ("1.2GB", 1_200_000_000),
        ("1.5 gib", 3 << 29),
        ("858MiB", 858 << 20),
        ("12kB", 12_000),
        ("77", 77),
        (77, 77),
        ("0.000000001GB", 1),
    ],
)
def test_sizes_are_read(text: str | int, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1e3MB", "9MBs", "900 000", "0", 0, -5, "9999999GB", "1.MB", "٣MB"])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(InvalidRequest, match="--size is"):
        parse_size(text)


def test_sizes_are_named() -> None:
    assert [shown(n) for n in (900_000_000, 900_250_000, 900_250_001, 6_836_480)] == [
        "900MB",
        "900.25MB",
        "900.26MB",
        "6.84MB",
    ]


# ---- the choice


def brute_force(options: dict[str, list[Option]], room: int) -> float:
    rows = itertools.product(*options.values())
    return min(sum(o.cost for o in row) for row in rows if sum(o.nbytes for o in row) <= room)


@pytest.mark.parametrize("seed", range(40))
def test_the_choice_is_optimal_but_for_one_step(seed: int) -> None:
    """A choice on the hull is the best of its size, and what is left of the room is less than the largest step."""
    rng = np.random.default_rng(seed)
    options = {
        f"t{i}": [
            Option(f"T{j}", int(rng.integers(1, 40)), float(rng.uniform(0, 9))) for j in range(rng.integers(1, 5))
        ]
        for i in range(6)
    }
    least = smallest(options)
    largest = max(max(o.nbytes for o in row) - min(o.nbytes for o in row) for row in options.values())
    for room in (least, least + 7, least + 40, least + 90, least + 1000):
        chosen = choose(options, room)
        assert chosen == choose(options, room) and list(chosen) == list(options)
        cost, used = sum(o.cost for o in chosen.values()), sum(o.nbytes for o in chosen.values())
        assert used <= room
        assert cost <= brute_force(options, max(least, room - largest)) + 1e-9
        for name, row in options.items():  # nothing better would still fit
            assert all(o.cost >= chosen[name].cost or used - chosen[name].nbytes + o.nbytes > room for o in row)
    assert sum(o.cost for o in choose(options, least + 1000).values()) == pytest.approx(brute_force(options, 10**6))


def test_what_saves_most_per_byte_comes_first() -> None:
    options = {
        "dear": [Option("a", 10, 9.0), Option("b", 20, 1.0), Option("c", 40, 0.5)],
        "cheap": [Option("a", 10, 2.0), Option("b", 20, 1.0)],
        "fixed": [Option("F32", 5, 0.0)],
    }
    assert [o.dtype for o in choose(options, 35).values()] == ["b", "a", "F32"]
    assert [o.dtype for o in choose(options, 45).values()] == ["b", "b", "F32"]
    assert [o.dtype for o in choose(options, 65).values()] == ["c", "b", "F32"]


# ---- what a type costs


@pytest.mark.parametrize("dtype", ["Q4_K", "Q6_K", "Q8_0", "F16"])
def test_errors_are_those_of_the_codec(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 256)).astype(np.float32)
    w = rng.uniform(0.1, 4, 256).astype(np.float32)
    for weights in (None, w):
        fitted = None if weights is None else weights / weights.max()
        stored = _core.quantize(dtype, x, row_length=256, importance=fitted)
        d = np.frombuffer(_core.dequantize(dtype, stored, x.size), np.float32).reshape(x.shape).astype(np.float64) - x
        used = np.ones(256) if weights is None else weights.astype(np.float64)
        error, energy = _core.rounding_error(dtype, x, 256, weights)
        assert error == pytest.approx(float((used * d * d).sum()), rel=1e-5)
        assert energy == pytest.approx(float((used * x.astype(np.float64) ** 2).sum()), rel=1e-5)
    with pytest.raises(InvalidRequest, match="rows have 100 values"):
        _core.rounding_error("Q4_K", x.ravel()[:200], 100)
    with pytest.raises(InvalidRequest, match="importance has"):
        _core.rounding_error("Q4_K", x, 256, w[:9])
    with pytest.raises(InvalidRequest):
        _core.rounding_error("Q4_K", np.full(256, np.nan, np.float32), 256)


def test_every_type_of_blocks_that_fits_is_tried() -> None:
    blocks = {name for name, (_, values, _) in TYPES.items() if values > 1}
    assert set(possible(TensorInfo("blk.0.attn_q.weight", "Q4_K", (4, 512)), floor=True)) == blocks
    assert set(possible(TensorInfo("v.blk.0.attn_q.weight", "Q6_K", (4, 512)), floor=False)) == blocks
    assert {"Q6_K", "Q8_0"} <= set(possible(TensorInfo("v.blk.0.attn_q.weight", "Q6_K", (4, 512)), floor=True))
    assert "Q4_K" not in possible(TensorInfo("mm.dense.weight", "Q8_0", (4, 512)), floor=True)
    assert possible(TensorInfo("v.patch_embd.weight", "F16", (4, 588)), floor=True) == ["F16"]
    assert all(96 % TYPES[name][1] == 0 for name in possible(TensorInfo("blk.0.a.weight", "Q8_0", (4, 96)), floor=True))


def test_samples_are_whole_rows_of_the_whole_matrix() -> None:
    assert sampled_rows((7, 256)) == list(range(7))
    some = sampled_rows((100_000, 1024))
    assert len(some) == 128 and some[0] == 0 and some[-1] > 99_000 and len(set(some)) == 128


def test_groups_are_of_one_role_in_neighbouring_layers() -> None:
    names = [f"blk.{i}.{part}.weight" for i in range(24) for part in ("attn_q", "attn_k", "attn_v", "ffn_up")]
    names += ["token_embd.weight", "mm.dense.weight", "mm.0.weight", "v.blk.0.attn_q.weight"]
    groups = groups_of(names, 15)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert 12 < len(groups) <= 15
    assert ["mm.dense.weight", "mm.0.weight"] in groups and ["token_embd.weight"] in groups
    assert [f"blk.{i}.{part}.weight" for i in range(6) for part in ("attn_q", "attn_k")] in groups
    assert len(groups_of(names, 1)) == 6  # one for each role is the least


# ---- conversions


def least_of(**options: object) -> int:
    with pytest.raises(InvalidRequest, match="the smallest has") as error:
        requantize(tiny_file(), "/nowhere/x.gguf", size=1, **options)  # type: ignore[arg-type]
    return int(str(error.value).split("smallest has ")[1].split()[0])


def test_a_file_has_at_most_its_size(tmp_path: Path) -> None:
    least = least_of()
    before: set[str] = set()
    for size in (least, least + 20_000, 2 * least):
        report = requantize(tiny_file(), tmp_path / "m.gguf", size=size, overwrite=True)
        assert report.output_bytes == (tmp_path / "m.gguf").stat().st_size <= size
        assert report.type == shown(size) and len(report.plan) > 10
        assert verify(tmp_path / "m.gguf") == []
        metadata = _core.GgufFile(str(tmp_path / "m.gguf")).metadata()
        assert metadata["quantize.size.bytes"] == size and "at least 6 bits" in metadata["quantize.size.method"]
        assert stored_type(tmp_path / "m.gguf") is None
        before.add(str(sorted(report.tensors.items())))
    assert len(before) == 3
    assert set(report.tensors) == {"F32", "F16", "Q8_0"}  # there is room for the best
    assert load(tmp_path / "m.gguf").caption(png(1)).text is not None
    with pytest.raises(InvalidRequest, match=f"the smallest has {least} "):
        requantize(tiny_file(), tmp_path / "n.gguf", size=least - 1)
    assert not (tmp_path / "n.gguf").exists()
    requantize(tmp_path / "m.gguf", tmp_path / "n.gguf", type="q4_0")  # another choice: the keys go
    assert not [key for key in _core.GgufFile(str(tmp_path / "n.gguf")).metadata() if key.startswith("quantize.size")]
    assert stored_type(tmp_path / "n.gguf") == "q4_0"


def test_more_room_gives_more_bits_where_errors_are_larger(tmp_path: Path) -> None:
    """Of two files of one type the choice has the smaller sum of errors."""
    requantize(tiny_file(), tmp_path / "q.gguf", type="q4_k_m")
    report = requantize(tiny_file(), tmp_path / "m.gguf", size=(tmp_path / "q.gguf").stat().st_size + 512)
    errors = []
    for path in (tmp_path / "q.gguf", tmp_path / "m.gguf"):
        file = _core.GgufFile(str(path))
        total = 0.0
        for name, dtype, shape, *_ in file.tensors():
            weights = make_tiny(0).weights[name].astype(np.float64)
            if TYPES[dtype][1] > 1:
                stored = _core.dequantize(dtype, file.tensor_data(name), weights.size)
                d = np.frombuffer(stored, np.float32).reshape(shape) - weights
                total += float((d * d).sum() / (weights * weights).sum())
        errors.append(total)
    assert errors[1] < errors[0]
    assert report.output_bytes <= (tmp_path / "q.gguf").stat().st_size + 512


def test_a_checkpoint_of_a_size(tmp_path: Path) -> None:
    source = write_hf_folder(tmp_path / "hf", make_tiny(0))
    size = least_of() + 100_000
    report = convert(source, tmp_path, size=size)
    assert report.output.name.endswith(f"-{shown(size)}.gguf") and report.output_bytes <= size
    convert(source, tmp_path / "f32.gguf", type="f32")
    requantize(tmp_path / "f32.gguf", tmp_path / "again.gguf", size=size)
    one, two = (_core.GgufFile(str(path)) for path in (report.output, tmp_path / "again.gguf"))
    assert one.tensors() == two.tensors() or len(one.metadata()) != len(two.metadata())
    assert verify(report.output) == []
    with pytest.raises(InvalidRequest, match="a type or a size"):
        convert(source, tmp_path / "x.gguf", size=size, type="q4_0")
    with pytest.raises(InvalidRequest, match="the smallest has"):
        convert(source, tmp_path / "x.gguf", size="100kB")


def test_calibration_decides_where_errors_hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With probes vision may go below the floor; the same pictures give the same bytes."""
    monkeypatch.setattr(sensitivity, "MOST_GROUPS", 1)  # one for each role
    monkeypatch.setattr(sensitivity, "PICTURES", 2)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        (pictures / f"{i}.png").write_bytes(png(i, 60, 50))
    size = least_of() - 60_000  # the floor would not allow it
    made = []
    for name in ("a.gguf", "b.gguf"):
        target = tmp_path / name
        report = calibrated_convert(
            *(tiny_file(), target),
            size=size,
            things=calibration_set(pictures),
            save_imatrix=tmp_path / "i.gguf",
            overwrite=True,
            threads=1,
        )
        assert report.output_bytes <= size
        made.append(target.read_bytes())
    assert made[0] == made[1]
    metadata = _core.GgufFile(str(tmp_path / "a.gguf")).metadata()
    assert metadata["quantize.size.method"] == "relative error of products times measured KL"
    assert metadata["quantize.calibration.method"].startswith("importance, error feedback")
    assert verify(tmp_path / "a.gguf") == []
    with pytest.raises(InvalidRequest, match="the smallest has"):  # statistics alone: the floor is there
        calibrated_convert(tiny_file(), tmp_path / "c.gguf", size=size, imatrix=tmp_path / "i.gguf")
    calibrated_convert(tiny_file(), tmp_path / "c.gguf", size=size + 90_000, imatrix=tmp_path / "i.gguf")
    metadata = _core.GgufFile(str(tmp_path / "c.gguf")).metadata()
    assert metadata["quantize.size.method"].startswith("relative error of products, at least")
