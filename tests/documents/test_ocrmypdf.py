"""The plugin, run by the real OCRmyPDF. The results are those of a stand-in; test_read_model.py has a model."""

import logging
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pypdfium2
import pytest
from helpers.documents import LINES, Reading, make_pdf, make_result, save_png

ocrmypdf = pytest.importorskip("ocrmypdf", reason="OCRmyPDF is not installed")
from ocrmypdf.exceptions import BadArgsError, MissingDependencyError  # noqa: E402

from kosmos_edge.errors import OutOfMemory  # noqa: E402
from kosmos_edge.integrations import ocrmypdf as plugin  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of the program
TEXTS = [text for text, _, _ in LINES]


class Scaled(Reading):
    """Finds LINES on every page, however large OCRmyPDF makes it."""

    def read(self, image: Any, *, markdown: bool = False, **options: Any) -> Any:
        super().read(image, markdown=markdown, **options)
        scale = image.width / 850
        lines = [(text, tuple(v * scale for v in box), score) for text, box, score in LINES]
        limited = "max_tokens" in options
        return make_result(image.width, image.height, lines, finish_reason="length" if limited else "stop")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Scaled:
    model = Scaled()
    monkeypatch.setattr(plugin, "find_model", lambda name: name)
    monkeypatch.setattr(plugin, "load", lambda name, **options: model)
    monkeypatch.setattr(plugin, "_loaded", {})
    return model


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A PDF with two scanned pages, of 612 x 792 points, without text."""
    from kosmos_edge.documents import ReadPage, open_document
    from kosmos_edge.documents.searchable import SearchablePdf

    with open_document(save_png(tmp_path / "page.png", (850, 1100), dpi=(100, 100))) as document:
        pdf, image = SearchablePdf(document), document.page(1)
        for _ in range(2):
            pdf.add(ReadPage(1, make_result(lines=[]), image.dpi), image)
    path = tmp_path / "scan.pdf"
    path.write_bytes(pdf.save())
    return path


def run(source: Path, target: Path, **options: Any) -> list[str]:
    """The text that PDFium finds on each page of the result."""
    code = ocrmypdf.ocr(source, target, plugins=["kosmos_edge.integrations.ocrmypdf"], progress_bar=False, **options)
    assert code == ocrmypdf.ExitCode.ok
    with pypdfium2.PdfDocument(target) as pdf:
        return [page.get_textpage().get_text_range() for page in pdf]


@pytest.fixture(params=["all programs", "no other program"])
def programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tesseract and Ghostscript, if they are installed, are not needed."""
    if request.param == "no other program":
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr("ocrmypdf.api._installed_plugins", {}, raising=False)  # they look for programs once


@pytest.mark.usefixtures("programs")
def test_the_sandwich_renderer_keeps_all_characters(model: Scaled, scan: Path, tmp_path: Path) -> None:
    pages = run(scan, tmp_path / "out.pdf", pdf_renderer="sandwich", sidecar=tmp_path / "out.txt")
    assert [page.split("\r\n") for page in pages] == [TEXTS, TEXTS] and len(model.calls) == 2
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert text == "\n".join(TEXTS) + "\n\f" + "\n".join(TEXTS) + "\n"
    with pypdfium2.PdfDocument(tmp_path / "out.pdf") as pdf:
        found = pdf[1].get_textpage()
        left, bottom, right, top = found.get_charbox(0, loose=True)
        assert (left, bottom, top) == pytest.approx((72, 792 - 140 * 0.72, 792 - 100 * 0.72), abs=0.7) and right < 100


@pytest.mark.usefixtures("programs")
def test_the_default_renderer(model: Scaled, scan: Path, tmp_path: Path) -> None:
    """OCRmyPDF's own; it leaves out what its fonts lack, and from 17.11 on spaces between words written leftward."""
    for page in run(scan, tmp_path / "out.pdf"):
        lines = [line.strip() for line in page.split("\r\n")]
        assert [lines[n] for n in (0, 2)] == [TEXTS[n] for n in (0, 2)] and "日本語" in lines[1]
        assert lines[3].replace(" ", "") == TEXTS[3].replace(" ", "")
    with pypdfium2.PdfDocument(tmp_path / "out.pdf") as pdf:
        left, bottom, _, top = pdf[0].get_textpage().get_charbox(0, loose=True)
        assert left == pytest.approx(72, abs=1) and 792 - 145 * 0.72 < bottom < top < 792 - 90 * 0.72
        assert "kosmos-edge" in pdf.get_metadata_dict()["Creator"]


def test_pages_with_text_are_skipped_as_usual(model: Scaled, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["own words"]))
    assert run(path, tmp_path / "out.pdf", skip_text=True) == ["own words"] and model.calls == []


def test_options_reach_the_model(
    model: Scaled, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(plugin, "load", lambda name, **options: (loaded.append((name, options)), model)[1])
    options = {"kosmos_edge_model": "some.gguf", "kosmos_edge_threads": 3, "kosmos_edge_device": "cpu"}
    options["kosmos_edge_kv_type"] = "q8_0"
    with caplog.at_level(logging.WARNING):
        run(scan, tmp_path / "out.pdf", kosmos_edge_max_tokens=50, **options)
    assert loaded == [("some.gguf", {"device": "cpu", "threads": 3, "kv_type": "q8_0"})], "once for all pages"
    assert [call[3] for call in model.calls] == [{"max_tokens": 50}] * 2
    assert "the text was stopped at 7 tokens; raise --kosmos-edge-max-tokens" in caplog.text


def test_the_command_line_has_the_options() -> None:
    from ocrmypdf._plugin_manager import OcrmypdfPluginManager
    from ocrmypdf.cli import get_parser

    parser = get_parser()
    plugin.add_options(parser)
    words = ["--kosmos-edge-model", "m", "--kosmos-edge-max-tokens", "9", "in.pdf", "out.pdf"]
    values = parser.parse_args(words)
    assert (values.kosmos_edge_model, values.kosmos_edge_max_tokens) == ("m", 9)
    assert values.kosmos_edge_device == "auto" and values.kosmos_edge_threads is None
    assert values.kosmos_edge_kv_type == "f16"
    assert OcrmypdfPluginManager("ocrmypdf", plugins=["kosmos_edge.integrations.ocrmypdf"])


@pytest.mark.parametrize("option", ["rotate_pages", "deskew"])
def test_what_the_model_cannot_do_is_refused(model: Scaled, scan: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(BadArgsError, match="does not tell how a page is turned"):
        run(scan, tmp_path / "out.pdf", **{option: True})
    assert not (tmp_path / "out.pdf").exists()


def test_a_missing_model_is_said_first(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(BadArgsError, match="no model 'nonsense'"):
        run(scan, tmp_path / "out.pdf", kosmos_edge_model="nonsense")


def test_missing_libraries_are_said_first(
    model: Scaled, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bidi", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        run(scan, tmp_path / "out.pdf")


def test_a_page_that_fails_ends_the_run(model: Scaled, scan: Path, tmp_path: Path) -> None:
    model.error, model.fails_at = OutOfMemory("not enough memory"), 1
    with pytest.raises(plugin.KosmosEdgeError, match="kosmos-edge: not enough memory"):
        run(scan, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


def test_another_engine_by_name(model: Scaled, scan: Path, tmp_path: Path) -> None:
    assert [page.strip() for page in run(scan, tmp_path / "out.pdf", ocr_engine="none")] == ["", ""]
    assert model.calls == []
    assert plugin.get_ocr_engine(SimpleNamespace(ocr_engine="tesseract")) is None
    assert str(plugin.get_ocr_engine(None)).startswith("kosmos-edge ")


def test_hocr_of_a_page(model: Scaled, tmp_path: Path) -> None:
    image, hocr, text = save_png(tmp_path / "a.png", (850, 1100)), tmp_path / "a.hocr", tmp_path / "a.txt"
    plugin.KosmosOcrEngine.generate_hocr(image, hocr, text, SimpleNamespace())
    lines = ET.parse(hocr).findall(".//*[@class='ocr_line']")
    assert ["".join(line.itertext()) for line in lines] == TEXTS
    assert text.read_text(encoding="utf-8").splitlines() == TEXTS


def test_an_empty_page(tmp_path: Path) -> None:
    from kosmos_edge.documents import ReadPage

    tree = plugin._tree(ReadPage(1, make_result(lines=[]), None), 4)
    assert (tree.page_number, tree.children, tree.bbox.right) == (4, [], 850)
