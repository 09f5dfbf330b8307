"""Few-shot examples from a file: --shots, and which of them stand before each image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from kosmos_edge._native import _core
from kosmos_edge.cli.common import Corners, Parts, option, options
from kosmos_edge.cli.twins import ParamType
from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError

if TYPE_CHECKING:
    from kosmos_edge.cli.inputs import Input
    from kosmos_edge.cli.output import Answer
    from kosmos_edge.images import Opening
    from kosmos_edge.inference.shots import ExamplePool
    from kosmos_edge.model import EncodedImage, Model

F = TypeVar("F", bound=Callable[..., Any])
# command -> what its examples have besides the image
FIELDS = {
    "caption": ("text",),
    "describe": ("box", "text"),
    "ask": ("question", "answer"),
    "classify": ("label",),
    "reason": ("question", "rationale", "answer"),
}
DEFAULT_COUNT = 4
pool_options = options(
    option("--shots", metavar="FILE", help="Pick few-shot examples from FILE, a line of JSON for each."),
    option(
        "--shot-count",
        type=click.IntRange(0, _core.limits.MAX_EXAMPLES),
        default=DEFAULT_COUNT,
        show_default=True,
        metavar="K",
        help="How many of --shots stand before each image.",
    ),
    option(
        "--pick",
        type=click.Choice(["random", "nearest"]),
        default="random",
        show_default=True,
        help="Which of --shots: drawn for each image, or those whose images are most like it.",
    ),
    option("--shot-seed", type=int, default=0, show_default=True, metavar="N", help="Seed of --pick random."),
)


class BoxShot(Parts):
    """IMAGE::X1,Y1,X2,Y2::TEXT."""

    def __init__(self) -> None:
        super().__init__(3)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """(image, box, text)."""
        image, box, text = super().convert(value, param, ctx)
        return image, Corners().convert(box, param, ctx), text


def shot_option(command: str, kind: ParamType, metavar: str) -> Callable[[F], F]:
    """--shot of a command, with a variable of its own: the parts mean something else than those of other commands."""
    return option(
        "--shot",
        multiple=True,
        type=kind,
        prefix=f"{command.upper()}_",
        metavar=metavar,
        help="Few-shot example before the request. Can be repeated.",
    )


@dataclass(frozen=True, slots=True)
class Picking:
    """What --shots and its companions say."""

    path: str
    count: int
    nearest: bool
    seed: int

    def pool(self, model: Model, task: str, opening: Opening) -> ExamplePool:
        """The file's examples; their images are opened as `opening` says, when they are needed."""
        from kosmos_edge.cli.inputs import Input
        from kosmos_edge.inference.shots import ExamplePool

        return ExamplePool(lambda path: model.encode(opening.open(Input(path, path).source())), self.rows(task))

    def examples(self, pool: ExamplePool, image: EncodedImage, item: Input) -> list[tuple[Any, ...]]:
        """Those that stand before this image."""
        if self.nearest:
            return pool.nearest(image, self.count, without=item.path)
        return pool.draw(self.count, seed=self.seed, item=item.name, without=item.path)

    def rows(self, task: str) -> list[tuple[Any, ...]]:
        """(image's path or URL, ...) of each line; paths are relative to the file's folder."""
        from kosmos_edge.files import url_problem

        names = ("image", *FIELDS[task])
        folder, out = os.path.dirname(self.path), []
        with open(self.path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InvalidRequest(f"{self.path}:{number}: expected a line of JSON: {error}") from None
                if not isinstance(row, dict) or not all(name in row for name in names):
                    raise InvalidRequest(
                        f"{self.path}:{number}: expected an object with {', '.join(names)}, got {line.strip()[:100]}"
                    )
                if not isinstance(row["image"], str):
                    raise InvalidRequest(f"{self.path}:{number}: image: expected a path, got {row['image']!r}")
                image = row["image"] if url_problem(row["image"]) else os.path.join(folder, row["image"])
                out.append((image, *(row[name] for name in names[1:])))
        return out


def take_picking(values: dict[str, Any]) -> Picking | None:
    """Moves the options out of `values`; None without --shots."""
    path = values.pop("shots", None)
    count, pick, seed = (values.pop(name, None) for name in ("shot_count", "pick", "shot_seed"))
    if path is not None:
        return Picking(path, count, pick == "nearest", seed)
    context = click.get_current_context()
    for name in ("shot_count", "pick", "shot_seed"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is about the examples of --shots, which is not given")
    return None


def answer_each(
    model: Model,
    sources: Iterable[Any],
    inputs: Iterable[Input],
    task: str,
    arguments: Mapping[str, Any],
    opening: Opening,
    picking: Picking | None,
) -> Generator[Answer, None, None]:
    """One answer after another, for verbs that have no batches, and where each image has examples of its own.

    An image that cannot be used gives a failed answer; arguments that are wrong end the run.
    """
    from kosmos_edge.images import Opening
    from kosmos_edge.inference.batching import failed_answer

    given = list(arguments.get("examples", ()))
    plain = Opening(max_pixels=opening.max_pixels, allow_truncated=opening.allow_truncated)
    pool = None if picking is None else picking.pool(model, task, plain)
    form = "score" if arguments.get("by") == "likelihood" else task
    for item, source in zip(inputs, sources, strict=True):
        try:
            image = model.encode(opening.open(source))
            values = dict(arguments)
            if picking is not None and pool is not None:
                values["examples"] = [*given, *picking.examples(pool, image, item)]
            answer = getattr(model, task)(image, **values)
        except (Cancelled, InvalidRequest):
            raise
        except KosmosError as error:
            answer = failed_answer(model, form, item.name, error)
        yield answer
