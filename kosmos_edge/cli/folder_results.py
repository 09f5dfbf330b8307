"""Where the results of a folder run go: answers one after another, or a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import click

from kosmos_edge.cli.folder_options import Settings
from kosmos_edge.cli.output import Answer, Output, Writer, open_output
from kosmos_edge.cli.tasks import lines_of
from kosmos_edge.targets import find_target, write_whole

if TYPE_CHECKING:
    from kosmos_edge.folders import Entry
    from kosmos_edge.folders.exports import DocumentExport, FolderExport


class Results(Protocol):
    """Takes the answers of a run."""

    def write(self, entry: Entry, answer: Answer) -> None:
        """The next answer, also one with an error."""

    def finish(self, output: str | None) -> None:
        """After the last one."""

    def close(self) -> None:
        """Releases what it holds, also after an error."""


class FolderOutput(Output):
    """The folder of a data set."""

    def __init__(self, export: FolderExport) -> None:
        super().__init__()
        self.export = export

    def isatty(self) -> bool:
        """Never."""
        return False


@contextmanager
def open_results(
    form: str,
    output: str | None,
    overwrite: bool,
    settings: Settings,
    inputs: Iterable[str],
    say: Callable[[str], None],
) -> Iterator[Output]:
    """As open_output; for a data set that is a folder, that folder."""
    from kosmos_edge.folders.exports import FOLDERS, FolderExport

    if form not in FOLDERS:
        if form == "label-studio" and output is not None:
            find_target(_configuration(output), overwrite=overwrite or settings.resume)
        with open_output(output, overwrite, inputs=inputs, say=say, resume=settings.resume) as out:
            yield out
        return
    if output is None:
        raise click.UsageError(f"--format {form}: needs -o FOLDER")
    inside = [name for name in inputs if _is_inside(name, output)]
    if inside:
        raise click.UsageError(f"-o: {inside[0]} is in the folder {output}: name a new folder")
    with FolderExport(form, output, settings.labels, settings.pictures, overwrite, settings.resume) as export:
        yield FolderOutput(export)


def _configuration(output: str) -> str:
    """label-studio: the file of the labelling interface, beside the tasks."""
    return os.path.splitext(output)[0] + ".config.xml"


def _is_inside(name: str, folder: str) -> bool:
    return os.path.realpath(name).startswith(os.path.join(os.path.realpath(folder), ""))


def results_for(
    form: str, several: bool, out: Output, task: str, arguments: dict[str, Any], settings: Settings
) -> Results:
    """What writes the answers in this form."""
    from kosmos_edge.folders.exports import DOCUMENTS, DocumentExport
    from kosmos_edge.folders.sidecars import record_of

    if isinstance(out, FolderOutput):
        return _DataSet(out.export, settings)
    if form in DOCUMENTS:
        return _Document(DocumentExport(form, settings.labels, out.write, prefix=settings.image_prefix), settings)

    if form == "webdataset":
        return _Tar(out, settings)
    if form == "parquet":
        return _Table(out, settings)

    def record(answer: Answer, name: str) -> dict[str, Any]:
        return record_of(answer, settings.wording, name)

    return _Answers(Writer(form, several, out, _worded_lines(task, arguments, settings), record))


def _worded_lines(task: str, arguments: dict[str, Any], settings: Settings) -> Callable[[Answer], list[str]]:
    from kosmos_edge.folders.sidecars import caption_of
    from kosmos_edge.results import Ranking

    lines = lines_of(task, arguments)

    def worded(answer: Answer) -> list[str]:
        if isinstance(answer, Ranking) or not settings.wording.changes:
            return lines(answer)
        return lines(replace(answer, text=caption_of(answer, settings.wording)))

    return worded


class _Answers:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, entry: Entry, answer: Answer) -> None:
        self._writer.write(entry.name, answer)

    def finish(self, output: str | None) -> None:
        self._writer.close()

    def close(self) -> None:
        pass


class _Document:
    def __init__(self, export: DocumentExport, settings: Settings) -> None:
        self._export, self._wording = export, settings.wording

    def write(self, entry: Entry, answer: Answer) -> None:
        from kosmos_edge.annotations import picture_of
        from kosmos_edge.folders.sidecars import caption_of

        if answer.error is None:
            self._export.add(picture_of(answer, name=entry.name, caption=caption_of(answer, self._wording)))

    def finish(self, output: str | None) -> None:
        self._export.finish()
        if self._export.form == "label-studio" and output is not None:
            target = find_target(_configuration(output), overwrite=True)  # checked before the run
            write_whole(target, self._export.configuration().encode())

    def close(self) -> None:
        self._export.close()


class _DataSet:
    def __init__(self, export: FolderExport, settings: Settings) -> None:
        self._export, self._wording = export, settings.wording

    def write(self, entry: Entry, answer: Answer) -> None:
        from kosmos_edge.annotations import picture_of
        from kosmos_edge.folders.sidecars import caption_of

        if answer.error is None:
            picture = picture_of(answer, name=entry.name, caption=caption_of(answer, self._wording))
            self._export.add(picture, stored_picture(entry))

    def finish(self, output: str | None) -> None:
        self._export.finish()

    def close(self) -> None:
        pass  # its folder's context does


class _Tar:
    def __init__(self, out: Output, settings: Settings) -> None:
        from kosmos_edge.folders.tars import TarExport

        self._out, self._wording = out, settings.wording
        self._export = TarExport(lambda data: out.write_bytes(data, 0))

    def write(self, entry: Entry, answer: Answer) -> None:
        from kosmos_edge.folders.sidecars import caption_of, record_of

        if answer.error is not None:
            return
        picture = stored_picture(entry)
        if isinstance(picture, str):
            with open(picture, "rb") as file:
                picture = file.read()
        record = record_of(answer, self._wording, entry.name)
        self._export.add(entry, picture, caption_of(answer, self._wording), record)
        self._out.answers += 1

    def finish(self, output: str | None) -> None:
        self._export.finish()

    def close(self) -> None:
        self._export.close()


class _Table:
    def __init__(self, out: Output, settings: Settings) -> None:
        from kosmos_edge.folders.tables import TableExport

        self._out, self._wording = out, settings.wording
        self._export = TableExport(lambda data: out.write_bytes(data, 0))

    def write(self, entry: Entry, answer: Answer) -> None:
        from kosmos_edge.folders.sidecars import caption_of

        caption = caption_of(answer, self._wording) if answer.error is None else ""
        self._export.add(answer, entry.name, caption)
        self._out.answers += 1

    def finish(self, output: str | None) -> None:
        self._export.finish()

    def close(self) -> None:
        self._export.close()


def stored_picture(entry: Entry) -> str | bytes:
    """The image's file, or the bytes of one; a video's image as PNG."""
    import io

    source = entry.reload()
    if isinstance(source, str | bytes):
        return source
    buffer = io.BytesIO()
    source.save(buffer, "PNG")
    return buffer.getvalue()
