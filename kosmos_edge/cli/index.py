"""kosmos-edge index: build an index of images, search it by an image or a text, say what it holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import (
    Messages,
    gathering_options,
    model_options,
    opening_options,
    option,
    options,
    report_format_option,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.cli.tasks import shows_progress
from kosmos_edge.cli.twins import unless_default
from kosmos_edge.errors import InvalidRequest, KosmosError

if TYPE_CHECKING:
    from kosmos_edge.apps.index import Hits, Maker, PictureIndex
    from kosmos_edge.cli.inputs import Input

_MANY = 20  # pictures to rank by likelihood, from which on it is said how many there are


@click.group()
def index() -> None:
    """Find images by an image or a text.

    \b
    kosmos-edge index build photos/ -r -o photos.index
    kosmos-edge index search photos.index photo.jpg
    kosmos-edge index search photos.index "a red hat"

    With a CLIP, images and texts are compared directly. Any other model compares images by the mean of their
    vectors, and ranks images for a text by its likelihood. docs/image-index.md has more.
    """


@index.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@option("-o", "--output", required=True, prefix="INDEX_", metavar="INDEX", help="File of the index.")
@option(
    "--with-captions",
    "captions",
    is_flag=True,
    help="Keep a caption of each image, too, by which texts find candidates.",
)
@report_format_option
@options(gathering_options, model_options)
def build(photos: tuple[str, ...], output: str, captions: bool, form: str, **rest: Any) -> int:
    """Build INDEX from PHOTOS, or bring it to their state.

    PHOTOS are files, folders, globs in quotes, or @list.txt with one path per line. Images that have not changed are
    not read again; those whose files are gone from the given folders are removed. After a run that ended early the next
    one goes on. Without -m the model is that of the index, for a new one the first CLIP in the cache, else the default.
    """
    from kosmos_edge.apps.index import PictureIndex, read_maker
    from kosmos_edge.cli.inputs import expand_inputs
    from kosmos_edge.json_text import to_json

    messages, opening = take_messages(rest), take_opening(rest)
    if "-" in photos:
        raise click.UsageError("PHOTOS: stdin (-) has no path to keep in an index")
    inputs, _ = expand_inputs(photos, rest.pop("recursive"))
    unusable = [item for item in inputs if item.error is not None]
    known = read_maker(output)
    mmproj = _choose_model(rest, known, messages, new=True)
    model = take_model(rest, messages)
    assert not rest, rest
    progress = Progress(len(inputs), shown=len(inputs) > 1 and shows_progress(messages))

    def report(path: str, outcome: str, error: KosmosError | None) -> None:
        if error is not None:
            progress.clear()
            messages.error(path, plain_error(error))
        messages.detail(f"{path}: {outcome}")
        progress.advance(worked=outcome in ("added", "changed"))

    with model, PictureIndex(output, model, mmproj=mmproj) as photos_index:
        for item in unusable:
            messages.error(item.name, plain_error(item.error or OSError(item.name)))
        done = photos_index.update(
            [item.name for item in inputs if item.error is None],
            folders=[name for name in photos if os.path.isdir(name)],
            captions=captions,
            opening=opening,
            on_picture=report,
        )
        progress.clear()
        facts = photos_index.info()
    for note in done.notes:
        messages.say(note)
    if form == "json":
        head = {"index": output, "pictures": facts["pictures"], "model": facts["model"], "sha256": facts["sha256"]}
        failed = [{"path": item.name, "error": plain_error(item.error or OSError(item.name))} for item in unusable]
        record = head | done.to_dict()
        click.echo(to_json(record | {"failed": failed + record["failed"]}, 2))
    else:
        parts = [f"{done.added} added", f"{done.changed} changed", f"{done.reused} copies or renamed"]
        parts += [
            f"{done.unchanged} unchanged",
            f"{done.removed} removed",
            f"{len(done.failed) + len(unusable)} failed",
        ]
        click.echo(f"{output}: {facts['pictures']} images of {facts['model']}; {', '.join(parts)}")
    return 1 if done.failed or unusable else 0


@index.command()
@click.argument("index_file", metavar="INDEX")
@click.argument("query", metavar="IMAGE|TEXT")
@option("-k", "--hits", type=click.IntRange(1, 100_000), default=10, show_default=True, metavar="K", help="How many.")
@option(
    "--query-is",
    type=click.Choice(["auto", "image", "text"]),
    default="auto",
    show_default=True,
    help="auto: an existing file, a URL, - and names that end as images do are images.",
)
@option("--others", is_flag=True, help="Leave out images with exactly the content of IMAGE.")
@option(
    "--candidates",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="Images that a text is ranked for by its likelihood; not with CLIP.",
)
@option("--template", metavar="WORDS", help='Words around the text, such as "An image of {text}"; not with CLIP.')
@option("--truncate", is_flag=True, help="Cut texts that are longer than the model's, as published.")
@report_format_option
@options(opening_options, model_options)
def search(
    index_file: str,
    query: str,
    hits: int,
    query_is: str,
    others: bool,
    candidates: int,
    template: str | None,
    truncate: bool,
    form: str,
    **rest: Any,
) -> int:
    """Print the images of INDEX that are nearest to IMAGE, or fit TEXT best.

    Each line is the score and the path. The score is the cosine of the vectors, -1 to 1; with a model that is no CLIP
    and a TEXT it is ln p of the text given the image. The model is that of the index; -m names it if it was moved.
    """
    from kosmos_edge.apps.index import JOINT, PictureIndex, read_maker
    from kosmos_edge.cli.inputs import Input

    messages, opening = take_messages(rest), take_opening(rest)
    is_image = query_is == "image" or (query_is == "auto" and _names_image(query))
    if not is_image:
        others = unless_default("others", others, False)
    if is_image:
        template = unless_default("template", template, None)
    if template is not None and is_image:
        raise click.UsageError("--template: expected with a text, the query is an image")
    if others and not is_image:
        raise click.UsageError("--others: expected with an image, the query is a text")
    known = _known(index_file, read_maker(index_file))
    if known.kind == JOINT:
        template = unless_default("template", template, None)
    mmproj = _choose_model(rest, known, messages, new=False)
    with take_model(rest, messages) as model:
        assert not rest, rest
        with PictureIndex(index_file, model, mmproj=mmproj, read_only=True) as photos:
            if is_image:
                item = Input(query, None if query == "-" else query)
                source = _source(item)
                answer = photos.search_image(source, hits, others=others, opening=opening)
                answer.query = query
            else:
                answer = _search_text(photos, query, hits, candidates, template, truncate, messages)
    _print_hits(answer, form, messages)
    return 0


@index.command()
@click.argument("index_file", metavar="INDEX")
@report_format_option
def info(index_file: str, form: str) -> int:
    """Print what INDEX holds: images, its model and the model's SHA-256."""
    from kosmos_edge.apps.index import PictureIndex
    from kosmos_edge.json_text import to_json

    with PictureIndex(index_file, read_only=True) as photos:
        facts = photos.info()
    if form == "json":
        click.echo(to_json(facts, 2))
    else:
        for name, value in facts.items():
            click.echo(f"{name}\t{'-' if value is None else value}")
    return 0


def _known(path: str, maker: Maker | None) -> Maker:
    if maker is None:
        raise InvalidRequest(f"{path}: no index, or an empty one; `kosmos-edge index build PHOTOS -o {path}` makes one")
    return maker


def _choose_model(rest: dict[str, Any], known: Maker | None, messages: Messages, *, new: bool) -> str | None:
    """Sets -m where it is not given, and returns the model's second file."""
    from kosmos_edge import hub
    from kosmos_edge.errors import ModelNotFound
    from kosmos_edge.pairs import pair_in

    if known is not None:  # from the environment they are defaults for other commands
        rest["model"] = unless_default("model", rest["model"], None)
        if rest["model"] is None:
            rest["mmproj"] = unless_default("mmproj", rest["mmproj"], None)
    spec, mmproj = rest["model"], rest["mmproj"]
    if spec is None and mmproj is None and known is not None:
        if not os.path.isfile(known.path):
            raise ModelNotFound(
                f"{known.path}: the index's model {known.name} is not there; name its file with --model"
            )
        rest["model"], rest["mmproj"] = known.path, known.mmproj
        messages.detail(f"model {known.path}: the index has its vectors")
    elif spec is None and mmproj is None and new:
        try:
            rest["model"], why = hub.default_comparer()
        except ModelNotFound:
            rest["model"], why = hub.default_model()
        messages.detail(f"model {rest['model']}: {why}")
    elif mmproj is None and os.path.isdir(str(spec)):
        from pathlib import Path

        pair = pair_in(Path(str(spec)))
        return None if pair is None else os.fspath(pair[1])
    found = rest["mmproj"]
    return None if found is None else str(found)


def _names_image(query: str) -> bool:
    from kosmos_edge.files import url_problem
    from kosmos_edge.images import picture_suffixes

    if query == "-" or os.path.lexists(query):
        return True
    return os.path.splitext(query)[1].lower() in picture_suffixes() or url_problem(query) is not None


def _source(item: Input) -> Any:
    from kosmos_edge.images import Unusable

    source = item.source()
    if isinstance(source, Unusable):
        raise source.error
    return source


def _search_text(
    photos: PictureIndex,
    text: str,
    hits: int,
    candidates: int,
    template: str | None,
    truncate: bool,
    messages: Messages,
) -> Hits:
    count = min(candidates, len(photos))
    progress = Progress(count, shown=count >= _MANY and shows_progress(messages))

    def report(path: str, error: KosmosError | None) -> None:
        progress.advance()

    try:
        return photos.search_text(
            text, hits, candidates=candidates, template=template, truncate=truncate, on_picture=report
        )
    finally:
        progress.clear()


def _print_hits(answer: Hits, form: str, messages: Messages) -> None:
    from kosmos_edge.json_text import to_json

    if form == "json":
        click.echo(to_json(answer.to_dict(), 2))
    else:
        for hit in answer.hits:
            click.echo(f"{hit.score:.4f}\t{hit.path}")
    for note in answer.notes:
        messages.say(note)


__all__ = ["index"]
