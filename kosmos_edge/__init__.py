"""kosmos_edge: KOSMOS models on your machine. Captions, answers and boxes for images, without torch.

    import kosmos_edge

    m = kosmos_edge.load()
    r = m.caption("photo.jpg", ground=True)
    print(r.text, r.entities)

Names are imported on first use, so that `import kosmos_edge` is fast.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kosmos_edge.errors import (
    Cancelled,
    ContextTooLong,
    DeviceUnavailable,
    Forked,
    ImageDecodeError,
    InvalidRequest,
    KosmosError,
    KosmosIOError,
    ModelCorrupt,
    ModelNotFound,
    OutOfMemory,
    WorkerDied,
)

if TYPE_CHECKING:
    from kosmos_edge._core import CancelToken
    from kosmos_edge.draw import draw_boxes
    from kosmos_edge.images import Picture, open_image
    from kosmos_edge.inference.ability_results import IqAnswer, Reasoned
    from kosmos_edge.inference.async_calls import AsyncAnswer
    from kosmos_edge.inference.chat import Chat
    from kosmos_edge.inference.shots import ExamplePool
    from kosmos_edge.loading import load
    from kosmos_edge.model import EncodedImage, EventStream, Model
    from kosmos_edge.options import GenerationOptions
    from kosmos_edge.results import (
        Box,
        Done,
        Entity,
        EntityEvent,
        Event,
        Line,
        Ranking,
        Result,
        Score,
        TextDelta,
        Timings,
        TokenLogprob,
    )

    __version__: str

if os.path.isdir(os.path.join(os.path.dirname(os.path.dirname(__file__)), "csrc")):  # perhaps a source tree
    from kosmos_edge import checkout

    if checkout.find_root(__path__[0]):
        checkout.complete(__path__)

_HOME = {
    "CancelToken": "_native",
    "draw_boxes": "draw",
    "Picture": "images",
    "open_image": "images",
    "AsyncAnswer": "inference.async_calls",
    "Chat": "inference.chat",
    "ExamplePool": "inference.shots",
    "IqAnswer": "inference.ability_results",
    "Reasoned": "inference.ability_results",
    "EncodedImage": "model",
    "EventStream": "model",
    "Model": "model",
    "load": "loading",
    "GenerationOptions": "options",
    "Box": "results",
    "Done": "results",
    "Entity": "results",
    "EntityEvent": "results",
    "Event": "results",
    "Line": "results",
    "Ranking": "results",
    "Result": "results",
    "Score": "results",
    "TextDelta": "results",
    "Timings": "results",
    "TokenLogprob": "results",
}

__all__ = [
    "AsyncAnswer",
    "Box",
    "CancelToken",
    "Cancelled",
    "Chat",
    "ContextTooLong",
    "DeviceUnavailable",
    "Done",
    "EncodedImage",
    "Entity",
    "EntityEvent",
    "Event",
    "EventStream",
    "ExamplePool",
    "Forked",
    "GenerationOptions",
    "ImageDecodeError",
    "InvalidRequest",
    "IqAnswer",
    "KosmosError",
    "KosmosIOError",
    "Line",
    "Model",
    "ModelCorrupt",
    "ModelNotFound",
    "OutOfMemory",
    "Picture",
    "Ranking",
    "Reasoned",
    "Result",
    "Score",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "WorkerDied",
    "__version__",
    "draw_boxes",
    "load",
    "open_image",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: Any = version("kosmos-edge")
        except PackageNotFoundError:  # a source folder on the path, not an installed package
            value = "0+unknown"
    elif name == "_core":  # `from kosmos_edge import _core` is checked, too
        value = import_module("kosmos_edge._native")._core
    elif name in _HOME:
        value = getattr(import_module(f"kosmos_edge.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'kosmos_edge' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
