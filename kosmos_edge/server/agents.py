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
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from kosmos_edge import __version__
from kosmos_edge.errors import KosmosError
from kosmos_edge.images import Opening, Picture
from kosmos_edge.model import Model
from kosmos_edge.results import Box, Result

PICTURE_PIXELS = 64_000_000
Image = Annotated[str, Field(description="Path of an image file in an allowed folder, or a data: URI")]
Corners = Annotated[list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2")]


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
    """Refuses arguments that a tool does not have; the base class would drop them."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """As the base class."""
        for tool in await self.list_tools():
            known = list(tool.input_schema["properties"])
            unknown = sorted(arguments.keys() - set(known))
            if tool.name == name and unknown:
                raise ToolError(f"{unknown[0][:100]}: unknown argument of {name}; known are {', '.join(known)}")
        return await super().call_tool(name, arguments, context)


def make_server(model: Model, roots: Sequence[str]) -> MCPServer[Any]:
    """The server of the tools that the model has."""
    pictures = Pictures(roots)
    server: MCPServer[Any] = _Server(
        "kosmos-edge",
        title="kosmos-edge: local image captions, answers and boxes",
        instructions=f"Looks at images with the model {model.name}. Boxes are x1, y1, x2, y2 in pixels.",
        version=__version__,
        log_level="WARNING",
    )

    async def answer(image: str, call: Callable[..., Result], **arguments: Any) -> CallToolResult:
        """The verb in a thread, which ends soon when the client cancels."""
        cancel = threading.Event()

        def work() -> Result:
            return call(pictures.open(image), cancel=cancel, **arguments)

        try:
            result = await asyncio.to_thread(work)
        except KosmosError as error:
            raise ToolError(str(error)) from error
        finally:
            cancel.set()
        structured = {
            name: value for name, value in result.to_dict().items() if name not in ("path", "error", "error_type")
        }
        return CallToolResult(content=[TextContent(type="text", text=_text(result))], structured_content=structured)

    async def caption(image: Image, length: Literal["short", "long"] = "short", ground: bool = False) -> CallToolResult:
        """Describes an image in a sentence (short) or a paragraph (long); ground: with boxes for what it names."""
        return await answer(image, model.caption, length=length, ground=ground)

    async def ask(image: Image, question: str) -> CallToolResult:
        """Answers a question about an image."""
        return await answer(image, model.ask, question=question)

    async def ground(image: Image, prompt: str | None = None) -> CallToolResult:
        """Describes an image with boxes for what it names. prompt: words to continue, instead of a caption's."""
        return await answer(image, model.ground, prompt=prompt)

    async def locate(image: Image, phrase: str) -> CallToolResult:
        """Finds an object, named by a phrase, and gives its boxes with scores. The model tends to find whatever it is
        asked for; found_score says how likely it is there."""
        return await answer(image, model.locate, phrase=phrase)

    async def describe_region(image: Image, box: Corners, normalized: bool = False) -> CallToolResult:
        """Describes what is in a box of an image, in pixels, or with normalized in fractions of it, 0..1."""
        return await answer(image, model.describe, box=tuple(box), normalized=normalized)

    async def read(image: Image, markdown: bool = False) -> CallToolResult:
        """Reads the text in an image: its lines with boxes, or the page as Markdown."""
        return await answer(image, model.read, markdown=markdown)

    tools: dict[str, Callable[..., Awaitable[CallToolResult]]] = {
        "caption": caption,
        "ask": ask,
        "ground": ground,
        "locate": locate,
        "describe": describe_region,
        "read": read,
    }
    hints = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for verb in tools.keys() & set(model.model_info["tasks"]):
        server.add_tool(tools[verb], annotations=hints, structured_output=False)
    return server


def _text(result: Result) -> str:
    """What the agent's model reads: the text, its boxes in pixels, and what was decided about the image."""
    lines = [result.text] if result.text else []
    for entity in result.entities if result.lines is None else ():
        name = entity.phrase or "(no phrase)"
        lines += [f"{name}: {_corners(box)}" for box in entity.boxes if box.valid]
    lines += [f"Note: {note}" for note in result.notes]
    return "\n".join(lines) or "(no text)"


def _corners(box: Box) -> str:
    corners = ", ".join(f"{value:g}" for value in (box.pixels or box.normalized))
    return f"[{corners}]" + ("" if box.score is None else f" (score {box.score:.2f})")


__all__ = ["Pictures", "make_server"]
