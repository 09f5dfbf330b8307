"""Options of kosmos-edge batch for folders: sidecars, wording, runs that resume, data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import EXPORT_FORMATS, option, options
from kosmos_edge.cli.streams import plain_error
from kosmos_edge.cli.twins import from_environment, set_aside

if TYPE_CHECKING:
    from kosmos_edge.annotations import Labels
    from kosmos_edge.folders import Sidecars, Wording

SUFFIXES = {".tar": "webdataset", ".parquet": "parquet"}
SIDECARS = ("txt", "caption", "json", "xmp")

sidecar_options = options(
    option(
        "--sidecar", type=click.Choice(SIDECARS), help="Write the answer beside each image: photo.txt, photo.jpg.xmp."
    ),
    option(
        "--sidecar-names",
        type=click.Choice(["stem", "full"]),
        help="photo.txt or photo.jpg.txt. Default: stem; xmp: full.",
    ),
    option("--keywords", is_flag=True, help="xmp: the phrases with boxes as keywords, too."),
    option("--skip", is_flag=True, help="Leave out images whose sidecar exists."),
    option("--append", is_flag=True, help="txt, caption: add to an existing sidecar, after a comma."),
)
wording_options = options(
    option("--whole-sentences", is_flag=True, help="Drop the incomplete end of answers that reach the length limit."),
    option("--capital", is_flag=True, help="Begin captions with a capital letter."),
    option("--full-stop", is_flag=True, help="End captions with a full stop."),
    option("--prefix", default="", metavar="TEXT", help="Text before each caption."),
    option("--suffix", default="", metavar="TEXT", help="Text after each caption."),
    option("--trigger", default="", metavar="WORD", help='First word of each caption: "WORD, caption".'),
)
input_options = options(
    option("--every", metavar="TIME", help="Videos: an image every TIME, such as 2s or 500ms. Needs the extra video."),
    option("--image-column", metavar="NAME", help="Parquet: the column of the images. Default: image."),
)
run_options = options(
    option("--resume", is_flag=True, help="Continue a run that ended early: known answers are not computed again."),
    option("--journal", metavar="FILE", help="The run's journal. Default: in the cache folder."),
    option("--shard", metavar="I/N", help="Only the I-th of N parts of the images, 1 <= I <= N."),
    option("--dedupe", is_flag=True, help="Leave out images with the same content as an earlier one."),
)
export_options = options(
    option(
        "--labels", metavar="NAME,NAME...", help="Labels of a data set; other boxes are left out. @FILE: one a line."
    ),
    option("--plain-labels", is_flag=True, help='Labels without articles, in lower case: "a Dog" -> "dog".'),
    option(
        "--export-pictures",
        type=click.Choice(["copy", "symlink", "none"]),
        help="How images get into the folder of a data set. Default: copy.",
    ),
    option("--image-prefix", default="", metavar="TEXT", help="label-studio: text before the path of each image."),
)
folder_options = options(sidecar_options, wording_options, run_options, export_options, input_options)

_FLAGS = ("keywords", "skip", "append", "whole_sentences", "capital", "full_stop", "resume", "dedupe", "plain_labels")
_TEXTS = ("prefix", "suffix", "trigger")
_CHOICES = (
    "sidecar",
    "sidecar_names",
    "journal",
    "shard",
    "labels",
    "export_pictures",
    "image_prefix",
    "every",
    "image_column",
)
_OF_EXPORTS = ("labels", "plain_labels", "export_pictures", "image_prefix")
_OF_SIDECARS = ("sidecar_names", "keywords", "skip", "append")


@dataclass(slots=True)
class Settings:
    """The options of this module."""

    sidecars: Sidecars | None
    wording: Wording
    resume: bool
    journal: str | None  # None: that in the cache folder
    shard: tuple[int, int] | None
    dedupe: bool
    labels: Labels
    pictures: str  # how they get into the folder of a data set
    image_prefix: str
    exports: bool
    every: float | None  # seconds between the images of a video
    column: str  # of the images in Parquet files

    @property
    def keeps(self) -> bool:
        """Whether the journal is a file: a run that only words answers needs none."""
        return self.sidecars is not None or self.resume or self.journal is not None or self.exports


def take_settings(given: tuple[str, ...], rest: dict[str, Any]) -> Settings | None:
    """Moves the options of this module out of `rest`; None if none of them is used, and no given file needs them."""
    from kosmos_edge.annotations import Labels
    from kosmos_edge.cli.output import SUFFIX_FORMATS, choose_format
    from kosmos_edge.folders import Sidecars, Wording
    from kosmos_edge.folders.running import parse_shard
    from kosmos_edge.folders.video import parse_interval

    values = {name: rest.pop(name, None) for name in (*_FLAGS, *_TEXTS, *_CHOICES)}
    sidecar = values["sidecar"]
    if sidecar is None:
        for name in [name for name in _OF_SIDECARS if values[name]]:
            _ignore(name, values, f"--{name.replace('_', '-')}: needs --sidecar")
    if values["keywords"] and sidecar != "xmp":
        _ignore("keywords", values, "--keywords: goes with --sidecar xmp")
    rest["form"] = choose_format(rest["form"], rest["output"], {**SUFFIX_FORMATS, **SUFFIXES})
    exports = rest["form"] in EXPORT_FORMATS
    for name in [name for name in _OF_EXPORTS if values[name] and not exports]:
        _ignore(name, values, f"--{name.replace('_', '-')}: goes with --format {', '.join(EXPORT_FORMATS)}")
    if not any(values.values()) and not exports and not any(is_container(name, None) for name in given):
        return None
    policies = [name for name, given in (("skip", values["skip"]), ("append", values["append"])) if given]
    if sidecar is not None and rest["overwrite"]:
        policies.append("overwrite")
    for name in [name for name in policies if len(policies) > 1 and from_environment(name)]:
        policies.remove(name)
        set_aside(name)
    if len(policies) > 1:
        raise click.UsageError("--skip, --overwrite and --append exclude each other")
    wording = Wording(*(values[name] for name in ("whole_sentences", "capital", "full_stop", *_TEXTS)))
    sidecars = None
    if sidecar is not None:
        policy = policies[0] if policies else "refuse"
        sidecars = Sidecars(sidecar, policy, values["sidecar_names"], bool(values["keywords"]), wording)
    shard = None if values["shard"] is None else parse_shard(values["shard"])
    labels = Labels(_names(values["labels"]), plain=bool(values["plain_labels"]))
    if values["journal"] == "-":
        raise click.UsageError("--journal: expected the name of a file, got - (./- is a file)")
    run = bool(values["resume"]), values["journal"], shard, bool(values["dedupe"])
    pictures, prefix = values["export_pictures"] or "copy", values["image_prefix"] or ""
    every = None if values["every"] is None else parse_interval(values["every"])
    column = values["image_column"] or "image"
    return Settings(sidecars, wording, *run, labels, pictures, prefix, exports, every, column)


def is_container(name: str, every: float | None) -> bool:
    """Whether a file holds several images: a tar file, a table, or, with --every, a video."""
    from kosmos_edge.folders import tables, tars, video

    lower = name.lower()
    if lower.endswith((*tars.SUFFIXES, *tables.SUFFIXES)):
        return True
    return every is not None and lower.endswith(tuple(video.SUFFIXES))


def _names(text: str | None) -> list[str] | None:
    """The labels of --labels; None without it."""
    if text is None:
        return None
    if not text.startswith("@"):
        return [name.strip() for name in text.split(",")]
    try:
        with open(text[1:], encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--labels: {plain_error(error)}") from None


def _ignore(name: str, values: dict[str, Any], text: str) -> None:
    """UsageError, unless the option comes from the environment."""
    if not from_environment(name):
        raise click.UsageError(text)
    set_aside(name)
    values[name] = None
