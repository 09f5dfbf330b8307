"""kosmos-edge mcp: the tools of an agent, over stdio or HTTP."""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from kosmos_edge.cli.common import model_options, option, options, take_messages, take_model
from kosmos_edge.cli.serve import access_options, run_server, take_access
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.server.settings import MIB, Settings

PATH = "/mcp"


@click.command()
@option("--root", multiple=True, metavar="FOLDER", help="Let tools open images in FOLDER. Can be repeated.")
@option("--http", is_flag=True, help=f"Serve streamable HTTP at {PATH} instead of stdio; --host, --port and so on.")
@options(access_options, model_options)
def mcp(root: tuple[str, ...], http: bool, **rest: Any) -> int:
    """Give agents tools for images, by the Model Context Protocol: caption, ask, ground, locate, describe_region, read.

    \b
    kosmos-edge mcp -m kosmos-2 --root ~/Pictures
    kosmos-edge mcp -m kosmos-2 --root ~/Pictures --http

    A tool takes an image's path under a --root, or a data: URI. docs/mcp.md has the lines for common hosts.
    """
    for folder in root:
        if not os.path.isdir(folder):
            raise click.UsageError(f"--root {folder}: no folder has this name")
    settings = Settings(**take_access(rest))
    try:
        from kosmos_edge.server.agents import make_server
    except ImportError as error:
        raise InvalidRequest(f"mcp: {error.name or error} is not installed: pip install 'kosmos-edge[mcp]'") from error
    messages = take_messages(rest)
    logging.basicConfig(level=logging.WARNING, format="kosmos-edge: %(message)s")
    with take_model(rest, messages) as model:
        assert not rest, rest
        server = make_server(model, [os.path.abspath(folder) for folder in root])
        if not http:
            server.run("stdio")
            return 0
        from mcp.server.transport_security import TransportSecuritySettings

        from kosmos_edge.server.guard import Guard
        from kosmos_edge.server.run import make_server as make_http

        unguarded = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # the guard is the same and more
        app = server.streamable_http_app(
            streamable_http_path=PATH, max_request_body_size=20 * MIB, transport_security=unguarded, host=settings.host
        )

        def ready(url: str) -> None:
            messages.say(f"the tools are served at {url}{PATH}")

        return run_server(make_http(Guard(app, settings), settings, ready, log=bool(messages.verbose)))
