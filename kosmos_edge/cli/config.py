"""The config file: defaults of options, in TOML. A value in it means what the option's variable would mean (twins.py).

    model = "kosmos-2:q8_0"      # of all commands that have the option
    [caption]                    # of one command; [models.pull] of one of its subcommands
    length = "long"

Keys are the long names of the options, without dashes in front. Command line and environment take precedence. A key
that no option has is an error, so that a spelling mistake is found.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from kosmos_edge.errors import InvalidRequest, KosmosIOError

VARIABLE = "KOSMOS_EDGE_CONFIG"  # another file, or "none"
_META = "kosmos_edge.config"  # in the root context's meta


@dataclass(slots=True)
class Config:
    """What a config file says."""

    path: Path | None  # None: none is looked for
    exists: bool = False
    data: dict[str, Any] = field(default_factory=dict)  # as in the file, keys with dashes

    def settings(self) -> Iterator[tuple[str, Any]]:
        """(key, value), the keys of tables with their table: ("caption.length", "long")."""
        yield from _flat(self.data, "")


def _flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def config_path() -> Path | None:
    """KOSMOS_EDGE_CONFIG, else config.toml in the platform's folder for settings; None: there is no such folder."""
    given = os.environ.get(VARIABLE)
    if given:
        return None if given == "none" else Path(given)
    path = Path(click.get_app_dir("kosmos-edge")) / "config.toml"
    return path if path.is_absolute() else None  # a user without a home folder


def read_config() -> Config:
    """The file as it is now; it need not exist, except where the variable names it. InvalidRequest, KosmosIOError."""
    path = config_path()
    if path is None:
        return Config(None)
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(VARIABLE):
            raise InvalidRequest(f"{path}: no such file, which {VARIABLE} names") from None
        return Config(path)
    except OSError as error:
        raise KosmosIOError(error.errno or 0, error.strerror or str(error), str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: not valid TOML: {error}") from None
    return Config(path, True, _dashed(data, path))


def _dashed(table: dict[str, Any], path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name in out:
            raise InvalidRequest(f"{path}: {name} is there twice")
        out[name] = _dashed(value, path) if isinstance(value, dict) else value
    return out


def config_of(ctx: click.Context) -> Config:
    """The config of the running command line, read once. `doctor`, which reports on it, works with a broken one."""
    meta = ctx.find_root().meta
    if _META not in meta:
        try:
            meta[_META] = read_config()
        except (InvalidRequest, KosmosIOError):
            if "doctor" not in (ctx.info_name, ctx.invoked_subcommand):
                raise
            meta[_META] = Config(None)
    config = meta[_META]
    assert isinstance(config, Config)
    return config


def look_up(ctx: click.Context, option: click.Option, *, shared: bool) -> tuple[str, Any] | None:
    """(what has set it, its value) for an option that the file sets; the command's table before the file's top.

    shared: whether the option means in this command what it means in others. The value is a str, or a list of them.
    """
    config = config_of(ctx)
    if not config.data:
        return None
    tables: list[tuple[str, dict[str, Any]]] = []
    table: Any = config.data
    words = _words(ctx)
    for number, word in enumerate(words):
        table = table.get(word) if isinstance(table, dict) else None
        if isinstance(table, dict) and number == len(words) - 1:
            tables.append((".".join(words) + ".", table))
    if shared:
        tables.append(("", config.data))
    for prefix, values in tables:
        for name in _names(option):
            if name in values and not isinstance(values[name], dict):
                where = f"{prefix}{name} in {config.path}"
                return where, _as_typed(option, values[name], where)
    return None


def _words(ctx: click.Context) -> list[str]:
    """The command and its subcommand, without the program."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, str(ctx.info_name))
        ctx = ctx.parent
    return words


def _names(option: click.Option) -> list[str]:
    return [name.removeprefix("--") for name in option.opts if name.startswith("--")]


def _as_typed(option: click.Option, value: Any, where: str) -> Any:
    """The value as a variable would have it. InvalidRequest for a wrong type."""
    if option.multiple:
        values = value if isinstance(value, list) else [value]
        return [_scalar(item, "a text, a number or a list of them", where) for item in values]
    if option.is_flag:
        if not isinstance(value, bool):
            raise InvalidRequest(f"{where}: expected true or false, got {value!r}")
        return str(value).lower()
    if option.count and isinstance(value, bool):
        return str(int(value))
    return _scalar(value, "a text or a number", where)


def _scalar(value: Any, expected: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidRequest(f"{where}: expected {expected}, got {value!r}")
    return str(value)


# ---- unknown keys


def check_config(ctx: click.Context, group: click.Group, command: click.Command | None) -> None:
    """InvalidRequest for a key that is no option, or a table that is no command. command: the one that is run."""
    config = config_of(ctx)
    shared = set(_settable(command, shared=True)) if command is not None else set()
    for key, value in config.data.items():
        if isinstance(value, dict):
            _check_table(group, value, key, config.path, ctx)
        elif key not in shared:
            shared |= set(_all_shared(group, ctx))  # imports every command: only for options of others
            if key not in shared:
                raise _unknown(config.path, key, "an option", shared)


def _check_table(group: click.Group, table: dict[str, Any], name: str, path: Path | None, ctx: click.Context) -> None:
    word = name.rpartition(".")[2]
    command = group.get_command(ctx, word)
    if command is None:
        raise _unknown(path, f"[{name}]", "a command", group.list_commands(ctx))
    known = set(_settable(command, shared=False))
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(command, click.Group):
            _check_table(command, value, f"{name}.{key}", path, ctx)
        elif key not in known or isinstance(value, dict):
            raise _unknown(path, f"{name}.{key}", f"an option of {name.replace('.', ' ')}", known)


def _settable(command: click.Command, *, shared: bool) -> Iterator[str]:
    for option in command.params:
        means: bool | None = getattr(option, "shared", None)  # of a TwinOption, whose module is above this one
        if isinstance(option, click.Option) and means is not None and (means or not shared):
            yield from _names(option)


def _all_shared(group: click.Group, ctx: click.Context) -> Iterator[str]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None:
            yield from _settable(command, shared=True)
        if isinstance(command, click.Group):
            yield from _all_shared(command, ctx)


def _unknown(path: Path | None, key: str, what: str, known: Any) -> InvalidRequest:
    near = difflib.get_close_matches(key.strip("[]").rpartition(".")[2], sorted(known), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return InvalidRequest(f"{path}: {key} is not {what}{hint}")
