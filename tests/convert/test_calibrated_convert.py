"""Statistics and their file; conversions that use them."""

import hashlib
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from helpers.api_model import png, png_folder, tiny_file
from helpers.tiny import make_tiny
from helpers.tiny_hf import write_hf_folder

from kosmos_edge import _core, calibration, load
from kosmos_edge.calibration import CalibrationSet, calibrated_convert, calibration_set
from kosmos_edge.convert import requantize, verify
from kosmos_edge.convert.calibrated import CalibratedEncoder, Calibration
from kosmos_edge.convert.folding import factors_of
from kosmos_edge.convert.gguf import TensorInfo
from kosmos_edge.convert.statistics import Inputs, Statistics, read_statistics, write_statistics
from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.model import Model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return png_folder(tmp_path_factory.mktemp("pictures"), 8)


@pytest.fixture(scope="module")
def things(pictures: Path) -> CalibrationSet:
    return calibration_set(pictures)


@pytest.fixture(scope="module")
def made(things: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file of the tiny model with feedback, and its statistics."""
    folder = tmp_path_factory.mktemp("made")
    calibrated_convert(tiny_file(), folder / "m.gguf", type="q4_k_m", things=things, save_imatrix=folder / "s.gguf")
    return folder / "m.gguf", folder / "s.gguf"


def inputs(*squares: float, count: int = 2, sums: tuple[float, ...] | None = None) -> Inputs:
    return Inputs(count, array("f", squares), None if sums is None else array("f", sums))


def tensors(path: Path) -> dict[str, bytes]:
    file = _core.GgufFile(str(path))
    return {name: file.tensor_data(name) for name, *_ in file.tensors()}


def matrix_file(path: Path, rows: dict[str, tuple[np.ndarray, float]], **metadata: str) -> Path:
    """As llama-imatrix writes it, by the gguf package."""
    writer = gguf.GGUFWriter(path, "none")
    writer.add_type(metadata.get("type", "imatrix"))
    writer.add_array("imatrix.datasets", ["text.txt"])
    writer.add_uint32("imatrix.chunk_count", 3)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, (squares, count) in rows.items():
        writer.add_tensor(f"{name}.in_sum2", np.asarray(squares, np.float32))
        writer.add_tensor(f"{name}.counts", np.asarray([[count]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# ---- the file of statistics


def test_statistics_survive_their_file(tmp_path: Path) -> None:
    statistics = Statistics({"a.weight": inputs(1, 4, sums=(-1, 2)), "b.weight": inputs(9.5)}, ["x", "y"], 7)
    write_statistics(statistics, tmp_path / "s.gguf")
    again = read_statistics(tmp_path / "s.gguf")
    assert again == statistics and again.sha256 == statistics.sha256
    assert Statistics({"a.weight": inputs(1, 5)}, [], 7).sha256 != Statistics({"a.weight": inputs(1, 4)}, [], 7).sha256
    with pytest.raises(InvalidRequest, match="exists"):
        write_statistics(statistics, tmp_path / "s.gguf")


def test_the_gguf_package_reads_it_as_llama_cpp_does(made: tuple[Path, Path]) -> None:
    reader = gguf.GGUFReader(made[1])
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents()[0].startswith("pictures")
    assert reader.fields["imatrix.chunk_count"].contents() == 8 and reader.fields["imatrix.chunk_size"].contents() == 1
    found = {tensor.name: tensor for tensor in reader.tensors}
    squares, counts = found["blk.0.ffn_down.weight.in_sum2"], found["blk.0.ffn_down.weight.counts"]
    assert list(squares.shape) == [512, 1] and list(counts.shape) == [1, 1]  # innermost first: columns, experts
    assert squares.tensor_type == gguf.GGMLQuantizationType.F32 and counts.data.ravel()[0] > 100
    names = {name.removesuffix(".in_sum2") for name in found if name.endswith(".in_sum2")}
    assert {name.removesuffix(".counts") for name in found if name.endswith(".counts")} == names
    assert {"token_embd.weight", "v.blk.1.ffn_up.weight", "mm.attn_k.weight"} <= names


def test_llama_cpps_file_is_taken(tmp_path: Path) -> None:
    """It knows some matrices of the decoder, and no sums: importance alone."""
    squares = np.random.default_rng(0).uniform(0.01, 9, (1, 512)).astype(np.float32)
    matrix = matrix_file(tmp_path / "llama.gguf", {"blk.0.ffn_down.weight": (squares, 100)})
    calibrated_convert(tiny_file(), tmp_path / "m.gguf", type="q4_k_m", imatrix=matrix)
    requantize(tiny_file(), tmp_path / "plain.gguf", type="q4_k_m")
    ours, plain = tensors(tmp_path / "m.gguf"), tensors(tmp_path / "plain.gguf")
    assert {name for name in ours if ours[name] != plain[name]} == {"blk.0.ffn_down.weight"}
    weight = make_tiny(0).weights["blk.0.ffn_down.weight"]
    dtype = dict((name, dtype) for name, dtype, *_ in _core.GgufFile(str(tmp_path / "m.gguf")).tensors())
    assert ours["blk.0.ffn_down.weight"] == _core.quantize(
        dtype["blk.0.ffn_down.weight"], np.ascontiguousarray(weight), row_length=512, importance=squares / 100
    )
    metadata = _core.GgufFile(str(tmp_path / "m.gguf")).metadata()
    assert metadata["quantize.calibration.method"] == "importance"
    assert metadata["quantize.imatrix.dataset"] == "text.txt" and metadata["quantize.imatrix.chunks_count"] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"blk.0.ffn_down.weight": ([[1.0] * 511], 5)}, "another model: blk.0.ffn_down.weight has 511 columns there"),
        ({"blk.9.ffn_down.weight": ([[1.0] * 512], 5)}, "another model: 1 of its 1 matrices are none of this one's"),
        ({"blk.0.ffn_down.weight": ([[np.nan] * 512], 5)}, "column 0 is nan; expected a finite number"),
        ({"blk.0.ffn_down.weight": ([[-1.0] * 512], 5)}, "column 0 is -1.0; expected a finite number >= 0"),
        ({"blk.0.ffn_down.weight": ([[1.0] * 512], 0)}, r"counts is 0.0; expected 1 or more"),
        ({"blk.0.ffn_down.weight": ([[1.0] * 512], np.nan)}, r"counts is nan; expected 1 or more"),
        ({"blk.0.ffn_down.weight": ([[1.0] * 512] * 2, 5)}, "expected one row of F32"),
        ({}, "has no matrix"),
    ],
)
def test_unsound_statistics_are_refused(rows, message: str, tmp_path: Path) -> None:
    matrix = matrix_file(tmp_path / "s.gguf", rows)
    with pytest.raises(InvalidRequest, match=message):
        calibrated_convert(tiny_file(), tmp_path / "m.gguf", type="q4_k_m", imatrix=matrix)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.gguf"]


def test_other_files_are_no_statistics(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"general\.type is 'model', expected 'imatrix'"):
        read_statistics(tiny_file())
    (tmp_path / "old.dat").write_bytes(b"\1\0\0\0")
    with pytest.raises(InvalidRequest, match=r"no GGUF file.*old form is not read"):
        read_statistics(tmp_path / "old.dat")
    with pytest.raises(KosmosError, match="gone"):
        read_statistics(tmp_path / "gone.gguf")


# ---- rounding


def test_the_file_says_how_it_was_made(made: tuple[Path, Path], pictures: Path) -> None:
    metadata = _core.GgufFile(str(made[0])).metadata()
    statistics = read_statistics(made[1])
    method = "importance, error feedback, bias correction, scales folded into norms"
    assert metadata["quantize.calibration.method"] == method
    assert metadata["quantize.imatrix.chunks_count"] == 8 and metadata["quantize.imatrix.dataset"] == pictures.name
    assert metadata["quantize.imatrix.sha256"] == statistics.sha256
    assert metadata["quantize.imatrix.tokens_count"] == statistics.tokens > 1000
    assert metadata["quantize.imatrix.entries_count"] == len(statistics.inputs)
    assert verify(made[0]) == []
    assert load(made[0]).caption(png(1)).text is not None


def test_products_come_closer(made: tuple[Path, Path], things: CalibrationSet, tmp_path: Path) -> None:
    """Of every rounded matrix, on the inputs of the calibration set; biases are moved by the mean error."""
    requantize(tiny_file(), tmp_path / "plain.gguf", type="q4_k_m")
    names = ["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "v.blk.1.ffn_up.weight", "v.blk.0.attn_out.weight"]
    recorder = calibration.record(tiny_file(), things, set(names))
    weights, factors = make_tiny(0).weights, factors_of(tiny_file(), read_statistics(made[1]))
    stored = {path: load_floats(path) for path in (made[0], tmp_path / "plain.gguf")}
    for name in names:
        sums = recorder.find(name)
        lower = np.frombuffer(sums.products, np.float32).reshape(sums.cols, sums.cols).astype(np.float64)
        moments = (lower + np.tril(lower, -1).T) / sums.rows
        mean = np.frombuffer(sums.sum) / sums.rows
        bias = name.removesuffix("weight") + "bias"
        errors = []
        for path, floats in stored.items():
            unfolded = floats[name] / np.asarray(factors[name]) if path == made[0] and name in factors else floats[name]
            d, b = weights[name] - unfolded.astype(np.float64), weights[bias] - floats[bias].astype(np.float64)
            errors.append(float(np.sum((d @ moments) * d) + np.sum(2 * b * (d @ mean) + b * b)))
            if len(errors) == 1:
                np.testing.assert_allclose(d @ mean + b, 0, atol=1e-5)
        assert errors[0] < 0.6 * errors[1], (name, errors)


def load_floats(path: Path) -> dict[str, np.ndarray]:
    file = _core.GgufFile(str(path))
    return {
        name: np.frombuffer(_core.dequantize(dtype, file.tensor_data(name), int(np.prod(shape))), np.float32).reshape(
            shape
        )
        for name, dtype, shape, *_ in file.tensors()
    }


def test_a_run_gives_the_same_bytes_whatever_the_memory(
    made: tuple[Path, Path], things: CalibrationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little memory: several passes over the pictures. From a checkpoint: the same model, converted first."""
    from kosmos_edge.convert import calibrated

    passes = []
    monkeypatch.setattr(calibrated.Calibration, "__init__", limited(calibrated.Calibration.__init__, 5 << 20, passes))
    source = write_hf_folder(tmp_path / "hf", make_tiny(0))
    calibrated_convert(source, tmp_path / "m.gguf", type="q4_k_m", things=things, threads=2)
    assert len(passes) > 1
    assert tensors(tmp_path / "m.gguf") == tensors(made[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "m.gguf"]


def limited(init, size: int, passes: list[set[str]]):
    def wrapper(self, statistics, where="x", collect=None, feedback_bytes=0, folds=False):
        def counted(names):
            passes.append(names)
            return collect(names)

        init(self, statistics, where, counted, size, folds)

    return wrapper


def test_the_statistics_alone_round_too_and_can_be_used_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    calibrated_convert(tiny_file(), tmp_path / "m.gguf", type="q4_k_m", imatrix=made[1])
    metadata = _core.GgufFile(str(tmp_path / "m.gguf")).metadata()
    assert metadata["quantize.calibration.method"] == "importance, bias correction"
    requantize(tmp_path / "m.gguf", tmp_path / "f16.gguf", type="f16")  # the keys stay: its weights are rounded
    assert "quantize.calibration.method" in _core.GgufFile(str(tmp_path / "f16.gguf")).metadata()


def test_without_calibration_nothing_changes(tmp_path: Path) -> None:
    requantize(tiny_file(), tmp_path / "a.gguf", type="q4_k_m")
    digest = hashlib.sha256(b"".join(tensors(tmp_path / "a.gguf").values())).hexdigest()
    assert (
        digest == "0b39900c44e0eec874baccd7743b83d8d965a32d9b686c365a173acd1343f479"
    )  # of the version before there was calibration


def test_a_bias_is_not_written_where_its_matrix_fails() -> None:
    """It would wait for ever."""
    infos = [TensorInfo("a.weight", "Q8_0", (2, 32)), TensorInfo("a.bias", "F32", (2,))]
    statistics = Statistics({"a.weight": inputs(*[1.0] * 32, sums=(0.5,) * 32)}, [], 1)
    encoder = CalibratedEncoder(Calibration(statistics), infos)
    assert list(encoder.order()) == ["a.weight", "a.bias"]
    matrix, bias = (encoder.encoding(info, "F32", 0, 64 if info is infos[0] else 2) for info in infos)
    assert matrix is not None and bias is not None
    with pytest.raises(InvalidRequest):
        matrix(bytearray(np.full((2, 32), np.nan, np.float32).tobytes()))
    with pytest.raises(KosmosError, match=r"a\.bias: its matrix could not be rounded"):
        bias(bytearray(8))


# ---- what is asked for


def test_sets_that_are_refused(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not a folder of pictures"):
        calibration_set(tmp_path / "none")
    (tmp_path / "a.png").write_bytes(png(0))
    with pytest.raises(InvalidRequest, match=r"contains 1 pictures .* at least 8 are needed"):
        calibration_set(tmp_path)
    texts = tmp_path / "t.txt"
    for content, message in ((b"\n \n", "no line of text"), (b"ok\n\xff", "not UTF-8: byte 3")):
        texts.write_bytes(content)
        with pytest.raises(InvalidRequest, match=message):
            calibration_set(pictures, texts)
    texts.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(InvalidRequest, match="larger than 1048576 bytes"):
        calibration_set(pictures, texts)
    with pytest.raises(KosmosIOError, match="cannot read"):
        calibration_set(pictures, tmp_path / "no.txt")


def test_every_text_is_asked(things: CalibrationSet, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside our own questions."""
    asked: list[str] = []
    monkeypatch.setattr(Model, "ask", lambda self, image, text, **options: asked.append(text))
    calibration.record(tiny_file(), things, set())
    assert {text for text in asked if text in calibration.QUESTIONS} == set(calibration.QUESTIONS)
    ours, texts = sorted(asked), [f"question {i}?" for i in range(11)]
    asked.clear()
    calibration.record(tiny_file(), CalibrationSet(things.pictures, tuple(texts), "x"), set())
    assert sorted(asked) == sorted(ours + texts)
    two = CalibrationSet(things.pictures, ("Why?", "Who?"), "x")  # fewer than pictures: one about each
    assert [calibration.asked_of(two, i)[2:] for i in range(4)] == [["Why?"], ["Who?"], ["Why?"], ["Who?"]]


def test_what_captions_name_is_asked_about(things: CalibrationSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of no fixed question are inputs, too. Long captions and such without boxes are among the calls."""
    asked: list[str] = []
    calls: list[tuple[str, bool]] = []
    caption = Model.caption

    def named(model: Model, image: Any, length: Any = "short", **options: Any) -> Any:
        calls.append((length, options.get("ground", False)))
        result = caption(model, image, length, **{**options, "max_tokens": 4})
        return SimpleNamespace(entities=[SimpleNamespace(phrase="The red  kite ", boxes=[])], text=result.text)

    monkeypatch.setattr(Model, "caption", named)
    monkeypatch.setattr(Model, "locate", lambda *args, **options: None)
    monkeypatch.setattr(Model, "ask", lambda model, image, text, **options: asked.append(text))
    calibration.record(tiny_file(), things, set())
    assert {
        "How many kites are there?",
        "How many red objects are there?",
        "Is there The red kite?",
        "What color is the kite?",
        "What is above the red kite?",
    } < set(asked)
    assert len([text for text in asked if text not in calibration.QUESTIONS]) == 3 * len(things.pictures)
    assert {call: calls.count(call) for call in set(calls)} == {
        ("short", True): 8,
        ("long", True): 2,
        ("short", False): 2,
    }


def test_phrases_become_questions() -> None:
    assert calibration.phrase_questions("the", "a dog", 0) == [
        "How many thes are there?",
        "Is there the?",
        "What color is the the?",
    ]
    assert calibration.phrase_questions("an old  man", "a dog", 1) == [
        "How many old objects are there?",
        "Is there a dog in the picture?",
        "What is to the left of the old man?",
    ]
    turns = -(-len(calibration.PHRASE_QUESTIONS) // calibration.PHRASE_QUESTIONS_EACH)
    every = [text for turn in range(turns) for text in calibration.phrase_questions("a b c", "a d", turn)]
    assert len(set(every)) == len(calibration.PHRASE_QUESTIONS)


def test_requests_that_make_no_sense(things: CalibrationSet, made: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    with pytest.raises(InvalidRequest, match="the type f16 is not rounded"):
        calibrated_convert(tiny_file(), target, type="f16", things=things)
    with pytest.raises(InvalidRequest, match="not both"):
        calibrated_convert(tiny_file(), target, type="q8_0", things=things, imatrix=made[1])
    with pytest.raises(InvalidRequest, match=r"rounded already, such as .*; calibration needs the checkpoint"):
        calibrated_convert(made[0], target, type="q8_0", things=things)
    with pytest.raises(InvalidRequest, match="is a folder: name the file"):
        calibrated_convert(tiny_file(), tmp_path, type="q8_0", things=things)
    with pytest.raises(InvalidRequest, match="are for checkpoints"):
        calibrated_convert(tiny_file(), target, type="q8_0", things=things, tokenizer="x.json")
    with pytest.raises(KosmosIOError, match="there is no folder"):
        calibrated_convert(tiny_file(), tmp_path / "no" / "m.gguf", type="q8_0", things=things)
    with pytest.raises(InvalidRequest, match="unknown type 'q9'"):
        calibrated_convert(tiny_file(), target, type="q9", things=things)
    assert not list(tmp_path.iterdir())
