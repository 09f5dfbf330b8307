"""The command on a small reader of pages with random weights: its figures are those of readings made one by one."""

import json
from pathlib import Path
from typing import Any

import jiwer
import pytest
from helpers.kosmos2_5_checkpoint import PageVocabulary, random_state, write_hf
from PIL import Image, ImageDraw

import kosmos_edge
from kosmos_edge import cli
from kosmos_edge.convert import convert

TOKENS = 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = PageVocabulary()
    return write_hf(tmp_path_factory.mktemp("reader"), vocabulary, random_state(len(vocabulary.pieces)))


@pytest.fixture(scope="module")
def reader(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(checkpoint, tmp_path_factory.mktemp("gguf") / "reader.gguf", type="f32").output


@pytest.fixture(scope="module")
def pages(reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose truth is what the model reads, but for some letters; of the last one it is something else."""
    folder = tmp_path_factory.mktemp("pages")
    with kosmos_edge.load(reader, threads=1) as model:
        for number in range(5):
            picture = Image.new("RGB", (60 + 25 * number, 40), (250, 250, 240))
            ImageDraw.Draw(picture).text((3, 3 + 4 * number), f"Total {number}", fill=(0, 0, 0))
            picture.save(folder / f"{number}.png")
            text = model.read(folder / f"{number}.png", max_tokens=TOKENS).text
            wrong = "".join(c for i, c in enumerate(text) if i % 7) if number < 4 else "another page altogether"
            (folder / f"{number}.txt").write_text(wrong, encoding="utf-8")
            markdown = model.read(folder / f"{number}.png", markdown=True, max_tokens=TOKENS).text
            (folder / f"{number}.md").write_text(markdown, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORMAT", "MODEL", "MAX_TOKENS", "LIMIT", "TYPES", "ITEMS", "RESUME"):
        monkeypatch.delenv(f"KOSMOS_EDGE_{name}", raising=False)


def evaluate(capsys: pytest.CaptureFixture[str], task: str, data: Path, *words: object) -> dict[str, Any]:
    code = cli.run(["eval", task, "--data", str(data), "-n", str(TOKENS), "-t", "1", "-f", "json", *map(str, words)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    made = json.loads(captured.out)
    assert isinstance(made, dict)
    return made


def plain(text: str) -> str:
    return " ".join(text.split())


def test_figures_are_those_of_single_readings(
    reader: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = tmp_path / "items.jsonl"
    report = evaluate(capsys, "ocr", pages, "-m", reader, "--items", items)
    with kosmos_edge.load(reader, threads=1) as model:
        said = [model.read(pages / f"{i}.png", max_tokens=TOKENS).text for i in range(5)]
    true = [(pages / f"{i}.txt").read_text(encoding="utf-8") for i in range(5)]
    read = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()][1:]
    assert [record["prediction"]["text"] for record in read] == said and [r["id"] for r in read] == [
        f"{i}.png" for i in range(5)
    ]
    texts = [(plain(s), plain(t)) for s, t in zip(said, true, strict=True)]
    metrics = report["metrics"]
    assert metrics["cer"]["value"] == pytest.approx(jiwer.cer([t for _, t in texts], [s for s, _ in texts]))
    assert metrics["wer"]["value"] == pytest.approx(jiwer.wer([t for _, t in texts], [s for s, _ in texts]))
    edits = [jiwer.process_characters(t, s) for s, t in texts]
    ned = [
        1 - (e.substitutions + e.deletions + e.insertions) / max(len(s), len(t))
        for e, (s, t) in zip(edits, texts, strict=True)
    ]
    assert metrics["ned"]["value"] == pytest.approx(sum(ned) / 5) and 0.3 < sum(ned) / 5 < 0.95
    low, high = metrics["ned"]["ci95"]
    assert low < metrics["ned"]["value"] < high
    assert metrics["line_f1"]["reason"] == "the truth has no boxes of lines"
    assert (report["prompt"], report["type"], report["n"], report["computed"]) == ("<ocr>", "f32", 5, 5)
    assert report["images_per_second"] > 0


def test_markdown(reader: Path, pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The truth is what this model writes."""
    report = evaluate(capsys, "markdown", pages, "-m", reader)
    assert report["metrics"]["ned"]["value"] == 1.0 and report["prompt"] == "<md>"


def test_a_reading_is_the_truth_of_another(
    reader: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for path in pages.glob("*.png"):
        (scans / path.name).write_bytes(path.read_bytes())
    words = ["read", str(scans), "-m", str(reader), "-n", str(TOKENS), "-t", "1", "--format", "json"]
    assert cli.run([*words, "-o", f"{tmp_path / 'gt'}/"]) == 0
    capsys.readouterr()
    metrics = evaluate(capsys, "ocr", scans, "-m", reader)["metrics"]
    assert (metrics["cer"]["value"], metrics["wer"]["value"], metrics["ned"]["value"]) == (0, 0, 1)
    assert metrics["cer"]["items"] == 5


def test_a_resumed_run_is_a_whole_run(
    reader: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate(capsys, "ocr", pages, "-m", reader)
    items = tmp_path / "items.jsonl"
    evaluate(capsys, "ocr", pages, "-m", reader, "--items", items, "--limit", 2)
    resumed = evaluate(capsys, "ocr", pages, "-m", reader, "--items", items, "--resume")
    assert resumed["computed"] == 3 and resumed["metrics"] == whole["metrics"]


def test_types_of_a_checkpoint(
    checkpoint: Path, reader: Path, pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Converted for the comparison; f32 reads what the file of that type reads, 4 bits change a random model."""
    report = evaluate(capsys, "ocr", pages, "-m", checkpoint, "--types", "f32,q4_0", "--work", tmp_path)
    alone = evaluate(capsys, "ocr", pages, "-m", reader)
    assert [one["type"] for one in report["types"]] == ["f32", "q4_0"]
    assert report["types"][0]["metrics"] == alone["metrics"]
    difference = report["differences"][0]["metrics"]["cer"]
    values = [one["metrics"]["cer"]["value"] for one in report["types"]]
    assert difference["value"] == pytest.approx(values[1] - values[0]) and difference["value"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_read_says_so(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["eval", "ocr", "--data", str(pages), "-m", "nano"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and "read" in captured.err
