"""Options that the environment can set, too: KOSMOS_EDGE_MAX_TOKENS=32 means --max-tokens 32.

Every long name of an option has a variable, its twin. An empty value is ignored. A switch takes 1 or 0 (or yes, no,
true, ...): KOSMOS_EDGE_BOXES=0 is --no-boxes, and so is KOSMOS_EDGE_NO_BOXES=1. For a repeatable option each line is
one value, with its spaces; empty lines are skipped.

A key of the config file (config.py) is as good as its variable, but behind it.

A variable is a default for many commands. One that a command cannot use is ignored ("set aside"); the same option on
the command line is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click
from click.core import ParameterSource

from kosmos_edge.cli.config import look_up

if TYPE_CHECKING:
    ParamType: TypeAlias = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not generic in older versions

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_ASIDE = "kosmos_edge.aside"  # in Context.meta: the ignored variables


class TwinOption(click.Option):
    """An option with variables in the environment.

    elsewhere: the type of the option of this name in other commands; a value of that type from the environment is
    ignored here instead of an error. prefix: of the variables' names, if the option means something else than in other
    commands.
    """

    def __init__(
        self, *declarations: Any, elsewhere: ParamType | None = None, prefix: str = "", **settings: Any
    ) -> None:
        super().__init__(*declarations, **settings)
        self.elsewhere = elsewhere
        self._prefix = "KOSMOS_EDGE_" + prefix
        self.shared = not prefix  # whether it means in all commands the same
        self.envvar = next(variable for variable, _ in self.twins())

    def twins(self) -> Iterator[tuple[str, bool]]:
        """(variable, whether it means the opposite) of every long name."""
        for names, opposite in ((self.opts, False), (self.secondary_opts, True)):
            for name in names:
                if name.startswith("--"):
                    yield self._prefix + name.removeprefix("--").replace("-", "_").upper(), opposite

    def _origin(self, ctx: click.Context) -> str:
        """The variable that is set, or the key of the config file."""
        for variable, _ in self.twins():
            if os.environ.get(variable):
                return variable
        found = look_up(ctx, self, shared=self.shared)
        return str(self.envvar) if found is None else found[0]

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value; UsageError if two variables contradict each other."""
        found: dict[str, str] = {}
        for variable, opposite in self.twins():
            value = os.environ.get(variable)
            if value and opposite:
                found[variable] = str(not self._switch(ctx, variable, value)).lower()
            elif value:
                found[variable] = str(self._switch(ctx, variable, value)).lower() if self.secondary_opts else value
        if len(set(found.values())) > 1:
            raise click.UsageError(f"{' and '.join(found)} in the environment contradict each other", ctx)
        return next(iter(found.values()), None)

    def _switch(self, ctx: click.Context, variable: str, value: str) -> bool:
        try:
            return bool(click.BOOL.convert(value, self, ctx))
        except click.BadParameter as error:
            error.param_hint = variable
            raise

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """As on the command line: click would split the values of a repeated option at spaces."""
        value = self.resolve_envvar_value(ctx)
        if value is None and not ctx.resilient_parsing:
            found = look_up(ctx, self, shared=self.shared)
            return None if found is None else found[1]
        if value is None or not self.multiple:
            return value
        return [line for line in value.split("\n") if line] or None

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Checks the value; an error about one from the environment names its variable."""
        if ctx.get_parameter_source(str(self.name)) is not ParameterSource.ENVIRONMENT:
            return super().process_value(ctx, value)
        if self.elsewhere is not None and self.multiple:
            kept = [item for item in value if self._takes(ctx, self.type, item) or not self._is_of_others(ctx, item)]
            if len(kept) < len(value):
                set_aside(self._origin(ctx), ctx)
            value = kept
        elif self.elsewhere is not None and not self._takes(ctx, self.type, value) and self._is_of_others(ctx, value):
            set_aside(self._origin(ctx), ctx)
            ctx.set_parameter_source(str(self.name), ParameterSource.DEFAULT)
            return super().process_value(ctx, self.get_default(ctx))
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as error:
            error.param_hint = self._origin(ctx)
            raise

    def _is_of_others(self, ctx: click.Context, value: Any) -> bool:
        return self.elsewhere is not None and self._takes(ctx, self.elsewhere, value)

    def _takes(self, ctx: click.Context, kind: ParamType, value: Any) -> bool:
        try:
            kind.convert(value, self, ctx)
        except click.BadParameter:
            return False
        return True


def option(*declarations: str, **settings: Any) -> Callable[[F], F]:
    """click.option with variables in the environment, see TwinOption."""
    return click.option(*declarations, cls=TwinOption, **settings)


def from_environment(name: str) -> bool:
    """Whether the running command's parameter got its value from the environment or the config file."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT


def set_aside(name: str, ctx: click.Context | None = None) -> None:
    """Records for --verbose that a variable (or that of the parameter `name`) is ignored."""
    ctx = ctx or click.get_current_context()
    twins = {
        parameter.name: parameter._origin(ctx)
        for parameter in ctx.command.params
        if isinstance(parameter, TwinOption) and parameter.name == name
    }
    ctx.meta.setdefault(_ASIDE, {})[twins.get(name, name)] = None


def unless_default(name: str, value: T, usual: T) -> T:
    """The value of the running command's parameter; `usual`, and it is set aside, where it came from the environment or
    the config file: a default for other uses of the command."""
    if not from_environment(name):
        return value
    set_aside(name)
    return usual


def take_set_aside() -> list[str]:
    """What the running command has ignored since the last call: "VARIABLE from the environment", "key in FILE"."""
    ctx = click.get_current_context(silent=True)
    names = [] if ctx is None else list(ctx.meta.pop(_ASIDE, {}))
    return [f"{name} from the environment" if name.startswith("KOSMOS_EDGE_") else name for name in names]
