"""kosmos-edge read on a model file, through the whole engine. The model reads the same lines on every page."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from helpers import capi
from helpers.api_model import tiny_file
from helpers.documents import make_pdf, save_png
from helpers.reciting import Boxed, write_reader

import kosmos_edge
from kosmos_edge import EntityEvent, TextDelta
from kosmos_edge.documents import open_document, parse_pages, read_page, read_pages

LINES: list[Boxed] = [((8, 8, 70, 24), "Invoice 7"), ((8, 32, 90, 48), "日本語 5€"), ((20, 60, 100, 76), "مرحبا 12")]
TEXT = "\n".join(text for _, text in LINES)
MARKDOWN = "# Invoice\n\n- **7**"
TOKENS = sum(6 + len(text.encode()) for _, text in LINES) + 1


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reader(tmp_path_factory.mktemp("model") / "reader.gguf", LINES, MARKDOWN)


@pytest.fixture(scope="module")
def model(reader: Path) -> kosmos_edge.Model:
    return kosmos_edge.load(reader, threads=1)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return save_png(tmp_path / "page.png", (850, 1100), dpi=(100, 100))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.pdf"
    path.write_bytes(make_pdf(["", "", ""], (306, 396)))
    return path


def command(*words: object) -> list[str]:
    return [sys.executable, "-P", "-m", "kosmos_edge", "read", *(str(word) for word in words)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOSMOS_EDGE_")}
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, env=environment)


def boxes(model: kosmos_edge.Model, path: Path) -> list[tuple[float, ...]]:
    lines = model.read(path).lines
    assert lines is not None
    return [line.box.pixels or () for line in lines]


# ---- the command


def test_text(reader: Path, page: Path, book: Path) -> None:
    done = run(page, "-m", reader)
    assert (done.returncode, done.stdout, done.stderr) == (0, TEXT + "\n", "")
    assert run(book, "-m", reader, "--pages", "1,3").stdout == f"{TEXT}\n\f{TEXT}\n"


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_json(reader: Path, model: kosmos_edge.Model, page: Path, isolation: str) -> None:
    record = json.loads(run(page, "-m", reader, "-f", "json", "--isolation", isolation).stdout)
    assert record["text"] == TEXT and (record["width"], record["height"]) == (850, 1100)
    assert [line["text"] for line in record["lines"]] == [text for _, text in LINES]
    assert [tuple(line["box"]) for line in record["lines"]] == boxes(model, page)
    # The page is seen with its sides in the same proportion: one factor each for x and for y.
    for line, ((x1, y1, x2, y2), _) in zip(record["lines"], LINES, strict=True):
        left, top, right, bottom = line["box"]
        assert (left / x1, right / x2) == pytest.approx((right / x2, left / x1))
        assert (top / y1, bottom / y2) == pytest.approx((bottom / y2, top / y1))
        assert 0.5 < line["score"] <= 1
    assert record["timings"]["tokens"] == TOKENS and record["finish_reason"] == "stop"


def test_markdown(reader: Path, page: Path) -> None:
    assert run(page, "-m", reader, "-f", "markdown").stdout == MARKDOWN + "\n"


def test_the_text_of_a_searchable_pdf_lies_in_the_boxes(reader: Path, model: kosmos_edge.Model, book: Path) -> None:
    target = book.with_name("out.pdf")
    done = run(book, "-m", reader, "-o", target, "--dpi", 100)
    assert (done.returncode, done.stderr) == (0, "")
    with pypdfium2.PdfDocument(target) as pdf, open_document(book, dpi=100) as document:
        assert len(pdf) == 3
        lines = read_page(model, document.page(3)).lines
        text = pdf[2].get_textpage()
        assert text.get_text_range().split("\r\n") == [text for _, text in LINES]
        left, bottom, _, top = text.get_charbox(0, loose=True)
        x1, y1, _, y2 = (value * 0.72 for value in lines[0].box.pixels or ())
        assert (left, bottom, top) == pytest.approx((x1, 396 - y2, 396 - y1), abs=1)


def test_a_page_that_is_cut_off(reader: Path, page: Path) -> None:
    done = run(page, "-m", reader, "-n", 30, "-f", "json")
    record = json.loads(done.stdout)
    assert (done.returncode, record["finish_reason"], len(record["token_ids"])) == (0, "length", 30)
    assert done.stderr == f"kosmos-edge: {page}: stopped at 30 tokens; raise --max-tokens\n"
    assert record["lines"][0]["text"] == "Invoice 7" and "cut" not in record["lines"][0]
    assert record["lines"][-1]["cut"] is True and record["notes"] == ["the last line was cut at max_tokens"]


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_line_that_is_cut_keeps_its_box(reader: Path, page: Path, isolation: Any) -> None:
    """By a stop text, by max_tokens; whole, as a stream, in a batch."""
    with kosmos_edge.load(reader, threads=1, isolation=isolation) as model:
        whole = model.read(page)
        assert not any(line.cut for line in whole.lines) and whole.notes == []
        for options, said, reason, text in [
            ({"stop": ["7"]}, "the last line was cut by a stop text", "stop_string", "Invoice"),
            ({"max_tokens": 6 + len("Invoice")}, "the last line was cut at max_tokens", "length", "Invoice"),
        ]:
            cut = model.read(page, **options)
            assert (cut.text, cut.notes, cut.finish_reason) == (text, [said], reason)
            (line,) = cut.lines
            assert (line.text, line.box, line.cut) == (text, whole.lines[0].box, True)
            assert line.score is not None and line.to_dict()["cut"] is True
            events = list(model.read(page, stream=True, **options))
            assert [event.entity for event in events if isinstance(event, EntityEvent)] == cut.entities
            streamed = events[-1].result
            for other in (streamed, next(iter(model.batch([page], "read", **options)))):
                assert (other.text, other.lines, other.notes) == (cut.text, cut.lines, cut.notes)
        unsure = model.read(page, stop=["7"], min_score=0.999999)
        assert unsure.lines == [] and "the last line was cut by a stop text" not in unsure.notes


@pytest.mark.parametrize("form", ["hocr", "alto", "tsv", "txt", "pdf"])
def test_formats_have_the_words_of_a_cut_line(reader: Path, page: Path, form: str) -> None:
    target = page.with_name(f"out.{form}")
    done = run(page, "-m", reader, "-n", 30, "-f", form, "-o", target)
    assert done.returncode == 0 and ": stopped at 30 tokens; raise --max-tokens\n" in done.stderr
    plain = run(page, "-m", reader, "-n", 30).stdout
    last = plain.splitlines()[-1].split()[-1]
    assert 0 < len(plain) < len(TEXT)
    if form == "pdf":
        with pypdfium2.PdfDocument(target) as pdf:
            assert last in pdf[0].get_textpage().get_text_range()
    else:
        assert last in target.read_text()


def test_a_model_that_does_not_read(page: Path) -> None:
    done = run(page, "-m", tiny_file())
    assert done.returncode == 2 and "has no prompt for it" in done.stderr and done.stdout == ""


def test_lines_appear_on_a_terminal(reader: Path, book: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(book, "-m", reader, "--pages", "1-2"), stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # its other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    assert shown.decode().replace("\r\n", "\n") == f"{TEXT}\n\n{TEXT}\n"


@pytest.mark.parametrize("form", ["txt", "pdf"])
def test_finished_pages_survive_an_interrupt(reader: Path, tmp_path: Path, form: str) -> None:
    many = tmp_path / "many.pdf"
    many.write_bytes(make_pdf([""] * 400, (306, 396)))
    words = command(many, "-m", reader, "-o", tmp_path / "out", "-f", form, "-v", "-t", 1)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        read = 0
        for line in process.stderr:
            read += ": page " in line
            if read == 3:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130 and not (tmp_path / "out").exists()
    kept = (tmp_path / "out.part").read_bytes()
    if form == "txt":
        pages = kept.decode().split("\f")
    else:
        with pypdfium2.PdfDocument(kept) as pdf:
            assert len(pdf) == 400
            texts = [page.get_textpage().get_text_range() for page in pdf]
        pages = [text for text in texts if text]
    assert 3 <= len(pages) < 400 and f"{len(pages)} finished pages are in {tmp_path}/out.part" in rest
    assert {page.replace("\r\n", "\n").strip("\n") for page in pages} == {TEXT}


@pytest.mark.skipif(find_spec("ocrmypdf") is None, reason="OCRmyPDF is not installed")
def test_ocrmypdf_on_its_command_line(reader: Path, book: Path) -> None:
    target = book.with_name("out.pdf")
    words = ["--plugin", "kosmos_edge.integrations.ocrmypdf", "--kosmos-edge-model", str(reader), "--force-ocr"]
    words += ["--pdf-renderer", "sandwich", "--quiet", str(book), str(target)]
    done = subprocess.run([sys.executable, "-P", "-m", "ocrmypdf", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pypdfium2.PdfDocument(target) as pdf:
        pages = [page.get_textpage().get_text_range().replace("\r\n", "\n") for page in pdf]
    assert pages == [TEXT] * 3


# ---- Python


def test_pages_in_python(model: kosmos_edge.Model, book: Path) -> None:
    with open_document(book, dpi=72) as document:
        pages = list(read_pages(model, document, parse_pages("2-")))
    assert [(page.number, page.result.text, page.size, page.dpi) for page in pages] == [
        (2, TEXT, (306, 396), (72, 72)),
        (3, TEXT, (306, 396), (72, 72)),
    ]


def test_events_of_a_page(model: kosmos_edge.Model, page: Path) -> None:
    events: list[object] = []
    with open_document(page) as document:
        result = read_page(model, document.page(1), on_event=events.append).result
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == TEXT
    entities = [event.entity for event in events if isinstance(event, EntityEvent)]
    assert entities == result.entities and [entity.phrase for entity in entities] == [text for _, text in LINES]


def test_a_line_is_given_after_its_text(tmp_path: Path) -> None:
    """Also where the text has a "<", which in answers of other models may be the beginning of a tag."""
    lines: list[Boxed] = [((8, 8, 70, 24), "1 < 2"), ((8, 32, 90, 48), "last words here")]
    text = ""
    with kosmos_edge.load(write_reader(tmp_path / "reader.gguf", lines), threads=1) as model:
        for event in model.read(save_png(tmp_path / "page.png"), stream=True):
            if isinstance(event, EntityEvent):
                assert text[slice(*event.entity.span)] == event.entity.phrase
            elif isinstance(event, TextDelta):
                text += event.text
    assert text == "1 < 2\nlast words here"


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_text_without_a_box_is_told(reader: Path, page: Path, tmp_path: Path, isolation: Any) -> None:
    told = "some text has no usable box: it is in the text, but not among the lines"
    boxed: list[Boxed] = [((8, 8, 70, 24), "one"), ((8, 32, 90, 48), "two")]
    answers: list[tuple[list[Boxed], list[str]]] = [
        ([(None, "loose")], []),
        ([(None, "loose"), *boxed], ["one", "two"]),
    ]
    for lines, kept in answers:
        path = write_reader(tmp_path / "reader.gguf", lines, "# M")
        with kosmos_edge.load(path, threads=1, isolation=isolation) as model:
            result = model.read(page)
            assert result.text.startswith("loose") and [line.text for line in result.lines or ()] == kept
            assert result.notes == [told] == next(iter(model.batch([page], "read"))).notes
            assert model.read(page, markdown=True).notes == []
    done = run("-m", path, page, "-f", "hocr")
    assert done.returncode == 0 and done.stderr == f"kosmos-edge: {page}: {told}\n"
    with kosmos_edge.load(reader, threads=1, isolation=isolation) as model:
        assert model.read(page).notes == []
        cut = model.read(page, stop=["7"])
        assert cut.text == "Invoice" and told not in cut.notes
        unsure = model.read(page, min_score=0.999999)
        assert unsure.lines == [] and len(unsure.notes) == 3 and told not in unsure.notes


def test_a_cancelled_page_ends_soon(model: kosmos_edge.Model, page: Path) -> None:
    cancel = kosmos_edge.CancelToken()
    cancel.cancel()
    start = time.monotonic()
    with pytest.raises(kosmos_edge.Cancelled):
        model.read(page, cancel=cancel)
    assert time.monotonic() - start < 5


def test_a_page_without_text(tmp_path: Path, page: Path) -> None:
    """It is told: by Python, by C, and on the command line."""
    empty = write_reader(tmp_path / "empty.gguf", [], "")
    said = "no text that the model can read"
    with kosmos_edge.load(empty, threads=1) as model:
        result = model.read(page)
        assert (result.text, result.lines, result.finish_reason) == ("", [], "stop") and said in result.notes
        assert said in model.read(page, markdown=True).notes
    done = run(page, "-m", empty)
    assert (done.returncode, done.stdout.strip()) == (0, "") and f"{page}: {said}" in done.stderr
    handle = capi.load(empty, threads=1)
    image = capi.encode(handle, np.full((80, 60, 3), 255, np.uint8))
    assert said in capi.read(capi.make("read", handle, image, None))["notes"]
    capi.lib().kosmos_image_free(image)
    capi.lib().kosmos_model_free(handle)


def test_a_page_that_was_cut_before_its_text(reader: Path, page: Path) -> None:
    """A limit in front of the first word says nothing about the page: it is not called empty."""
    done = run(page, "-m", reader, "--max-tokens", "1")
    assert (done.returncode, done.stdout.strip()) == (0, "") and "stopped at 1 tokens" in done.stderr
    assert "no text that the model can read" not in done.stderr
