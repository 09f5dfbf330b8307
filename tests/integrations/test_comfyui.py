"""The nodes for ComfyUI, by its interface: what it reads of a node class, and what it passes and gets."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmos_edge import load
from kosmos_edge.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, pixels_of

SCENES = [Path(__file__).resolve().parents[2] / "examples" / f"scene-0000{number}.png" for number in (0, 1)]
PIXELS = np.stack([np.array(Image.open(path).convert("RGB")) for path in SCENES])
BATCH = PIXELS.astype(np.float32) / 255


def run(name: str, **inputs: Any) -> tuple[Any, ...]:
    """As ComfyUI does: an instance, its FUNCTION, all inputs by name."""
    node = NODE_CLASS_MAPPINGS[name]
    asked = node.INPUT_TYPES()["required"]
    given = {key: (kind[1]["default"] if len(kind) > 1 else kind[0][0]) for key, kind in asked.items()}
    given |= inputs
    assert set(given) == set(asked)
    out = getattr(node(), node.FUNCTION)(**given)
    assert len(out) == len(node.RETURN_TYPES) == len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES))
    return out


@pytest.fixture(scope="module")
def model() -> Any:
    (loaded,) = run("KosmosEdgeLoadModel", model="nano", device="cpu")
    return loaded


def test_the_interface() -> None:
    assert set(NODE_CLASS_MAPPINGS) == set(NODE_DISPLAY_NAME_MAPPINGS)
    for node in NODE_CLASS_MAPPINGS.values():
        assert node.CATEGORY == "kosmos-edge" and inspect.ismethod(node.INPUT_TYPES)
        names = set(node.INPUT_TYPES()["required"])
        parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
        takes_all = any(given.kind is given.VAR_KEYWORD for given in parameters.values())
        assert takes_all or names == set(parameters) - {"self"}


def test_captions_with_boxes_and_a_mask(model: Any) -> None:
    texts, boxes, mask, records = run("KosmosEdgeCaption", model=model, image=BATCH, length="short")
    for number, pixels in enumerate(PIXELS):
        own = model.caption(pixels, ground=True)
        assert texts[number] == own.text and boxes[number] == [box.pixels for box in own.boxes]
        assert json.loads(records[number])["entities"] == [entity.to_dict() for entity in own.entities]
    assert mask.shape == BATCH.shape[:3] and mask.dtype == np.float32 and set(np.unique(mask)) == {0.0, 1.0}
    x1, y1, x2, y2 = boxes[1][0]
    assert mask[1, int((y1 + y2) / 2), int((x1 + x2) / 2)] == 1 and mask[1].mean() < 1
    assert not run("KosmosEdgeCaption", model=model, image=BATCH, boxes=False, length="short")[2].any()


def test_locate_and_ask(model: Any) -> None:
    _, boxes, _, _ = run("KosmosEdgeLocate", model=model, image=BATCH[1:], phrase="a shopping cart")
    assert boxes == [[box.pixels for box in model.locate(PIXELS[1], "a shopping cart").boxes]]
    assert run("KosmosEdgeLocate", model=model, image=BATCH[1:], phrase="a cart", min_score=1.0)[1] == [[]]
    (answers,) = run("KosmosEdgeAsk", model=model, image=BATCH, max_tokens=5, temperature=1.0, seed=2)
    assert answers == [model.ask(p, "What is this?", max_tokens=5, temperature=1.0, seed=2).text for p in PIXELS]


def test_tensors_of_torch(model: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    texts, _, mask, _ = run("KosmosEdgeCaption", model=model, image=torch.from_numpy(BATCH[:1]), length="short")
    assert texts == [model.caption(PIXELS[0], ground=True).text]
    assert isinstance(mask, torch.Tensor) and mask.shape == (1, *BATCH.shape[1:3])


def test_pixels_are_the_ones_that_were_loaded() -> None:
    with_alpha = np.concatenate([BATCH, np.zeros_like(BATCH[..., :1])], axis=3)
    for given in (BATCH, with_alpha, BATCH * 1.0):
        assert all(np.array_equal(one, pixels) for one, pixels in zip(pixels_of(given), PIXELS, strict=True))
    with pytest.raises(ValueError, match=r"image: expected \[batch, height, width, 3\], got \[2\]"):
        pixels_of(np.zeros(2))


def test_defaults_are_within_the_limits() -> None:
    model = load("nano", threads=1)
    kind = NODE_CLASS_MAPPINGS["KosmosEdgeAsk"].INPUT_TYPES()["required"]
    settings = {name: kind[name][1]["max"] for name in ("temperature", "seed")}
    assert model.ask(PIXELS[0], "What?", max_tokens=1, **settings).text is not None
