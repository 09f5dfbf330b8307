"""The tools of an agent by the Model Context Protocol: caption, ask, ground, locate, describe_region and read.

A tool takes an image by its path, under the folders that the user allowed, or as a data: URI, and gives text for the
model that reads it and the whole result as structured content.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import threading
from collections.abc import Sequence
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from mcp_types import Tool as ListedTool

from kosmos_edge import __version__
from kosmos_edge.errors import KosmosError
from kosmos_edge.images import Opening, Picture
from kosmos_edge.model import Model
from kosmos_edge.results import Result
from kosmos_edge.tools import result_text, verb_tools

PICTURE_PIXELS = 64_000_000
IMAGE = "Path of an image file in an allowed folder, or a data: URI"


class Pictures:
    """Opens the images that tools are given."""

    def __init__(self, roots: Sequence[str]) -> None:
        """roots: folders whose images may be opened."""
        self._roots = [os.path.realpath(root) for root in roots]
        self._opening = Opening(pipes=False, max_pixels=PICTURE_PIXELS)

    def open(self, image: str) -> Picture:
        """The decoded image; ToolError or a KosmosError that says why not."""
        if image[:5].lower() == "data:":
            head, _, text = image.partition(",")
            if not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
                raise ToolError("image: expected data:image/...;base64,... or a path")
            try:
                return self._opening.open(base64.b64decode(text.encode("ascii"), validate=True))
            except (UnicodeEncodeError, binascii.Error) as error:
                raise ToolError(f"image: the base64 is wrong ({error})") from None
        return self._opening.open(self._inside(image))

    def _inside(self, image: str) -> str:
        """The real path, which must be under a root; a relative one is looked for in each of them."""
        if not self._roots:
            raise ToolError("image: no folder is allowed; start the server with --root FOLDER, or pass a data: URI")
        name = os.path.expanduser(image)
        if "\0" in name or not name.strip():
            raise ToolError("image: expected a path")
        for root in self._roots:
            path = os.path.realpath(os.path.join(root, name))
            if os.path.commonpath([root, path]) == root and os.path.lexists(path):
                return path
        shown = ", ".join(self._roots)
        raise ToolError(f"image: there is no {image[:200]!r} under the allowed folders ({shown})")


class _Server(MCPServer[Any]):  # type: ignore[misc]  # without mcp it is Any
    """Lists and calls the tools of tools.py; the base class would make tools of functions."""

    def __init__(self, model: Model, pictures: Pictures) -> None:
        super().__init__(
            "kosmos-edge",
            title="kosmos-edge: local image captions, answers and boxes",
            instructions=f"Looks at images with the model {model.name}. Boxes are x1, y1, x2, y2 in pixels.",
            version=__version__,
            log_level="WARNING",
        )
        self._model, self._pictures = model, pictures
        self._tools = {tool.name: tool for tool in verb_tools(model.model_info["tasks"])}

    async def list_tools(self) -> list[ListedTool]:
        """The tools that the model has."""
        hints = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
        return [
            ListedTool(
                name=tool.name,
                description=tool.description,
                input_schema=tool.parameters(image=IMAGE),
                annotations=hints,
            )
            for tool in self._tools.values()
        ]

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> CallToolResult:
        """The tool's answer; ToolError says what was wrong. The verb ends soon when the client cancels."""
        tool, cancel = self._tools.get(name), threading.Event()
        if tool is None:
            raise ToolError(f"Unknown tool: {name[:100]}; known are {', '.join(self._tools)}")

        def work() -> Result:
            given = tool.check(arguments)
            return tool.call(self._model, self._pictures.open(given.pop("image")), given, cancel)

        try:
            result = await asyncio.to_thread(work)
        except KosmosError as error:
            raise ToolError(str(error)) from error
        finally:
            cancel.set()
        structured = {
            name: value for name, value in result.to_dict().items() if name not in ("path", "error", "error_type")
        }
        return CallToolResult(
            content=[TextContent(type="text", text=result_text(result))], structured_content=structured
        )


def make_server(model: Model, roots: Sequence[str]) -> MCPServer[Any]:
    """The server of the tools that the model has."""
    return _Server(model, Pictures(roots))


__all__ = ["Pictures", "make_server"]
