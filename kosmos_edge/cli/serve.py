"""kosmos-edge serve: the HTTP server."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge._native import _core
from kosmos_edge.cli.common import Messages, model_options, option, options, take_messages, take_model
from kosmos_edge.cli.streams import Ended
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.machine import keep_large_apart, keep_one_heap
from kosmos_edge.server.settings import DEFAULT_PORT, MAX_PIXELS, MIB, Settings

if TYPE_CHECKING:
    from kosmos_edge.model import Model

_SECONDS = click.FloatRange(0, 86400, min_open=True)
access_options = options(
    option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need an API key."),
    option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free port."),
    option("--api-key", metavar="KEY", help="Require this key; the variable or the file keeps it out of `ps`."),
    option("--api-key-file", metavar="FILE", help="Require the key in FILE."),
    option("--allow-host", multiple=True, metavar="NAME", help="Serve this name in Host, too. Can be repeated."),
    option("--allow-origin", multiple=True, metavar="ORIGIN", help="Let pages of this origin call. Can be repeated."),
    option("--allow-urls", is_flag=True, help="Fetch images by http(s), from public addresses only."),
    option("--media-path", metavar="FOLDER", help="Let requests name images in FOLDER (file:NAME)."),
)
page_option = option("--no-page", is_flag=True, help="Serve the routes for programs only, without the page at /.")
limit_options = options(
    option(
        "--batch-size",
        type=click.IntRange(1, _core.limits.MAX_BATCH),
        default=_core.limits.DEFAULT_BATCH,
        show_default=True,
        metavar="N",
        help="Answers computed at once; does not change them.",
    ),
    option("--queue", type=click.IntRange(0, 100_000), default=64, show_default=True, help="Requests that may wait."),
    option("--max-body-mb", type=click.IntRange(1, 500), default=20, show_default=True, help="Size of a request."),
    option(
        "--max-pixels",
        type=click.IntRange(1, _core.limits.MAX_IMAGE_PIXELS),
        default=MAX_PIXELS,
        show_default=True,
        metavar="N",
        help="Refuse images over N pixels.",
    ),
    option("--request-timeout", type=_SECONDS, default=120, show_default=True, help="Seconds for one answer."),
    option("--drain", type=_SECONDS, default=30, show_default=True, help="Seconds for open answers when it stops."),
    option(
        "--keep-alive", type=_SECONDS, metavar="SECONDS", help="Unload the model when idle so long. Default: never."
    ),
    option("--watch", is_flag=True, help="Load the model again when its file changes (so does SIGHUP)."),
)


@click.command()
@option("--name", metavar="NAME", help="Name of the model in requests. Default: its tag or its file's name.")
@page_option
@option(
    "--shared-weights", is_flag=True, help="Have the weights in memory once with other processes (docs/sharing.md)."
)
@options(access_options, limit_options, model_options)
def serve(name: str | None, **rest: Any) -> int:
    """Serve a model over HTTP, as OpenAI's, Ollama's and Moondream's clients expect it.

    \b
    kosmos-edge serve -m kosmos-2
    curl http://127.0.0.1:8064/v1/models

    A browser shows a page at the same address.

    --verbose prints a line per request. SIGTERM and Ctrl-C end it after the answers that are being computed, a second
    one at once.
    """
    try:
        from kosmos_edge.server.app import make_app
        from kosmos_edge.server.run import make_server
    except ImportError as error:
        raise InvalidRequest(
            f"serve: {error.name or error} is not installed: pip install 'kosmos-edge[server]'"
        ) from error
    keep_one_heap()
    keep_large_apart()
    messages = take_messages(rest)
    settings = _take_settings(rest)
    level = logging.ERROR if messages.quiet else logging.INFO if messages.verbose else logging.WARNING
    logging.basicConfig(level=level, format="kosmos-edge: %(message)s")
    load, tag = _loader(rest, messages)
    app = make_app(settings, load, name or tag)

    keeper = app.state.service.keeper

    def ready(url: str) -> None:
        messages.say(f"{keeper.about.id} is served at {url}")

    return run_server(make_server(app, settings, ready, log=bool(messages.verbose), reload=keeper.reload_quietly))


def run_server(server: Any) -> int:
    """Runs it to its end; the exit status."""
    try:
        server.run()
    except SystemExit as error:  # uvicorn: the address cannot be had; it has said why
        return int(bool(error.code))
    except Ended:
        pass
    return 0


def take_access(values: dict[str, Any]) -> dict[str, Any]:
    """Moves the access options out of `values`, as Settings has them."""
    key, file = values.pop("api_key"), values.pop("api_key_file")
    if key is not None and file is not None:
        raise click.UsageError("--api-key and --api-key-file contradict each other")
    if file is not None:
        key = Path(file).read_text(encoding="utf-8").strip()
    folder = values.pop("media_path")
    if folder is not None and not os.path.isdir(folder):
        raise click.UsageError(f"--media-path {folder}: no folder has this name")
    return {
        "host": values.pop("host"),
        "port": values.pop("port"),
        "api_key": key,
        "allow_hosts": values.pop("allow_host"),
        "allow_origins": values.pop("allow_origin"),
        "allow_urls": values.pop("allow_urls"),
        "media_path": None if folder is None else Path(folder),
    }


def _take_settings(values: dict[str, Any]) -> Settings:
    from kosmos_edge.images import Opening

    body = values.pop("max_body_mb") * MIB
    return Settings(
        **take_access(values),
        opening=Opening(max_pixels=values.pop("max_pixels")),
        max_body=body,
        max_bodies=4 * body,
        batch_size=values.pop("batch_size"),
        queue=values.pop("queue"),
        request_seconds=values.pop("request_timeout"),
        drain_seconds=values.pop("drain"),
        keep_alive=values.pop("keep_alive"),
        watch=values.pop("watch"),
        page=not values.pop("no_page"),
    )


def _loader(values: dict[str, Any], messages: Messages) -> tuple[Callable[[], Model], str]:
    """What loads the model, the first time with messages, and the model's name in requests."""
    from kosmos_edge import hub
    from kosmos_edge.loading import load

    if values["model"] is None and values["mmproj"] is None:
        values["model"] = hub.default_model()[0]
    again = partial(
        load,
        values["model"],
        device=values["device"],
        threads=values["threads"],
        mode="copy" if values["copy"] else "mmap",
        offline=values["offline"],
        isolation=values["isolation"],
        mmproj=values["mmproj"],
        kv_type=values["kv_type"],
        shared_weights=values["shared_weights"],
    )
    first = [take_model(values, messages, shared_weights=values.pop("shared_weights"))]
    assert not values, values
    spec = str(again.args[0])
    is_path = os.sep in spec or spec.endswith(".gguf") or os.path.exists(spec)
    return lambda: first.pop() if first else again(), Path(spec).stem if is_path else spec
