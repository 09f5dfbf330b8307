"""kosmos-edge grit: grounded image-text pairs from captioned images."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import (
    Messages,
    batch_size_option,
    decoding_options,
    model_options,
    option,
    options,
    take_messages,
    take_model,
    take_opening,
)
from kosmos_edge.cli.folders import model_files
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.cli.tasks import shows_progress
from kosmos_edge.cli.twins import from_environment, set_aside
from kosmos_edge.machine import keep_one_heap

if TYPE_CHECKING:
    from kosmos_edge.apps.grit import Builder, Detector, Made, Parser, Rules

_SHARE = click.FloatRange(0, 1)
_MODEL_ONLY = ("model", "mmproj", "context", "place")  # options of our own engine

input_options = options(
    option("--captions", metavar="FILE", help="COCO's captions of the folder IMAGES. Default: a .txt beside each."),
    option(
        "--image-column", metavar="NAME", help="Parquet: the column of the images. Default: jpg, png, webp or image."
    ),
    option(
        "--caption-column", default="caption", show_default=True, metavar="NAME", help="Parquet: that of the captions."
    ),
    option(
        "--max-caption",
        type=click.IntRange(1),
        default=1000,
        show_default=True,
        metavar="N",
        help="Drop captions of more than N characters.",
    ),
)
parser_options = options(
    option(
        "--pipeline",
        metavar="NAME|FOLDER",
        help="spaCy's pipeline. Default: the best installed en_core_web.",
    ),
    option("--trees", metavar="FILE", help="Take the parsed captions from FILE instead; see `grit parse`."),
)
box_options = options(
    option(
        "--detector",
        metavar="URL|FOLDER",
        help="What finds the boxes: an HTTP address, or a folder with an ONNX detector. Default: the model.",
    ),
    option("--context", is_flag=True, help="Model: put the caption's words before a phrase before it in the prompt."),
    option(
        "--threshold",
        type=_SHARE,
        default=0.5,
        show_default=True,
        metavar="P",
        help="Drop boxes with a lower score, 0..1. Published for GLIP: 0.65.",
    ),
    option(
        "--place",
        type=_SHARE,
        default=0.0,
        show_default=True,
        metavar="P",
        help="Model: drop boxes whose corners are less probable, 0..1.",
    ),
    option(
        "--overlap",
        type=_SHARE,
        default=0.7,
        show_default=True,
        metavar="P",
        help="Drop boxes with a larger IoU with a better one of the image (non-maximum suppression).",
    ),
    option("--abstract", metavar="FILE", help="Nouns to leave out, one a line, instead of the list that comes along."),
    option(
        "--contained",
        type=click.Choice(["drop", "keep"]),
        default="drop",
        show_default=True,
        help="What becomes of expressions inside of others. The published files keep them.",
    ),
)
output_options = options(
    option("-o", "--output", prefix="GRIT_", required=True, metavar="FOLDER", help="Folder for the results."),
    option(
        "--records",
        type=click.Choice(["json", "parquet", "both"]),
        default="both",
        show_default=True,
        help="Form of the records; parquet needs the extra grit.",
    ),
    option(
        "--sheet",
        type=click.IntRange(0),
        default=60,
        show_default=True,
        metavar="N",
        help="Images on the contact sheet.",
    ),
    option("--overwrite", is_flag=True, help="Replace the results of an earlier run."),
    option("--resume", is_flag=True, help="Continue a run that ended early: known boxes are not computed again."),
    option("--journal", metavar="FILE", help="The run's journal. Default: journal.sqlite3 in the folder of -o."),
    option("--shard", metavar="I/N", help="Only the I-th of N parts of the images, 1 <= I <= N."),
    batch_size_option,
    option("--fail-fast", is_flag=True, help="Stop at the first image that fails."),
)


@click.group()
def grit() -> None:
    """Grounded image-text pairs from captioned images, as KOSMOS-2's GRIT was made.

    \b
    kosmos-edge grit build photos/ -o grit/
    kosmos-edge grit build val2017/ --captions captions_val2017.json -o grit/
    kosmos-edge grit build shards/*.tar -o grit/ --resume
    """


@grit.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@options(input_options, parser_options, box_options, output_options, decoding_options, model_options)
def build(inputs: tuple[str, ...], **rest: Any) -> int:
    """Make grounded pairs of IMAGES: folders of images with a .txt beside each, .tar files (webdataset), .parquet
    files (img2dataset), or one folder with --captions."""
    from kosmos_edge.apps.grit import Builder, read_pairs
    from kosmos_edge.apps.grit.output import Folder
    from kosmos_edge.apps.grit.sheet import Sheet
    from kosmos_edge.folders.journal import Journal
    from kosmos_edge.folders.running import parse_shard

    keep_one_heap()
    messages = take_messages(rest)
    out, opening, fail_fast = rest["output"], take_opening(rest), rest["fail_fast"]
    shard = None if rest["shard"] is None else parse_shard(rest["shard"])
    pairs = read_pairs(inputs, rest["captions"], column=rest["image_column"], caption_column=rest["caption_column"])
    abstract, rules, parser = _abstract(rest["abstract"]), _rules(rest), _parser(rest)
    sheet = Sheet(rest["sheet"])
    with ExitStack() as stack:
        replace = rest["overwrite"] or rest["resume"]
        folder = stack.enter_context(Folder(out, rest["records"], sheet, replace=replace))
        detector = _detector(rest, messages)
        settings = {
            "threshold": rules.threshold,
            "place": rules.place,
            "overlap": rules.overlap,
            "contained": rest["contained"],
            "max_caption": rest["max_caption"],
            "abstract_nouns": rest["abstract"] or "built in",
            "shard": rest["shard"],
        }
        folder.start({"parser": dict(parser.facts), "detector": dict(detector.facts), "settings": settings})
        journal = stack.enter_context(Journal(rest["journal"] or os.path.join(out, "journal.sqlite3")))
        builder = Builder(
            parser,
            detector,
            journal,
            rules,
            abstract,
            contained=rest["contained"] == "keep",
            max_caption=rest["max_caption"],
            resume=rest["resume"],
            shard=shard,
            batch=rest["batch_size"],
            opening=opening,
            pictures=sheet.wants,
        )
        complete = _run(builder, pairs, folder, messages, fail_fast, out)
        if not complete:
            return 1
        facts = folder.finish(builder)
    messages.say(_summary(facts))
    return 1 if facts["failed"] else 0


def _run(builder: Builder, pairs: Any, folder: Any, messages: Messages, fail_fast: bool, out: str) -> bool:
    """Builds; False if it stopped at a failure."""
    progress = Progress(None, shown=shows_progress(messages))
    try:
        with closing(builder.build(pairs)) as made:
            for one in made:
                progress.clear()
                folder.add(one)
                _report(one, messages)
                if one.error is not None and fail_fast:
                    return False
                progress.advance(worked=not one.known)
    except KeyboardInterrupt as error:
        error.add_note(f"finished boxes are in the journal; --resume goes on ({out})")
        raise
    finally:
        progress.clear()
    return True


def _report(one: Made, messages: Messages) -> None:
    if one.error is not None:
        messages.error(one.pair.key, plain_error(one.error))
    elif one.record is None:
        messages.detail(f"{one.pair.key}: dropped, {one.dropped}")


def _summary(facts: dict[str, Any]) -> str:
    dropped = ", ".join(f"{number} {reason}" for reason, number in facts["dropped"].items()) or "none"
    return (
        f"{facts['pairs']} pairs: {facts['pictures']} records with {facts['text_spans']} expressions and "
        f"{facts['boxes']} boxes; {facts['failed']} failed; dropped: {dropped}"
    )


def _rules(rest: dict[str, Any]) -> Rules:
    from kosmos_edge.apps.grit import Rules

    return Rules(rest["threshold"], rest["place"], rest["overlap"])


def _abstract(path: str | None) -> frozenset[str]:
    from kosmos_edge.apps.grit import abstract_nouns
    from kosmos_edge.apps.grit.expressions import read_nouns

    if path is None:
        return abstract_nouns()
    try:
        with open(path, encoding="utf-8-sig") as file:
            return read_nouns(file.read())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--abstract: {plain_error(error)}") from None


def _parser(rest: dict[str, Any]) -> Parser:
    from kosmos_edge.apps.grit import GivenTrees, SpacyParser

    if rest["trees"] is None:
        return SpacyParser(rest["pipeline"])
    if rest["pipeline"] is not None:
        if not from_environment("pipeline"):
            raise click.UsageError("--pipeline and --trees exclude each other")
        set_aside("pipeline")
    return GivenTrees(rest["trees"])


def _detector(rest: dict[str, Any], messages: Messages) -> Detector:
    """The detector of --detector, or the model."""
    from kosmos_edge import __version__
    from kosmos_edge.apps.grit import EngineDetector, HttpDetector

    given = rest["detector"]
    if given is None:
        names = ("model", "device", "threads", "copy", "offline", "isolation", "mmproj", "kv_type")
        model = take_model({name: rest[name] for name in names}, messages)
        files = model_files(str(model.path), rest["mmproj"])
        return EngineDetector(model, __version__, context=rest["context"], files=files)
    for name in _MODEL_ONLY:
        if rest[name]:
            if not from_environment(name):
                raise click.UsageError(f"--{name}: belongs to the model, and --detector is given")
            set_aside(name)
    if given.lower().startswith(("http://", "https://")):
        return HttpDetector(given)
    from kosmos_edge.apps.grit.onnx_detector import OnnxDetector

    return OnnxDetector(given, rest["threads"])


@grit.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGES...")
@options(input_options)
@option("--pipeline", metavar="NAME|FOLDER", help="As for build.")
@option("-o", "--output", prefix="GRIT_", required=True, metavar="FILE", help="File for the trees.")
@option("--overwrite", is_flag=True, help="Replace an existing file.")
@option("-q", "--quiet", is_flag=True, help="Print only errors to stderr.")
def parse(inputs: tuple[str, ...], **rest: Any) -> int:
    """Parse the captions of IMAGES with spaCy into a file for `build --trees`: for machines without spaCy."""
    from kosmos_edge.apps.grit import SpacyParser, read_pairs
    from kosmos_edge.json_text import to_json
    from kosmos_edge.targets import find_target, write_whole

    messages = Messages(rest["quiet"], 0)
    target = find_target(rest["output"], overwrite=rest["overwrite"])
    pairs = read_pairs(inputs, rest["captions"], column=rest["image_column"], caption_column=rest["caption_column"])
    parser = SpacyParser(rest["pipeline"])
    lines: dict[str, str] = {}
    failed = 0
    for pair in pairs:
        if pair.error is not None:
            messages.error(pair.key, plain_error(pair.error))
            failed += 1
        elif pair.caption and len(pair.caption) <= rest["max_caption"] and pair.caption not in lines:
            lines[pair.caption] = to_json(parser.parse(pair.caption).to_dict()) + "\n"
    write_whole(target, "".join(lines.values()).encode())
    messages.say(f"{len(lines)} captions, {failed} failed")
    return 1 if failed else 0
