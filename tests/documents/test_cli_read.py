"""kosmos-edge read: what it writes where, what it says, its exit status. The results are those of a stand-in."""

import io
import json
import os
import signal
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pikepdf
import pypdfium2
import pytest
from helpers.documents import Reading, make_pdf, save_png, save_tiff

from kosmos_edge import cli
from kosmos_edge.cli.output import Output
from kosmos_edge.cli.streams import Ended
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, OutOfMemory


class Runner:
    """Runs the command in this process."""

    def __init__(self, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture = capsysbinary
        self.model = Reading()
        self.taken: dict[str, Any] = {}  # the options for loading a model

        def take_model(values: dict[str, Any], _: Any, *, reads: bool) -> Reading:
            assert reads  # the default is a model that reads
            names = ("model", "device", "threads", "copy", "offline", "isolation", "mmproj", "kv_type")
            self.taken = {name: values.pop(name) for name in names}
            return self.model

        monkeypatch.setattr("kosmos_edge.cli.read.take_model", take_model)

    def __call__(self, *args: object) -> SimpleNamespace:
        code = cli.run(["read", *(str(arg) for arg in args)])
        captured = self._capture.readouterr()
        return SimpleNamespace(
            code=code, data=captured.out, out=captured.out.decode(errors="replace"), err=captured.err.decode()
        )


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Runner(capsysbinary, monkeypatch)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A PDF of three pages of 144 x 72 points without text."""
    path = tmp_path / "book.pdf"
    path.write_bytes(make_pdf(["", "", ""]))
    return path


def words_in(data: bytes) -> list[str]:
    with pypdfium2.PdfDocument(data) as pdf:
        return [page.get_textpage().get_text_range().replace("\r\n", "|") for page in pdf]


# ---- one document


def test_text_of_an_image(run: Runner, tmp_path: Path) -> None:
    done = run(save_png(tmp_path / "a.png"))
    assert (done.code, done.out, done.err) == (0, "page 1\n120 x 80\n", "")
    assert run.model.calls == [(120, 80, False, {})]


def test_pages_of_a_pdf(run: Runner, book: Path) -> None:
    assert run(book, "--dpi", 72).out == "page 1\n144 x 72\n\fpage 2\n144 x 72\n\fpage 3\n144 x 72\n"
    assert run(book, "--pages", "2-", "--dpi", 100).out == "page 4\n200 x 100\n\fpage 5\n200 x 100\n"
    assert run.model.calls[-1][:2] == (200, 100)


def test_the_default_resolution_is_200(run: Runner, book: Path) -> None:
    assert run(book, "--pages", 3).out == "page 1\n400 x 200\n"


def test_pages_of_a_tiff(run: Runner, tmp_path: Path) -> None:
    done = run(save_tiff(tmp_path / "a.tif", [(30, 20), (50, 40)]), "--pages", "2", "-f", "json")
    record = json.loads(done.out)
    assert [page["page"] for page in record["pages"]] == [2] and record["pages"][0]["lines"][1]["text"] == "50 x 40"


def test_json_of_an_image(run: Runner, tmp_path: Path) -> None:
    record = json.loads(run(save_png(tmp_path / "a.png"), "-f", "json").out)
    assert record["path"] == str(tmp_path / "a.png") and (record["width"], record["height"]) == (120, 80)
    assert record["lines"][0] == {"text": "page 1", "box": [10, 10, 60, 20], "score": 0.5}


def test_markdown_is_the_models_own_task(run: Runner, book: Path) -> None:
    done = run(book, "-f", "markdown", "--dpi", 72, "--pages", "1-2")
    assert done.out == "# Page 1\n\n*144*\n\n# Page 2\n\n*144*\n"
    assert [call[2] for call in run.model.calls] == [True, True]


@pytest.mark.parametrize("form", ["hocr", "alto"])
def test_words_get_places_on_request(run: Runner, tmp_path: Path, form: str) -> None:
    path = save_png(tmp_path / "a.png")
    mark = {"hocr": "ocrx_word", "alto": "estimates"}[form]
    without, given = run(path, "-f", form).out, run(path, "-f", form, "--words").out
    ET.fromstring(without)
    ET.fromstring(given)
    assert mark not in without and mark in given


def test_words_elsewhere_are_wrong_usage(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_png(tmp_path / "a.png")
    done = run(path, "--words")
    assert done.code == 2 and "--words: not an option of the format txt" in done.err
    monkeypatch.setenv("KOSMOS_EDGE_WORDS", "1")
    assert run(path).code == 0


def test_a_pdf_that_can_be_searched(run: Runner, book: Path) -> None:
    done = run(book, "-f", "pdf", "--dpi", 72, "--pages", "1,3")
    assert done.code == 0 and words_in(done.data) == ["page 1|144 x 72", "", "page 2|144 x 72"]


def test_pages_with_text_keep_it(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["own words", ""]))
    done = run(path, "-f", "pdf", "-o", tmp_path / "out.pdf", "--dpi", 72)
    assert done.code == 0 and len(run.model.calls) == 1
    assert done.err == f"kosmos-edge: {path}: page 1: has text already and is left as it is\n"
    assert words_in((tmp_path / "out.pdf").read_bytes()) == ["own words", "page 1|144 x 72"]


def test_a_pdf_whose_pages_all_have_text(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["own words"]))
    assert run(path, "-f", "pdf", "-o", "out.pdf").code == 0 and run.model.calls == []
    assert words_in(Path("out.pdf").read_bytes()) == ["own words"]


def test_stdin(run: Runner, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (book.read_bytes(), save_png(book.parent / "a.png").read_bytes()):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert run("-", "--pages", 1).code == 0


def test_options_of_the_model(run: Runner, tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png")
    assert run(path, "-m", "some.gguf", "-t", 3, "--isolation", "process", "--kv-type", "q8_0", "-n", 100).code == 0
    assert run.taken == {
        "model": "some.gguf", "device": "auto", "threads": 3, "copy": False, "offline": False, "isolation": "process",
        "mmproj": None, "kv_type": "q8_0",
    }  # fmt: skip
    assert run.model.calls[0][3] == {"max_tokens": 100}


# ---- where it goes


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("x.txt", b"page 1\n"), ("x.json", b"{"), ("x.md", b"# Page 1"), ("x.hocr", b"<?xml"), ("x.html", b"<?xml"),
        ("x.xml", b"<?xml"), ("x.tsv", b"level\t"), ("x.pdf", b"%PDF-"), ("x.other", b"page 1\n"),
    ],
)  # fmt: skip
def test_the_suffix_sets_the_format(run: Runner, tmp_path: Path, name: str, start: bytes) -> None:
    done = run(save_png(tmp_path / "a.png"), "-o", name)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert Path(name).read_bytes().startswith(start) and sorted(os.listdir()) == ["a.png", name]
    assert ("alto" in Path(name).read_text("latin-1")) is (name == "x.xml")


def test_the_option_goes_before_the_suffix(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_png(tmp_path / "a.png")
    run(path, "-o", "x.pdf", "-f", "tsv")
    assert Path("x.pdf").read_text().startswith("level\t")
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "csv")  # for other commands
    assert run(path).out == "page 2\n120 x 80\n"
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "hocr")
    assert run(path).out.startswith("<?xml")


@pytest.mark.parametrize("name", ["x.txt", "x.pdf"])
def test_existing_files_are_kept(run: Runner, tmp_path: Path, name: str) -> None:
    path = save_png(tmp_path / "a.png")
    Path(name).write_text("mine")
    done = run(path, "-o", name)
    assert done.code == 2 and "exists" in done.err and Path(name).read_text() == "mine" and run.model.calls == []
    assert run(path, "-o", name, "--overwrite").code == 0 and Path(name).read_bytes() != b"mine"


@pytest.mark.parametrize("form", ["txt", "pdf"])
def test_the_input_is_no_output(run: Runner, book: Path, form: str) -> None:
    before = book.read_bytes()
    done = run(book, "-f", form, "-o", book, "--overwrite")
    assert done.code == 2 and "is the same file as the input" in done.err and book.read_bytes() == before


def test_urls_are_fetched_if_allowed(run: Runner, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/scans/book.pdf"
    refused = run(url)
    assert refused.code == 2 and f"{url}: URLs are not fetched without --allow-urls" in refused.err
    monkeypatch.setattr("kosmos_edge.urls.fetch", lambda found: book.read_bytes() if found == url else b"")
    done = run(url, "--allow-urls", "--dpi", 72, "--pages", "1-2")
    assert done.code == 0 and done.out.startswith("page 1\n144 x 72\n")
    assert run(url, "--allow-urls", "-o", "out/", "-f", "hocr").code == 0 and os.listdir("out") == ["book.hocr"]


def test_a_dash_is_stdout(run: Runner, book: Path) -> None:
    done = run(book, "-o", "-", "--pages", "1")
    assert done.code == 0 and done.out.startswith("page 1\n") and os.listdir() == ["book.pdf"]
    several = run(book, book, "-o", "-")
    assert several.code == 2 and "several documents need a folder" in several.err


def test_several_documents_go_to_a_folder(run: Runner, book: Path) -> None:
    scans = book.parent / "scans"
    (scans / "more").mkdir(parents=True)
    save_png(scans / "a.png")
    (scans / "b.PDF").write_bytes(book.read_bytes())
    save_png(scans / "more" / "a.jpg")
    (scans / "notes.txt").write_text("not read")
    done = run(scans, book, "-r", "-o", "out", "-f", "hocr", "--dpi", 72)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert sorted(os.listdir("out")) == ["a.jpg.hocr", "a.png.hocr", "b.hocr", "book.hocr"]
    assert len(ET.parse("out/b.hocr").findall(".//*[@class='ocr_page']")) == 3
    done = run(scans, book, "-o", "out", "-f", "hocr")
    assert done.code == 2 and "exists" in done.err and len(run.model.calls) == 8


def test_a_document_that_is_named_twice_is_read_once(run: Runner, book: Path) -> None:
    path = save_png(book.parent / "a.png")
    Path("list.txt").write_text("book.pdf\na.png\nmissing.png\nbook.pdf\n")
    done = run("@list.txt", path.name, path.name, "-o", "out/", "--dpi", 72)
    assert sorted(entry.name for entry in Path("out").iterdir()) == ["a.txt", "book.txt"]
    assert [call[:2] for call in run.model.calls] == [(144, 72), (144, 72), (144, 72), (120, 80)]
    assert done.code == 1 and done.err.splitlines() == [
        "kosmos-edge: book.pdf: named more than once, read once",
        "kosmos-edge: a.png: named more than once, read once",
        "kosmos-edge: a.png: named more than once, read once",
        "missing.png: No such file or directory",
        "kosmos-edge: 1 of 3 failed",
    ]


def test_pages_of_an_earlier_run_are_kept_before_any_page_is_read(run: Runner, book: Path) -> None:
    save_png(book.parent / "a.png")
    Path("out").mkdir()
    Path("out/book.txt.part").write_text("page 1 of an hour's work")
    done = run("a.png", book, "-o", "out/")
    assert (done.code, run.model.calls, os.listdir("out")) == (2, [], ["book.txt.part"])
    assert f"{Path.cwd()}/out/book.txt.part has the answers of a run that ended early" in done.err
    Path("out/book.txt.part").write_text("")  # nothing to lose
    assert run("a.png", book, "-o", "out/").code == 0
    assert sorted(os.listdir("out")) == ["a.txt", "book.txt"]


def test_one_document_in_a_folder(run: Runner, book: Path) -> None:
    assert run(book, "-o", "new/", "--pages", "1").code == 0
    assert os.listdir("new") == ["book.txt"]
    assert run(book, "-o", "new", "--pages", "1", "-f", "json").code == 0
    assert sorted(os.listdir("new")) == ["book.json", "book.txt"]


def test_several_documents_need_a_folder(run: Runner, book: Path) -> None:
    done = run(book, book)
    assert done.code == 2 and "several documents need a folder: -o FOLDER/" in done.err
    (book.parent / "file").write_text("x")
    done = run(book, save_png(book.parent / "a.png"), "-o", "file")
    assert done.code == 2 and "several documents need a folder" in done.err and run.model.calls == []


def test_a_searchable_copy_beside_its_original_is_refused(run: Runner, book: Path) -> None:
    done = run(book, "-f", "pdf", "-o", f"{book.parent}/", "--overwrite")
    assert done.code == 2 and "is the same file as the input" in done.err


# ---- wrong usage


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--pages", "0"], "pages: expected"),
        (["--pages", "2-x"], "pages: expected"),
        (["--dpi", "10"], "dpi: expected an integer from 36 to 1200"),
        (["-f", "text"], "'text' is not one of"),
        (["--pages", "4"], "page 4 requested, the document has 3"),
        (["--frame", "1"], "No such option"),
    ],
)
def test_wrong_usage(run: Runner, book: Path, options: list[str], text: str) -> None:
    done = run(book, *options)
    assert done.code == 2 and text in done.err and done.out == "" and run.model.calls == []


def test_a_pdf_is_not_for_a_terminal(run: Runner, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kosmos_edge.cli.streams._Stream.isatty", lambda self: True)
    done = run(book, "-f", "pdf")
    assert done.code == 2 and "cannot be shown in a terminal" in done.err


def test_a_model_that_cannot_read_is_said_once(run: Runner, book: Path) -> None:
    run.model.refusal = InvalidRequest("this model does not read")
    done = run(book, "-o", "out/", book, "-f", "hocr")
    assert (done.code, len(run.model.calls)) == (2, 0)
    assert done.err == "kosmos-edge: error: this model does not read\n" and os.listdir("out") == []


def test_a_page_that_the_model_refuses_is_left_out(run: Runner, book: Path) -> None:
    run.model.error, run.model.fails_at = InvalidRequest("a picture of 9 x 9999 pixels is too long"), 1
    done = run(book, "--pages", "1-2", "--dpi", 72)
    assert done.code == 1 and done.err == f"{book}: page 1: a picture of 9 x 9999 pixels is too long\n"
    assert done.out == "page 2\n144 x 72\n"


# ---- what fails


def test_a_page_that_fails_is_left_out(run: Runner, book: Path) -> None:
    run.model.error, run.model.fails_at = OutOfMemory("not enough memory"), 2
    done = run(book, "--dpi", 72, "-f", "json")
    assert done.code == 1 and done.err == f"{book}: page 2: not enough memory\n"
    assert [page["page"] for page in json.loads(done.out)["pages"]] == [1, 3]


def test_a_page_that_fails_has_no_text_in_the_pdf(run: Runner, book: Path) -> None:
    run.model.error, run.model.fails_at = ImageDecodeError("damaged"), 2
    done = run(book, "--dpi", 72, "-f", "pdf", "-o", "out.pdf")
    assert done.code == 1 and done.err == f"{book}: page 2: damaged\n"
    assert words_in(Path("out.pdf").read_bytes()) == ["page 1|144 x 72", "", "page 3|144 x 72"]


def test_fail_fast(run: Runner, book: Path) -> None:
    run.model.error, run.model.fails_at = OutOfMemory("not enough memory"), 2
    done = run(book, "--fail-fast", "-o", "out.txt", "--dpi", 72)
    assert done.code == 1 and len(run.model.calls) == 2
    assert done.err.endswith(f"kosmos-edge: 1 finished page is in {book.parent}/out.txt.part\n")
    assert Path("out.txt.part").read_text() == "page 1\n144 x 72\n" and not Path("out.txt").exists()


@pytest.mark.parametrize("form", ["txt", "hocr", "pdf"])
def test_a_document_that_fails(run: Runner, book: Path, form: str) -> None:
    (book.parent / "bad.pdf").write_bytes(b"%PDF-1.7 nothing")
    done = run("bad.pdf", book, "-o", "out", "-f", form, "--dpi", 72)
    assert done.code == 1 and done.err.startswith("bad.pdf: not a PDF that can be opened")
    assert done.err.endswith("kosmos-edge: 1 of 2 failed\n")
    assert [name.split(".")[0] for name in os.listdir("out")] == ["book"]
    done = run("bad.pdf", "-f", form, "-o", "x")
    assert done.code == 1 and not Path("x").exists() and not Path("x.part").exists()


def test_a_missing_document(run: Runner) -> None:
    done = run("none.pdf")
    assert done.code == 1 and done.err == "none.pdf: No such file or directory\n"


def test_no_page_was_read(run: Runner, book: Path) -> None:
    run.model.error, run.model.fails_at = OutOfMemory("not enough memory"), 1
    done = run(book, "--pages", "1", "-f", "hocr", "-o", "x.hocr")
    assert done.code == 1 and not Path("x.hocr").exists() and not Path("x.hocr.part").exists()


@pytest.mark.parametrize("form", ["txt", "pdf"])
def test_a_page_that_cannot_be_rendered(run: Runner, tmp_path: Path, form: str) -> None:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(make_pdf(["", ""]))) as pdf:
        pdf.pages[0].obj.MediaBox = pikepdf.Array([0, 0, 14400, 14400])
        pdf.save(out)
    (tmp_path / "a.pdf").write_bytes(out.getvalue())
    done = run("a.pdf", "-f", form, "-o", "out", "--dpi", 400)
    assert done.code == 1 and done.err.startswith("a.pdf: page 1 at 400 dpi: 80000 x 80000 pixels")
    data = Path("out").read_bytes()
    assert (words_in(data)[1] if form == "pdf" else data.decode()) in ("page 1|800 x 400", "page 1\n800 x 400\n")


def test_a_page_of_a_tiff_that_cannot_be_decoded(run: Runner, tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", [(30, 20), (50, 40)])
    done = run(path, "--max-pixels", 600)
    assert done.code == 1 and done.out == "page 1\n30 x 20\n"
    assert done.err == f"{path}: page 2: 50 x 40 pixels are more than the 600 that max_pixels allows\n"


# ---- ended early


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Ended(signal.SIGTERM)])
@pytest.mark.parametrize("form", ["txt", "hocr", "pdf"])
def test_finished_pages_are_kept(run: Runner, book: Path, stop: BaseException, form: str) -> None:
    run.model.error, run.model.fails_at = stop, 3
    done = run(book, "-o", "out", "-f", form, "--dpi", 72)
    assert done.code == (143 if isinstance(stop, Ended) else 130)
    assert "2 finished pages are in" in done.err and not Path("out").exists()
    kept = Path("out.part").read_bytes()
    if form == "pdf":
        assert words_in(kept) == ["page 1|144 x 72", "page 2|144 x 72", ""]
    else:
        assert b"page 1" in kept and b"page 2" in kept and b"page 3" not in kept and b"</html>" not in kept
    done = run(book, "-o", "out", "-f", form)
    assert done.code == 2 and "has the answers of a run that ended early" in done.err
    run.model.error = None
    assert run(book, "-o", "out", "-f", form, "--overwrite").code == 0 and not Path("out.part").exists()


def test_an_interrupted_page_leaves_nothing(run: Runner, book: Path) -> None:
    run.model.error, run.model.fails_at = KeyboardInterrupt(), 1
    for form in ("txt", "pdf"):
        run.model.calls.clear()
        assert run(book, "-o", "out", "-f", form).code == 130 and os.listdir() == ["book.pdf"]


# ---- what is said


def test_a_page_that_was_cut_off_is_said(run: Runner, book: Path) -> None:
    done = run(book, "-n", 5, "--pages", "1-2")
    assert done.code == 0 and done.err == "".join(
        f"kosmos-edge: {book}: page {number}: stopped at 5 tokens; raise --max-tokens\n" for number in (1, 2)
    )
    done = run(save_png(book.parent / "a.png"), "-n", 5)
    assert done.err == f"kosmos-edge: {book.parent}/a.png: stopped at 5 tokens; raise --max-tokens\n"
    assert run(book, "-n", 5, "-q").err == ""


def test_lines_without_a_box_are_said(run: Runner, book: Path) -> None:
    run.model.notes = ["2 lines have no usable box: they are in the text, but not among the lines", "something else"]
    done = run(book, "--pages", "2")
    assert done.err == f"kosmos-edge: {book}: page 2: {run.model.notes[0]}\n"


def test_messages_about_a_name_with_a_line_feed_are_one_line(run: Runner, book: Path) -> None:
    run.model.notes = ["2 lines have no usable box: they are in the text, but not among the lines"]
    done = run(save_png(book.parent / "a\nb.png"), "-n", 5, "-v")
    assert done.err.count("a b.png: ") == len(done.err.splitlines()) == 3


def test_verbose(run: Runner, book: Path) -> None:
    done = run(book, "-v", "--pages", "2")
    assert f"kosmos-edge: {book}: page 2: 2 lines, 0 ms" in done.err and "7 tokens" in done.err


def test_lines_are_shown_as_they_close(
    run: Runner, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "isatty", lambda self: True)
    shown: list[str] = []
    put = Output._put
    monkeypatch.setattr(Output, "_put", lambda self, text: (shown.append(text), put(self, text))[1])
    done = run(book, "--dpi", 72, "--pages", "1-2")
    assert done.out == "page 1\n144 x 72\n\npage 2\n144 x 72\n" and done.err == ""
    lines = ["page 1", "\n144 x 72", "\n", "\n", "page 2", "\n144 x 72", "\n"]
    assert [text for text in shown if text] == lines
    run.model.calls.clear()
    done = run(book, "--dpi", 72, "--pages", "1-2", "-f", "markdown")
    assert done.out == "# Page 1\n\n*144*\n\n# Page 2\n\n*144*\n"


def test_progress_on_a_terminal(run: Runner, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kosmos_edge.cli.reading_progress._SECONDS", 0)
    monkeypatch.setattr("kosmos_edge.cli.streams._Stream.isatty", lambda self: self._name is None)  # stderr
    done = run(book, "-o", "out.txt", "--dpi", 72)
    assert "page 1/3, 1 lines, 7 tokens" in done.err and "page 3/3, 2 lines, 14 tokens" in done.err
    assert "; 14 on the pages before" in done.err and done.err.endswith("\r\033[K"), "and is gone at the end"
    assert run(book, "-o", "out.txt", "--overwrite", "-q").err == ""
    assert "2 lines, 14 tokens of at most 90" in run(book, "-o", "out.txt", "--overwrite", "--max-tokens", 90).err
    run.model.calls.clear()
    run.model.error, run.model.fails_at = OutOfMemory("not enough memory"), 1
    done = run(book, "-o", "out.txt", "--overwrite", "--pages", "2-3")
    assert "page 2/2, 1 lines" in done.err and "page 1/2, " not in done.err, "the one that failed is counted"
