"""A converted linear prefix gives the image rows and logits of CLIP's pooled output, torch's product and LLaMA."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, reference, write

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 32
IMAGE = -1


class Pair:
    """The same random checkpoint on both sides."""

    def __init__(self, folder: Path, name: str) -> None:
        import sentencepiece
        import transformers

        self.folder = write("frozen", name, folder / "hf")
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.engine = _core.Engine(str(self.path), threads=1)
        self.images = transformers.AutoImageProcessor.from_pretrained(self.folder / "vision")
        self.pieces = sentencepiece.SentencePieceProcessor(str(self.folder / "language_model" / "tokenizer.model"))

    def pixels(self, shown: list[np.ndarray]) -> Any:
        from PIL import Image

        return self.images([Image.fromarray(picture) for picture in shown], return_tensors="pt").pixel_values

    def encode(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def logits(self, ids: list[int], shown: list[np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return reference().frozen(str(self.folder), ids, self.pixels(shown))[0].numpy()


@pytest.fixture(scope="module", params=presets())
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("frozen"), request.param)


def test_rows_in_front_of_a_text(pair: Pair) -> None:
    """At each position, and at 32 of the answer."""
    rows = json.loads((pair.folder / "config.json").read_text())["num_prefix_tokens"]
    for picture in pictures():
        text = "Question: what is it? Answer:"
        segments = [("image", pair.encode(picture)), ("text", text)]
        assert pair.encode(picture).shape[0] == rows
        params = _core.GenerateParams()
        params.max_tokens = LENGTH
        answer = pair.engine.generate(segments, params).token_ids
        with load(pair.path, threads=1) as model:
            asked = model.ask(picture, "what is it?", max_tokens=LENGTH)
        assert asked.token_ids == answer[: len(asked.token_ids)]
        expected = pair.logits([1, IMAGE, *pair.pieces.encode(text), *answer], [picture])
        raw, count, cols = pair.engine.logits([*segments, ("ids", answer)])
        assert far(np.frombuffer(raw, np.float32).reshape(count, cols), expected) <= TOLERANCE


def test_rows_between_texts(pair: Pair) -> None:
    shown, texts = pictures()[:2], ["Give: ", " a cat. And: ", " a"]
    segments: list[tuple[str, object]] = [("text", texts[0])]
    ids = [1, *pair.pieces.encode(texts[0])]
    for picture, text in zip(shown, texts[1:], strict=True):
        segments += [("image", pair.encode(picture)), ("text", text)]
        ids += [IMAGE, *pair.pieces.encode(text)]
    raw, count, cols = pair.engine.logits(segments)
    assert far(np.frombuffer(raw, np.float32).reshape(count, cols), pair.logits(ids, shown)) <= TOLERANCE


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
