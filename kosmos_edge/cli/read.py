"""kosmos-edge read: the text of images, TIFF files and PDFs, as text or in a format of OCR programs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import (
    DOCUMENT_FORMATS,
    EXPORT_FORMATS,
    FORMATS,
    Messages,
    document_options,
    max_tokens_option,
    model_options,
    no_file,
    option,
    options,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.errors import InvalidRequest, KosmosError

if TYPE_CHECKING:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.cli.output import Output
    from kosmos_edge.documents import Document, PageRanges, Reader, ReadPage
    from kosmos_edge.documents.searchable import SearchablePdf
    from kosmos_edge.images import Opening
    from kosmos_edge.results import Event


@click.command()
@click.argument("documents", nargs=-1, required=True, metavar="FILE...")
@option(
    "-f",
    "--format",
    "form",
    type=click.Choice(DOCUMENT_FORMATS),
    elsewhere=click.Choice((*FORMATS, *EXPORT_FORMATS)),
    default="txt",
    show_default=True,
    help="Output format. pdf: the pages with invisible text that can be searched.",
)
@option(
    "-o",
    "--output",
    metavar="FILE|FOLDER/",
    callback=no_file,
    help="Write to FILE instead of stdout (-); its suffix sets the format. Several documents need a FOLDER/.",
)
@option("--overwrite", is_flag=True, help="Replace existing files, and the FILE.part of a run that ended early.")
@option("--pages", metavar="RANGES", help='Pages to read, such as "1-3,7" or "5-". Default: all.')
@option("--dpi", type=int, default=200, show_default=True, metavar="N", help="Resolution of PDF pages, 36..1200.")
@option("--words", is_flag=True, help="hocr, alto: also give words a place, which is an estimate.")
@max_tokens_option
@options(document_options, model_options)
def read(documents: tuple[str, ...], form: str, output: str | None, pages: str | None, **rest: Any) -> int:
    """Read the text of each FILE: an image, a TIFF file of several pages, or a PDF.

    FILE may also be a folder, a glob in quotes, @list.txt with one path per line, or - for stdin.

    \b
    kosmos-edge read receipt.jpg
    kosmos-edge read page.png --format markdown > page.md
    kosmos-edge read book.pdf --pages 1-20 -o book.hocr
    kosmos-edge read scans/ --format pdf -o searchable/
    """
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.cli.output import choose_format
    from kosmos_edge.documents import ALL_PAGES, FORMATS, parse_pages
    from kosmos_edge.documents.formats import SUFFIXES
    from kosmos_edge.documents.searchable import check_libraries
    from kosmos_edge.documents.source import check_dpi
    from kosmos_edge.inference.batching import bind_task

    for library in ("pikepdf", "fontTools"):  # what they find in damaged files is in our own messages
        logging.getLogger(library).addHandler(logging.NullHandler())
    messages = take_messages(rest)
    inputs, several = expand_inputs(documents, rest.pop("recursive"), frozenset({".pdf"}))
    folder = output is not None and (several or output.endswith(("/", os.sep)) or os.path.isdir(output))
    if several and output is None:
        raise click.UsageError("several documents need a folder: -o FOLDER/")
    inputs, repeated = _each_once(inputs) if folder else (inputs, [])
    form = form if folder else choose_format(form, output, SUFFIXES)
    words, dpi, overwrite, fail_fast = (rest.pop(name) for name in ("words", "dpi", "overwrite", "fail_fast"))
    if words and form not in ("hocr", "alto"):
        _refuse_words(form)
    check_dpi(dpi)
    ranges = ALL_PAGES if pages is None else parse_pages(pages)
    if form == "pdf":
        check_libraries()
        if output is None and sys.stdout.isatty():
            raise click.UsageError("a PDF cannot be shown in a terminal: -o FILE, or redirect stdout")
    lists = [name[1:] for name in documents if name.startswith("@") and os.path.isfile(name[1:])]
    used = [*(item.path for item in inputs if item.path is not None), *lists, *filter(None, [rest["model"]])]
    suffix = FORMATS[form].suffix
    targets = _targets(inputs, output, suffix, overwrite, used) if folder else [output] * len(inputs)
    opening = take_opening(rest)
    generation = {"max_tokens": tokens} if (tokens := rest.pop("max_tokens")) is not None else {}
    model = take_model(rest, messages, reads=True)
    assert not rest, rest
    # what this model refuses for any page is said once, before the first
    model.request("read", bind_task(model, "read", {"markdown": FORMATS[form].markdown, **generation}))
    for item in repeated:
        messages.say(f"{item.name}: named more than once, read once")
    words = words and form in ("hocr", "alto")
    run = Run(model, model.name, form, words, ranges, dpi, opening, generation, fail_fast, not several, messages)
    failed = 0
    for item, target in zip(inputs, targets, strict=True):
        inputs_to_keep = filter(None, [item.path]) if folder else used  # _targets has compared all with all
        if not run.write(item, target, overwrite, inputs_to_keep):
            failed += 1
            if fail_fast:
                break
    if failed and len(inputs) > 1:
        messages.say(f"{failed} of {len(inputs)} failed")
    return 1 if failed else 0


def _refuse_words(form: str) -> None:
    """UsageError about --words where it has no effect; one from the environment is ignored."""
    from kosmos_edge.cli.twins import from_environment, set_aside

    if not from_environment("words"):
        raise click.UsageError(f"--words: not an option of the format {form}")
    set_aside("words")


def _each_once(inputs: list[Input]) -> tuple[list[Input], list[Input]]:
    """The inputs, and those that name a path again, whose file would be written twice."""
    known: dict[str | None, Input] = {}
    repeated = [item for item in inputs if known.setdefault(item.path, item) is not item]
    return list(known.values()), repeated


def _targets(inputs: list[Input], folder: str | None, suffix: str, overwrite: bool, used: Iterable[str]) -> list[str]:
    """A file in the folder for each document. Creates the folder; whatever prevents writing is found now."""
    from kosmos_edge.cli.output import refuse_part
    from kosmos_edge.drawing_names import drawing_names
    from kosmos_edge.targets import find_target, make_folder, refuse_inputs

    assert folder is not None
    make_folder(folder, "-o: several documents need a folder")
    names = drawing_names([item.path or "/stdin" for item in inputs], suffix)
    paths = [os.path.join(folder, name) for name in names]
    refuse_inputs("-o", [find_target(path, overwrite=True) for path in paths], used)
    for path in paths:
        target = find_target(path, overwrite=overwrite)
        if not overwrite:
            refuse_part(target)
    return paths


@dataclass(slots=True)
class Run:
    """What is the same for all documents of a command."""

    model: Reader
    model_name: str
    form: str
    words: bool
    ranges: PageRanges
    dpi: int
    opening: Opening
    generation: dict[str, Any]
    fail_fast: bool
    alone: bool  # one document: a request that it cannot serve is wrong usage
    messages: Messages

    def write(self, item: Input, target: str | None, overwrite: bool, used: Iterable[str]) -> bool:
        """Reads one document and writes it; whether all of its pages were read. Errors are on stderr."""
        from kosmos_edge.cli.output import open_output
        from kosmos_edge.documents import open_document

        with open_output(target, overwrite, inputs=used, say=self.messages.say) as out:
            out.noun = "page"
            try:
                document = open_document(item.source(), dpi=self.dpi, opening=self.opening, name=item.name)
                with document:
                    numbers = self.ranges.of(document.count, item.name)
                    job = _Job(self, document, numbers, out)
                    failed = job.write_pdf() if self.form == "pdf" else job.write_text()
            except KosmosError as error:
                if self.alone and isinstance(error, InvalidRequest):
                    raise
                if isinstance(error, OSError) and error.filename in ("stdout", target):
                    raise  # the output, not this document
                self.messages.error(item.name, plain_error(error))
                out.complete = False
                return False
            out.complete = failed < len(numbers) and not (failed and self.fail_fast)
            return failed == 0


class _Job:
    """One document on its way to its output."""

    def __init__(self, run: Run, document: Document, numbers: list[int], out: Output) -> None:
        from kosmos_edge.cli.reading_progress import ReadingProgress

        self._run, self._document, self._numbers, self._out = run, document, numbers, out
        messages = run.messages
        shown = sys.stderr.isatty() and not out.isatty() and not (messages.quiet or messages.verbose)
        most = run.generation.get("max_tokens")
        self._progress = ReadingProgress(document.name, len(numbers), most) if shown else None
        self._live = out.isatty() and run.form in ("txt", "markdown")
        self._waiting = ""  # text of a line that has not closed

    def write_text(self) -> int:
        """Writes the pages as they are read; how many failed."""
        from kosmos_edge import __version__
        from kosmos_edge.documents import FORMATS, About

        run, document = self._run, self._document
        about = About(document.name, document.paged, len(self._numbers), run.model_name, __version__)
        factory = FORMATS[run.form].writer
        assert factory is not None
        writer, failed, begun = factory(about, run.words), 0, False
        for number in self._numbers:
            if self._live and begun:
                self._out.end("\n")  # a form feed would clear some terminals
            page = self._read(number)
            if page is None:
                failed += 1
                if run.fail_fast:
                    return failed
                continue
            if self._live:
                self._out.write("\n" if page.text else "")
            else:
                self._out.write(("" if begun else writer.begin()) + writer.page(page))
            begun = True
            self._report(number, page)
        if begun and not self._live:
            self._out.end(writer.end())
        return failed

    def write_pdf(self) -> int:
        """Writes the PDF after the last page, or what there is of it if the run ends early; how many failed."""
        from kosmos_edge.documents.searchable import SearchablePdf

        pdf = SearchablePdf(self._document)
        failed = 0
        try:
            for number in self._numbers:
                if self._keeps_its_text(number):
                    continue
                page = self._read(number, pdf)
                if page is not None:
                    self._report(number, page)
                    continue
                failed += 1
                if self._run.fail_fast:
                    break
        except BaseException:
            self._save(pdf)
            raise
        if failed < len(self._numbers):
            self._save(pdf, always=True)
        return failed

    def _save(self, pdf: SearchablePdf, *, always: bool = False) -> None:
        if pdf.pages or always:
            self._out.write_bytes(pdf.save(), pdf.pages)

    def _keeps_its_text(self, number: int) -> bool:
        from kosmos_edge.documents.pdf import PdfPages

        if not isinstance(self._document, PdfPages) or not self._document.has_text(number):
            return False
        self._run.messages.say(f"{self._name(number)}: has text already and is left as it is")
        return True

    def _name(self, number: int) -> str:
        return f"{self._document.name}: page {number}" if self._document.paged else self._document.name

    def _read(self, number: int, pdf: SearchablePdf | None = None) -> ReadPage | None:
        """The page, which is added to the PDF if there is one; None if it failed, which is said on stderr."""
        from kosmos_edge.documents import FORMATS, read_page

        run, name = self._run, self._name(number)
        watcher = self._show if self._live else None if self._progress is None else self._progress.event
        markdown = FORMATS[run.form].markdown
        if self._progress is not None:
            self._progress.begin(self._numbers.index(number) + 1)
        try:
            image = self._document.page(number)
            page = read_page(run.model, image, markdown=markdown, on_event=watcher, **run.generation)
            if pdf is not None:
                pdf.add(page, image)
        except KosmosError as error:
            text = plain_error(error)
            run.messages.error(name, text if text.startswith(name) else text.removeprefix(f"{self._document.name}: "))
            return None
        finally:
            if self._progress is not None:
                self._progress.clear()
        return page

    def _report(self, number: int, page: ReadPage) -> None:
        """Says what there is to say about a page that is written."""
        name = self._name(number)
        messages, result, timings = self._run.messages, page.result, page.result.timings
        if self._progress is not None:
            self._progress.page_done(timings.tokens)
        messages.notes(name, result.notes)
        if result.finish_reason == "length":
            messages.say(f"{name}: stopped at {timings.tokens} tokens; raise --max-tokens")
        lines = "" if result.lines is None else f"{len(result.lines)} lines, "
        messages.detail(
            f"{name}: {lines}{timings.total_ms:.0f} ms (decode {timings.decode_image_ms:.0f}, encode "
            f"{timings.encode_ms:.0f}, prefill {timings.prefill_ms:.0f}, {timings.tokens} tokens "
            f"{timings.decode_ms:.0f})"
        )

    def _show(self, event: Event) -> None:
        """Prints to the terminal what has just been read: lines when one closes, Markdown as it comes."""
        from kosmos_edge.results import TextDelta

        if isinstance(event, TextDelta):
            self._waiting += event.text
            if self._run.form == "txt":
                return
        self._out.end(self._waiting)
        self._waiting = ""
