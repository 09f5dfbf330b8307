"""Shared by the commands: options, messages on stderr, loading the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from kosmos_edge._native import _core
from kosmos_edge.cli.twins import ParamType, from_environment, set_aside, take_set_aside
from kosmos_edge.cli.twins import option as option

if TYPE_CHECKING:
    from kosmos_edge.images import Opening
    from kosmos_edge.model import Model

F = TypeVar("F", bound=Callable[..., Any])
URLS = "kosmos_edge.urls"  # in the root context's meta: whether --allow-urls is given
FORMATS = ("text", "json", "jsonl", "csv")
EXPORT_FORMATS = (
    "coco",
    "label-studio",
    "yolo",
    "voc",
    "fiftyone",
    "imagefolder",
    "webdataset",
    "parquet",
)  # of batch
DOCUMENT_FORMATS = ("txt", "json", "markdown", "hocr", "alto", "tsv", "pdf")  # of read


class Corners(ParamType):
    """The four numbers of a box."""

    name = "box"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2) of "x1,y1,x2,y2"."""
        if isinstance(value, tuple):
            return value
        try:
            x1, y1, x2, y2 = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"expected four numbers x1,y1,x2,y2, got {value!r}", param, ctx)
        return x1, y1, x2, y2


def check_unit(box: tuple[float, float, float, float], normalized: bool | None) -> None:
    """UsageError if a box in pixels looks like fractions."""
    from kosmos_edge.inference.prompts import is_ambiguous, which_unit

    if not normalized and is_ambiguous(box):
        raise click.UsageError(which_unit("--box", box))


class Parts(ParamType):
    """`count` texts joined by "::"."""

    name = "parts"

    def __init__(self, count: int) -> None:
        self.count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The texts."""
        fields = value if isinstance(value, tuple) else tuple(value.split("::"))
        if len(fields) != self.count or not all(field.strip() for field in fields):
            self.fail(f"expected {self.count} parts joined by ::, got {value!r}", param, ctx)
        return fields


class Level(ParamType):
    """How often -v is given; 1 or yes in the environment is once."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        return int(value) if str(value).isdecimal() else int(bool(click.BOOL.convert(value, param, ctx)))


def _allow_urls(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.find_root().meta[URLS] = value
    return value


def no_file(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The value of -o; - is stdout, as without the option."""
    return None if value == "-" else value


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, in the order in which --help shows them."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


message_options = options(
    option("-q", "--quiet", is_flag=True, help="Print only errors to stderr."),
    option("-v", "--verbose", count=True, type=Level(), help="Print timings to stderr; -vv: and logs."),
)

kv_type_option = option(
    "--kv-type",
    type=click.Choice(["f16", "q8_0"]),
    default="f16",
    show_default=True,
    help="How keys and values are kept: q8_0 takes half the memory in long answers.",
)
model_options = options(
    option("-m", "--model", metavar="TAG|FILE", help="Model: a tag, a GGUF file, or user/repo:TAG."),
    option("--mmproj", metavar="FILE", help="Vision encoder, if the model is a llama.cpp pair of files."),
    option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ..."),
    option("-t", "--threads", type=int, metavar="N", help="Threads. Default: all that this process may use."),
    kv_type_option,
    option("--copy", is_flag=True, help="Read the model file into memory instead of mapping it."),
    option("--offline", is_flag=True, help="Do not use the network."),
    option(
        "--isolation",
        type=click.Choice(["none", "process"]),
        default="none",
        show_default=True,
        help="process: run the model in a worker process.",
    ),
    message_options,
)

max_tokens_option = option(
    "-n", "--max-tokens", type=int, metavar="N", help="Maximum length of the answer. Default: the model's."
)
generation_options = options(
    max_tokens_option,
    option("--temperature", "--temp", "temperature", type=float, help="Sampling temperature. Default: 0, greedy."),
    option(
        "--top-k", type=int, help="Sample among the K most likely tokens. Needs a temperature, or one of the next two."
    ),
    option(
        "--degeneration-penalty",
        type=float,
        metavar="A",
        help="Contrastive search among --top-k tokens (default 5): 0 (off) .. 1.",
    ),
    option("--image-weight", type=float, metavar="B", help="Prefer tokens that fit the image: 0 (off) .. 100."),
    option(
        "--guide",
        metavar="self|TAG|FILE",
        help="What --image-weight goes by: the model itself (self, the default), or a model such as CLIP.",
    ),
    option("--top-p", type=float, help="Sample within this probability mass. Needs a temperature."),
    option("--seed", type=int, help="Random seed for sampling."),
    option("--num-beams", type=int, help="Number of beams for beam search, up to 8."),
    option("--length-penalty", type=float, help="Length penalty for beam search."),
    option(
        "--repetition-penalty",
        type=float,
        metavar="P",
        help="Above 1: make tokens less likely that were there. 1: off. Default: the model's.",
    ),
    option(
        "--no-repeat-ngram-size",
        type=int,
        metavar="N",
        help="Never repeat a sequence of N tokens. 0: off. Default: the model's.",
    ),
    option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text. Can be repeated."),
    option("--logprobs", is_flag=True, default=None, help="Include the ln p of every token in JSON."),
    option("--top-logprobs", type=int, metavar="N", help="Include up to 20 likeliest tokens per place in JSON."),
    option("--grammar/--no-grammar", default=None, help="Keep location tokens well formed."),
    option("--min-score", type=float, metavar="P", help="Leave out boxes with a lower score, 0..1. Default: 0."),
)


def output_options_with(form: str, more: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Options for the results; `form` is the default format, `more` are formats besides FORMATS."""
    choice = click.Choice((*FORMATS, *more))
    return options(
        option(
            "-f",
            "--format",
            "form",
            type=choice,
            elsewhere=click.Choice((*DOCUMENT_FORMATS, *EXPORT_FORMATS)),
            default=form,
            show_default=True,
            help="Output format.",
        ),
        option(
            "-o",
            "--output",
            metavar="FILE",
            callback=no_file,
            help="Write the results to FILE instead of stdout (-); .txt, .json, .jsonl or .csv set the format.",
        ),
        option(
            "--overwrite", is_flag=True, help="Replace existing files, and the FILE.part of a run that ended early."
        ),
    )


output_options = output_options_with("text")
# For commands that print a report; the formats of batches are ignored in the environment.
report_format_option = option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    elsewhere=click.Choice((*FORMATS, *DOCUMENT_FORMATS, *EXPORT_FORMATS)),
    default="text",
    show_default=True,
    help="Output format.",
)
batch_size_option = option(
    "--batch-size",
    type=click.IntRange(1, _core.limits.MAX_BATCH),
    default=_core.limits.DEFAULT_BATCH,
    show_default=True,
    metavar="N",
    help="Images per batch; does not change the answers.",
)

_recursive_option = option("-r", "--recursive", is_flag=True, help="Search subfolders, too, but follow no links.")
_exif_option = option(
    "--exif/--no-exif", default=True, show_default=True, help="Rotate images by their EXIF orientation."
)
_damage_options = options(
    option(
        "--max-pixels",
        type=click.IntRange(1, _core.limits.MAX_IMAGE_PIXELS),
        metavar="N",
        help=f"Refuse images over N pixels, at most {_core.limits.MAX_IMAGE_PIXELS}. Default: about 89 million.",
    ),
    option("--allow-truncated", is_flag=True, help="Use the available part of truncated files."),
)
_urls_option = option(
    "--allow-urls",
    is_flag=True,
    callback=_allow_urls,
    help="Fetch http and https URLs, of public addresses only.",
)
_fail_fast_option = option("--fail-fast", is_flag=True, help="Stop at the first image that fails.")
opening_options = options(
    _exif_option,
    option("--frame", type=int, metavar="N", help="Frame or page of the image file. Default: 0, the first."),
    _damage_options,
    _urls_option,
)
decoding_options = options(_exif_option, _damage_options)  # where images are files alone, with one frame
picture_options = options(_recursive_option, opening_options, _fail_fast_option)
gathering_options = options(_recursive_option, _damage_options)  # of what keeps images by their paths, upright
# Of files that may have pages, which have an option of their own instead of --frame.
document_options = options(_recursive_option, _exif_option, _damage_options, _urls_option, _fail_fast_option)

GENERATION_NAMES = (
    "max_tokens",
    "temperature",
    "top_k",
    "degeneration_penalty",
    "image_weight",
    "guide",
    "top_p",
    "seed",
    "num_beams",
    "length_penalty",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "stop",
    "logprobs",
    "top_logprobs",
    "grammar",
    "min_score",
)


def take_generation(values: dict[str, Any]) -> dict[str, Any]:
    """Moves the given generation options out of `values`.

    Those from the environment that the other options make useless are ignored.
    """
    taken = {name: values.pop(name) for name in GENERATION_NAMES}
    given = {name: value for name, value in taken.items() if value is not None and value != ()}
    context = click.get_current_context(silent=True)
    parameters = {} if context is None else context.params

    def drop(name: str) -> None:
        if name in given and from_environment(name):
            del given[name]
            set_aside(name)

    def sampled() -> bool:
        return bool(given.get("temperature"))

    def has_beams() -> bool:
        return int(given.get("num_beams", 1)) > 1

    def contrasts() -> bool:
        return bool(given.get("degeneration_penalty")) or bool(given.get("image_weight"))

    if sampled() or has_beams() or parameters.get("choice") or parameters.get("choices"):
        drop("degeneration_penalty")  # candidates are compared without any of these
        drop("image_weight")
    if contrasts():
        drop("temperature")
        drop("num_beams")
    for name in ("temperature", "stop"):  # contradict beams; the command line takes precedence
        if name in given and has_beams() and (sampled() or name == "stop"):
            if from_environment(name) and not from_environment("num_beams"):
                drop(name)
            elif not from_environment(name):
                drop("num_beams")
    if not sampled():
        if not contrasts():
            drop("top_k")
        drop("top_p")
    if not given.get("image_weight"):
        drop("guide")
    if not has_beams():
        drop("length_penalty")
    if parameters.get("choice") or parameters.get("choices"):  # a choice is its own end and has no boxes
        for name in ("max_tokens", "stop", "grammar"):
            drop(name)
    if given.get("guide", "self") != "self":
        from kosmos_edge.loading import load

        given["guide"] = load(given["guide"])
    return given


def settle_choices(ground: bool | None, choices: tuple[str, ...], names: tuple[str, str]) -> tuple[bool | None, Any]:
    """Choices contradict boxes and --grammar: the one that only the environment sets is ignored.

    names: of the two parameters. -> (ground, choices)
    """
    context = click.get_current_context(silent=True)
    if context is None or not choices:
        return ground, choices
    typed = context.params.get("grammar") and not from_environment("grammar")
    if from_environment(names[1]) and (typed or (ground and not from_environment(names[0]))):
        set_aside(names[1])
        context.params[names[1]] = choices = ()  # for take_generation, too
    elif ground and from_environment(names[0]):
        set_aside(names[0])
        ground = None
    return ground, choices


def take_opening(values: dict[str, Any]) -> Opening:
    """Moves the options for opening images out of `values`; --allow-urls is in the context's meta (inputs.py)."""
    from kosmos_edge.images import Opening

    values.pop("allow_urls", None)

    names = ("exif", "frame", "max_pixels", "allow_truncated")
    return Opening(**{name: values.pop(name) for name in names if name in values})


def _one_line(text: str) -> str:
    """Line feeds, as in names of files, become blanks."""
    return " ".join(text.split("\n"))


@dataclass(slots=True)
class Messages:
    """Messages on stderr, by --quiet and --verbose."""

    quiet: bool
    verbose: int  # 2: logs, too
    _said: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        """Prints a message in one line, unless --quiet."""
        if not self.quiet:
            click.echo(f"kosmos-edge: {_one_line(text)}", err=True)

    def notes(self, name: str, notes: Iterable[str]) -> None:
        """Prints an answer's notes: those about the request once; missing boxes or text and truncated files always;
        others only with --verbose."""
        from kosmos_edge.inference.trained import UNTRAINED

        for note in notes:
            if note.startswith("'<") or UNTRAINED in note:
                if note not in self._said:
                    self._said.add(note)
                    self.say(note)
            elif (
                note.startswith(("the model gave no box", "no text that", "the file ends early"))
                or " no usable box" in note
            ):
                self.say(f"{name}: {note}")
            else:
                self.detail(f"{name}: {note}")

    def detail(self, text: str) -> None:
        """Prints a message in one line with --verbose."""
        if self.verbose and not self.quiet:
            click.echo(f"kosmos-edge: {_one_line(text)}", err=True)

    def error(self, name: str, text: str) -> None:
        """Prints an error, always in one line."""
        name, text = _one_line(name), _one_line(text)
        click.echo(f"{name}: {text}" if not text.startswith(name) else text, err=True)


def take_messages(values: dict[str, Any]) -> Messages:
    """Moves --quiet and --verbose out of `values`."""
    messages = Messages(values.pop("quiet"), values.pop("verbose"))
    if messages.verbose > 1 and not messages.quiet:
        _show_logs(click.get_current_context())
    return messages


def _show_logs(ctx: click.Context) -> None:
    """Logs of this package and the hub's on stderr, until the command ends."""
    import logging

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(self.format(record), err=True)

    handler = Echo()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    for name in ("kosmos_edge", "huggingface_hub"):
        logger = logging.getLogger(name)
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        ctx.call_on_close(partial(logger.removeHandler, handler))
        ctx.call_on_close(partial(logger.setLevel, before))


def take_model(
    values: dict[str, Any], messages: Messages, *, reads: bool = False, shared_weights: bool = False
) -> Model:
    """Moves the model options out of `values` and loads the model; by default one that reads pages, if `reads`."""
    from kosmos_edge.loading import load

    for ignored in take_set_aside():
        messages.detail(f"ignored {ignored}")
    spec, device, threads = values.pop("model"), values.pop("device"), values.pop("threads")
    copy, offline, isolation = values.pop("copy"), values.pop("offline"), values.pop("isolation")
    mmproj, kv_type = values.pop("mmproj"), values.pop("kv_type")
    start = time.perf_counter()
    if spec is None and mmproj is None:
        from kosmos_edge import hub

        spec, why = hub.default_reader() if reads else hub.default_model()
        messages.detail(f"model {spec}: {why}")
    mode: Literal["mmap", "copy"] = "copy" if copy else "mmap"
    model = load(
        spec,
        device=device,
        threads=threads,
        mode=mode,
        offline=offline,
        isolation=isolation,
        mmproj=mmproj,
        kv_type=kv_type,
        shared_weights=shared_weights,
    )
    elapsed_ms = (time.perf_counter() - start) * 1000
    messages.detail(f"{model.name} from {model.path} on {model.description}, loaded in {elapsed_ms:.0f} ms")
    messages.detail(f"keys and values: {model.kv_type}, {model.kv_bytes_per_token} bytes for each token")
    if shared_weights:
        how = model.shared_weights
        messages.detail(f"weights: {how['shared_bytes']} bytes shared, {how['private_bytes']} of its own")
        if how["note"]:
            messages.say(f"shared weights: {how['note']}")
    if model.fallback:
        messages.say(f"runs on the {model.device}: {model.fallback}")
    if model.notice:
        messages.say(model.notice)
    return model
