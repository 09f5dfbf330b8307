"""kosmos-edge bench quality: the fixed form of its report, determinism, types and their files, pictures and labels."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_file, png
from helpers.reciting import write_reader
from helpers.tiny import make_tiny
from helpers.tiny_hf import write_hf_folder
from PIL import Image

from kosmos_edge import cli, hub, load
from kosmos_edge._core import GgufFile
from kosmos_edge.convert import convert, requantize, stored_type, verify
from kosmos_edge.errors import Cancelled, InvalidRequest
from kosmos_edge.inference import tasks
from kosmos_edge.quality.cases import folder_cases, labelled_cases, world_cases
from kosmos_edge.quality.measure import baselines
from kosmos_edge.quality.models import Source, parse_types
from kosmos_edge.quality.nano_world import HELD_OUT_SEED

FIXED = {"type", "n", "name_accuracy", "box_iou", "box_hit_50", "vqa_accuracy", "kl", "top1_agreement"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf_folder(tmp_path_factory.mktemp("checkpoint"), make_tiny(0))


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(checkpoint, tmp_path_factory.mktemp("whole") / "f32.gguf", type="f32").output


def bench(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = cli.run(["bench", "quality", *(str(arg) for arg in args), "-t", "1"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---- the report


def test_a_model_that_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [((8, 8, 70, 24), "Invoice 7"), ((8, 32, 90, 48), "5 apples")]
    model = write_reader(tmp_path / "reader.gguf", lines, "# 7")
    (tmp_path / "pages").mkdir()
    for number in range(2):
        (tmp_path / "pages" / f"{number}.png").write_bytes(png(60 + number, 80))
    code, out, _ = bench(
        capsys, "-m", model, "--pictures", tmp_path / "pages", "--types", "f32,q8_0", "--format", "json"
    )
    first, second = json.loads(out)["types"]
    assert code == 0 and first["tokens"] == second["tokens"] == 2 * (sum(6 + len(text) for _, text in lines) + 1)
    assert first["kl"] == 0 and 0 < second["kl"] < 0.01 and second["caption_agreement"] == 1
    code, _, err = bench(capsys, "-m", model, "--n", 1, "--types", "f32,q8_0")  # scenes, with questions
    assert code == 2 and "this model answers none: --pictures names a folder of images" in err


def test_keys_and_values_of_8_bits(capsys: pytest.CaptureFixture[str]) -> None:
    """A row more for each type, compared with the first one like all others."""
    args = ("-m", "nano", "--types", "q4_k_m", "--n", 2, "--kv-type", "q8_0", "--format", "json")
    code, out, _ = bench(capsys, *args)
    first, second = json.loads(out)["types"]
    assert code == 0 and (first["type"], second["type"]) == ("q4_k_m", "q4_k_m, kv q8_0")
    assert (first["kv_type"], second["kv_type"]) == ("f16", "q8_0")
    assert first["kl"] == 0 and 1e-9 < second["kl"] < 0.02 and second["top1_agreement"] > 0.9


def test_report_on_scenes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = ("-m", "nano", "--types", "q4_k_m,q4_0", "--n", 3, "--seed", 1, "--work", tmp_path, "--format", "json")
    code, out, err = bench(capsys, *args)
    assert code == 0 and "rounded weights" in err
    report = json.loads(out)
    assert report["source_type"] == "q4_k_m" and report["reference"] == "q4_k_m"
    first, second = report["types"]
    for row in (first, second):
        assert row.keys() >= FIXED and row["n"] == 3
        assert all(0 <= row[key] <= 1 for key in FIXED - {"type", "n", "kl"})
        assert row["name_accuracy"] > 0.5 and row["box_iou"] > 0.5  # nano knows its world
    assert (first["type"], second["type"]) == ("q4_k_m", "q4_0")
    assert first["kl"] == 0 and first["top1_agreement"] == 1 and first["caption_agreement"] == 1
    assert 1e-7 < second["kl"] < 0.5 and second["tokens"] == first["tokens"] > 30
    assert first["file_bytes"] == hub.nano_path().stat().st_size
    assert report["baselines"]["box_iou"] < first["box_iou"]
    assert bench(capsys, *args)[1] == out
    assert list(tmp_path.iterdir()) == []


def test_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = bench(capsys, "-m", "nano", "--types", "q4_k_m", "--n", 2, "-q")
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("2 images (scenes of nano's shapes, seed 0)")
    assert lines[1].split()[:2] == ["type", "MB"] and lines[2].startswith("q4_k_m") and "not looking" in lines[3]


def test_report_on_a_checkpoint_and_a_folder(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    (tmp_path / "notes.txt").write_text("no picture")
    code, out, err = bench(
        capsys, "-m", checkpoint, "--types", "f32,q8_0,q8_0:float", "--pictures", tmp_path, "-f", "json"
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["source_type"] == "checkpoint"
    exact, quantized, rounded = report["types"]
    assert all(
        row["n"] == 2 and row["name_accuracy"] is None and row["vqa_accuracy"] is None for row in report["types"]
    )
    assert exact["kl"] == 0 and 0 < quantized["kl"] < 0.1 and 0 < rounded["kl"] < 0.1
    assert rounded["kl"] != quantized["kl"]
    assert rounded["file_bytes"] == pytest.approx(exact["file_bytes"], rel=0.01)
    assert quantized["file_bytes"] < exact["file_bytes"] / 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--types", "q9"), "--types: 'q9'"),
        (("--types", ""), "--types"),
        (("--types", "f32,F32"), "twice"),
        (("--types", "f16:float"), "f16:float"),
        (("--pictures", "/no/such/folder"), "--pictures"),
        (("--labels", "/no/such/file"), "--labels"),
        (("--n", "0"), "0"),
        (("--work", "/no/such/folder", "--types", "q8_0", "--n", "1"), "/no/such/folder"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], said: str) -> None:
    code, out, err = bench(capsys, "-m", "nano", *args)
    assert code == 2 and out == "" and said in err


def test_missing_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = bench(capsys, "-m", tmp_path / "missing.gguf", "--n", 1)
    assert code == 1 and out == ""


# ---- teacher forcing


def test_forced_logits_are_those_of_decoding() -> None:
    with load(grounded_file(), threads=1) as model:
        image = model.encode(png(5))
        result = model.caption(image, ground=True, grammar=False, no_repeat_ngram_size=0, max_tokens=12, logprobs=True)
        plan = tasks.plan_caption(model.model_info, image, "short", True, False, ())
        values, vocab = model._open.forced_logits(plan, result.token_ids)
        rows = np.frombuffer(values, np.float32).reshape(-1, vocab).astype(float)
        assert rows.shape[0] == len(result.token_ids)
        assert rows.argmax(1).tolist() == result.token_ids
        shifted = rows - rows.max(1, keepdims=True)
        found = [(row - math.log(np.exp(row).sum()))[i] for row, i in zip(shifted, result.token_ids, strict=True)]
        np.testing.assert_allclose(found, result.logprobs, atol=1e-4)
        assert model._open.forced_logits(plan, []) == (b"", vocab)


# ---- types


def test_parse_types() -> None:
    assert parse_types(" F32, q5_k_m,q4_k_m:float") == ["f32", "q5_k", "q4_k_m:float"]


@pytest.mark.parametrize("type", ["q4_k_m", "q8_0", "f16", "bf16"])
def test_a_float32_file_becomes_what_the_checkpoint_becomes(
    checkpoint: Path, whole: Path, tmp_path: Path, type: str
) -> None:
    straight = convert(checkpoint, tmp_path / "straight.gguf", type=type).output
    seen: list[tuple[int, int]] = []
    report = requantize(
        whole, tmp_path / "again.gguf", type=type, progress=lambda done, all, _: seen.append((done, all))
    )
    assert seen[-1][0] == seen[-1][1] == report.source_bytes
    a, b = GgufFile(str(straight)), GgufFile(str(report.output))
    assert a.metadata() == b.metadata()
    assert [(n, t, s) for n, t, s, *_ in a.tensors()] == [(n, t, s) for n, t, s, *_ in b.tensors()]
    assert all(a.tensor_data(name) == b.tensor_data(name) for name, *_ in a.tensors())
    assert stored_type(report.output) == type and verify(report.output) == []


def test_a_quantized_file_keeps_the_tensors_of_its_type(tmp_path: Path) -> None:
    nano = hub.nano_path()
    five = GgufFile(str(requantize(nano, tmp_path / "five.gguf", type="q5_k").output))
    four = GgufFile(str(nano))
    types = {name: dtype for name, dtype, *_ in four.tensors()}
    same = [name for name, dtype, *_ in five.tensors() if dtype == types[name]]
    assert 0 < len(same) < len(types)
    assert all(five.tensor_data(name) == four.tensor_data(name) for name in same)


def test_requantize_refuses(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="unknown type"):
        requantize(whole, tmp_path / "x.gguf", type="q3_k")
    with pytest.raises(InvalidRequest):
        requantize(whole, whole, type="q8_0", overwrite=True)
    stop = type("Stop", (), {"cancelled": True})()
    with pytest.raises(Cancelled):
        requantize(whole, tmp_path / "x.gguf", type="q8_0", cancel=stop)
    assert list(tmp_path.iterdir()) == []


def test_sources(checkpoint: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Source(str(checkpoint), True).label == "checkpoint" and not Source(str(checkpoint), True).is_quantized
    source = Source(str(whole), True)
    assert source.label == "f32" and not source.is_quantized
    with source.file("f32", str(tmp_path)) as path:
        assert path == whole and list(tmp_path.iterdir()) == []
    with source.file("q8_0:float", str(tmp_path)) as path:
        assert stored_type(path) == "f32" and verify(path) == []
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "a model"
    other.symlink_to(whole)
    assert Source(str(other), True).label == "f32"  # by what is in the file, not by its name
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    nano = Source("nano", True)
    assert nano.label == "q4_k_m" and nano.is_quantized


# ---- pictures


def test_scenes_are_held_out_and_of_their_seed() -> None:
    cases = world_cases(0, 4)
    assert [case.source for case in cases] == [HELD_OUT_SEED + i for i in range(4)]
    assert world_cases(0, 4) == cases and world_cases(1, 4) != cases
    assert {question.kind for case in world_cases(0, 30) for question in case.questions} >= {"count", "exist", "color"}
    assert cases[0].picture().width == 224
    given = baselines(cases)
    assert 0 < given["box_iou"] < 0.6 and 0 < given["vqa_accuracy"] <= 1


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    Image.new("RGB", (50, 50)).save(tmp_path / "b.jpg")
    return tmp_path


def test_own_labels(folder: Path) -> None:
    rows = [
        {
            "file": "a.png",
            "objects": [{"name": "dog", "box": [20, 10, 120, 60]}],
            "questions": [{"question": "How many dogs?", "answer": ["1", "one"], "kind": "count"}],
        },
        {"file": "b.jpg"},
    ]
    labels = write(folder / "labels.json", {"pictures": rows})
    first, second = labelled_cases(labels, None, None)
    assert first.things[0].box == pytest.approx((0.1, 0.1, 0.6, 0.6)) and first.questions[0].accepted == ("1", "one")
    assert second.things == () and second.questions == ()
    assert len(labelled_cases(labels, folder, 1)) == 1
    rows[0]["objects"] = [{"name": "dog", "box": [0.1, 0.1, 0.6, 0.6]}]
    labels = write(folder / "labels.json", {"boxes": "fractions", "pictures": rows})
    assert labelled_cases(labels, None, None)[0].things == first.things


def test_coco_labels(folder: Path) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],
        "annotations": [
            {"image_id": 7, "category_id": 2, "bbox": [20, 10, 100, 50]},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 200, 100], "iscrowd": 1},
        ],
        "categories": [{"id": 2, "name": "cat"}],
    }
    (case,) = labelled_cases(write(folder / "coco.json", content), None, None)
    assert [thing.name for thing in case.things] == ["cat"]
    assert case.things[0].box == pytest.approx((0.1, 0.1, 0.6, 0.6))


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"pictures": []},
        {"pictures": [{"file": "missing.png"}]},
        {"pictures": [{"objects": []}]},
        {"pictures": [{"file": "a.png", "objects": [{"name": "dog", "box": [0, 0, 900, 50]}]}]},
        {"pictures": [{"file": "a.png", "objects": [{"name": "dog", "box": [50, 0, 20, 50]}]}]},
        {"pictures": [{"file": "a.png", "objects": [{"name": "", "box": [0, 0, 20, 50]}]}]},
        {"pictures": [{"file": "a.png", "objects": [{"name": "dog", "box": [0, 0, 20]}]}]},
        {"pictures": [{"file": "a.png", "questions": [{"question": "What?", "answer": []}]}]},
        {"boxes": "percent", "pictures": [{"file": "a.png"}]},
        {"images": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}], "categories": []},
    ],
)
def test_labels_that_are_none(folder: Path, content: object) -> None:
    with pytest.raises(InvalidRequest, match="--labels"):
        labelled_cases(write(folder / "labels.json", content), None, None)


def test_labels_that_are_no_json(folder: Path) -> None:
    (folder / "labels.json").write_text("{")
    with pytest.raises(InvalidRequest, match="not JSON"):
        labelled_cases(folder / "labels.json", None, None)


def test_folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert [case.name for case in folder_cases(folder, None)] == ["a.png", "b.jpg"]
    assert len(folder_cases(folder, 1)) == 1
    with pytest.raises(InvalidRequest, match="no images"):
        folder_cases(tmp_path_factory.mktemp("empty"), None)
