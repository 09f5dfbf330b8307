"""kosmos-edge doctor: reports what runs on this machine, and why."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

import click

from kosmos_edge.cli.common import message_options, report_format_option, take_messages
from kosmos_edge.machine import cpu_name


def devices() -> list[dict[str, Any]]:
    """Every device that this build supports: name, available, why."""
    from kosmos_edge._native import _core

    out = []
    for name, missing in _core.devices():
        why = missing or (f"instruction set {_core.isa()}" if name == "cpu" else "")
        out.append({"name": name, "available": not missing, "why": why})
    return out


def _machine() -> dict[str, Any]:
    from kosmos_edge._native import _core

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    why = f"{os.cpu_count()} CPUs, {allowed} for this process, container quota {_quota() or 'none'}"
    return {
        "system": platform.platform(),
        "cpu": cpu_name(),
        "isa": _core.isa(),
        "isas": _core.available_isas(),
        "isa_forced": os.environ.get("KOSMOS_EDGE_ISA") or None,
        "one_row": _one_row(),
        "threads": _core.default_threads(),
        "threads_why": why + (f", OMP_NUM_THREADS={asked}" if asked else ""),
        "devices": devices(),
    }


def _one_row() -> list[str] | str:
    """Which instruction set multiplies one row, as in decoding: measured anew, some tenths of a second."""
    from kosmos_edge._native import _core

    choices = _core.probe_one_row()
    if not choices:
        return f"{_core.isa()}: there is no other to choose from"
    return [
        f"{choice['types']} {choice['chosen'] or 'undecided'} ("
        + ", ".join(f"{name} {rate / 1e9:.1f} GB/s" for name, rate in choice["bytes_per_s"].items())
        + ")"
        for choice in choices
    ]


def _quota() -> str | None:
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            limit, period = file.read().split()
        return None if limit == "max" else f"{int(limit) / int(period):g} CPUs"
    except (OSError, ValueError):
        return None


def _software() -> dict[str, Any]:
    import PIL

    from kosmos_edge import __version__
    from kosmos_edge.images import allowed_formats

    formats = list(allowed_formats())
    return {
        "kosmos_edge": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "pillow": PIL.__version__,
        "formats": formats,
        "heif": "HEIF" in formats,
    }


def _config() -> dict[str, Any]:
    from kosmos_edge.cli.config import check_config, config_path, read_config

    ctx = click.get_current_context()
    group = ctx.find_root().command
    out: dict[str, Any] = {"path": None if (path := config_path()) is None else str(path)}
    config = read_config()
    if isinstance(group, click.Group):
        check_config(ctx, group, None)
    settings = [f"{key} = {value!r}" for key, value in config.settings()]
    return out | {"exists": config.exists, "sets": settings}


def _models() -> dict[str, Any]:
    from kosmos_edge import hub
    from kosmos_edge._native import _core
    from kosmos_edge.bench.cost import Cost
    from kosmos_edge.loading import KV_TYPES, find_model

    default, why = hub.default_model()
    out: dict[str, Any] = {
        "cache": hub.cache_trouble() or str(hub.cache_dir()),
        "found": [{"tag": m.tag, "bytes": m.bytes, "path": str(m.path)} for m in hub.list_models()],
        "default": str(default),
        "default_why": why,
    }
    path = find_model(str(default), offline=True)
    metadata = _core.GgufFile(str(path)).metadata()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return out | {
        "default_path": str(path),
        "default_name": metadata.get("general.name"),
        "default_bytes": path.stat().st_size,
        "default_sha256": digest,
        "default_kv_bytes_per_token": {
            kv_type: round(Cost.of(str(path), kv_type).token_bytes()) for kv_type in KV_TYPES
        },
    }


@click.command()
@report_format_option
@message_options
def doctor(form: str, **rest: Any) -> int:
    """Report version, instruction sets, threads, devices, models and image formats, with reasons.

    If a part cannot be determined, the report says so, and the exit status is 1.
    """
    from kosmos_edge.cli.output import to_json

    take_messages(rest)
    parts: dict[str, Callable[[], dict[str, Any]]] = {"software": _software, "machine": _machine, "config": _config}
    parts["models"] = _models
    report: dict[str, Any] = {}
    failed = False
    for name, part in parts.items():
        try:
            report[name] = part()
        except Exception as error:  # report it: the command must work when something is broken
            report[name] = {"error": f"{type(error).__name__}: {error}"}
            failed = True
    if form == "json":
        click.echo(to_json(report, 2))
    else:
        for name, values in report.items():
            click.echo(f"{name}:")
            for key, value in values.items():
                click.echo(f"  {key}: {_plain(value)}")
    return 1 if failed else 0


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_plain(item) for item in value) if value else "none"
    if isinstance(value, dict):
        return ", ".join(_plain(item) for item in value.values())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
