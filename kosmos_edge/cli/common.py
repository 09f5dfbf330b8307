"""What the commands share: options, messages on stderr, loading the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from kosmos_edge._native import _core
from kosmos_edge.cli.twins import ParamType, from_environment, set_aside, take_set_aside
from kosmos_edge.cli.twins import option as option

if TYPE_CHECKING:
    from kosmos_edge.images import Opening
    from kosmos_edge.model import Model

F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("text", "json", "jsonl", "csv")


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
    """UsageError where pixels must be meant as fractions."""
    from kosmos_edge.inference.prompts import is_ambiguous, which_unit

    if not normalized and is_ambiguous(box):
        raise click.UsageError(which_unit("--box", box))


class Parts(ParamType):
    """Texts joined by "::", so many of them."""

    name = "parts"

    def __init__(self, count: int) -> None:
        self.count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The texts."""
        fields = value if isinstance(value, tuple) else tuple(value.split("::"))
        if len(fields) != self.count or not all(field.strip() for field in fields):
            self.fail(f"expected {self.count} parts joined by ::, got {value!r}", param, ctx)
        return fields


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, in the order in which --help shows them."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


message_options = options(
    option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors."),
    option("-v", "--verbose", is_flag=True, help="Say on stderr what runs and how long it takes."),
)

model_options = options(
    option("-m", "--model", metavar="TAG|FILE", help="Model: a tag, a GGUF file, or user/repo:TAG."),
    option("--device", default="auto", show_default=True, help="auto, cpu, ..."),
    option("-t", "--threads", type=int, metavar="N", help="Threads; as many as this process may use."),
    option("--copy", is_flag=True, help="Read the file into memory instead of mapping it."),
    option("--offline", is_flag=True, help="Open no socket."),
    option("--isolation", type=click.Choice(["none", "process"]), default="none", help="process: a worker of its own."),
    message_options,
)

generation_options = options(
    option("-n", "--max-tokens", type=int, metavar="N", help="Longest answer; the model's default."),
    option("--temperature", "--temp", "temperature", type=float, help="0 is greedy, the default."),
    option("--top-k", type=int, help="Sample among the K likeliest; needs a temperature."),
    option("--top-p", type=float, help="Sample within this probability mass; needs a temperature."),
    option("--seed", type=int, help="Of the sampling."),
    option("--num-beams", type=int, help="Beam search, up to 8."),
    option("--length-penalty", type=float, help="Of the beam search."),
    option("--no-repeat-ngram-size", type=int, metavar="N", help="0 is off; the model's default."),
    option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be given again."),
    option("--logprobs", is_flag=True, default=None, help="The ln p of every token, in JSON."),
    option("--grammar/--no-grammar", default=None, help="Keep location tokens well formed."),
    option("--min-score", type=float, metavar="P", help="Leave out boxes that it is less sure of, 0..1; 0."),
)


def output_options_with(form: str) -> Callable[[F], F]:
    """Where the results go, in this format where none is asked for."""
    choice = click.Choice(FORMATS)
    return options(
        option("-f", "--format", "form", type=choice, default=form, show_default=True, help="Of the results."),
        option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the results there instead of stdout; .txt, .json, .jsonl or .csv choose the format.",
        ),
        option("--overwrite", is_flag=True, help="Replace files that exist, and FILE.part of a run that ended early."),
    )


output_options = output_options_with("text")
# Of a command that reports; batches' formats are left to batches.
report_format_option = option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    elsewhere=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Of stdout.",
)
batch_size_option = option(
    "--batch-size",
    type=click.IntRange(1, _core.limits.MAX_BATCH),
    default=_core.limits.DEFAULT_BATCH,
    show_default=True,
    metavar="N",
    help="Pictures that are answered side by side; the answers do not depend on it.",
)

opening_options = options(
    option("--exif/--no-exif", default=True, help="Turn pictures upright by their EXIF orientation (default)."),
    option("--frame", type=int, metavar="N", help="Which frame or page; the first one, 0."),
    option(
        "--max-pixels",
        type=click.IntRange(1, _core.limits.MAX_IMAGE_PIXELS),
        metavar="N",
        help=f"Refuse pictures of more pixels than N, up to {_core.limits.MAX_IMAGE_PIXELS}; about 89 million.",
    ),
    option("--allow-truncated", is_flag=True, help="Of a file that ends early, take what is there."),
)
picture_options = options(
    option("-r", "--recursive", is_flag=True, help="Take folders with the folders inside, but not behind links."),
    opening_options,
    option("--fail-fast", is_flag=True, help="End at the first picture that fails."),
)

GENERATION_NAMES = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "num_beams",
    "length_penalty",
    "no_repeat_ngram_size",
    "stop",
    "logprobs",
    "grammar",
    "min_score",
)


def take_generation(values: dict[str, Any]) -> dict[str, Any]:
    """Moves the generation options that were given out of `values`.

    Those from the environment that have no use beside the others are set aside.
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

    for name in ("temperature", "stop"):  # contradict beams; what is on the command line goes before
        if name in given and has_beams() and (sampled() or name == "stop"):
            if from_environment(name) and not from_environment("num_beams"):
                drop(name)
            elif not from_environment(name):
                drop("num_beams")
    if not sampled():
        drop("top_k")
        drop("top_p")
    if not has_beams():
        drop("length_penalty")
    if parameters.get("choice") or parameters.get("choices"):  # a choice is its own end and has no boxes
        for name in ("max_tokens", "stop", "grammar"):
            drop(name)
    return given


def settle_choices(ground: bool | None, choices: tuple[str, ...], names: tuple[str, str]) -> tuple[bool | None, Any]:
    """Choices and what contradicts them, boxes and --grammar: what only the environment says gives way.

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
    """Moves the options of opening pictures out of `values`."""
    from kosmos_edge.images import Opening

    return Opening(**{name: values.pop(name) for name in ("exif", "frame", "max_pixels", "allow_truncated")})


@dataclass(slots=True)
class Messages:
    """stderr, as much of it as was asked for."""

    quiet: bool
    verbose: bool
    _said: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        """What a user should know; not with --quiet."""
        if not self.quiet:
            click.echo(f"kosmos-edge: {text}", err=True)

    def notes(self, name: str, notes: Iterable[str]) -> None:
        """An answer's notes: those about the request once, no box or half a picture, others with --verbose."""
        from kosmos_edge.inference.trained import UNTRAINED

        for note in notes:
            if note.startswith("'<") or UNTRAINED in note:
                if note not in self._said:
                    self._said.add(note)
                    self.say(note)
            elif note.startswith(("the model gave no box", "the file ends early")):
                self.say(f"{name}: {note}")
            else:
                self.detail(f"{name}: {note}")

    def detail(self, text: str) -> None:
        """Only with --verbose."""
        if self.verbose and not self.quiet:
            click.echo(f"kosmos-edge: {text}", err=True)

    def error(self, name: str, text: str) -> None:
        """Always, in one line."""
        name, text = (" ".join(part.split("\n")) for part in (name, text))
        click.echo(f"{name}: {text}" if not text.startswith(name) else text, err=True)


def take_messages(values: dict[str, Any]) -> Messages:
    """Moves --quiet and --verbose out of `values`."""
    return Messages(values.pop("quiet"), values.pop("verbose"))


def take_model(values: dict[str, Any], messages: Messages) -> Model:
    """Loads the model that the options in `values` name, and moves them out."""
    from kosmos_edge.model import load

    for variable in take_set_aside():
        messages.detail(f"{variable} in the environment has no use here")
    spec, device, threads = values.pop("model"), values.pop("device"), values.pop("threads")
    copy, offline, isolation = values.pop("copy"), values.pop("offline"), values.pop("isolation")
    start = time.perf_counter()
    if spec is None:
        from kosmos_edge import hub

        spec, why = hub.default_model()
        messages.detail(f"model {spec}: {why}")
    mode: Literal["mmap", "copy"] = "copy" if copy else "mmap"
    model = load(spec, device=device, threads=threads, mode=mode, offline=offline, isolation=isolation)
    elapsed_ms = (time.perf_counter() - start) * 1000
    messages.detail(f"{model.name} from {model.path} on {model.description}, loaded in {elapsed_ms:.0f} ms")
    if model.fallback:
        messages.say(f"runs on the {model.device}: {model.fallback}")
    if model.notice:
        messages.say(model.notice)
    return model
