"""A converted OpenFlamingo gives the ids, image rows and logits of its parts in float32: CLIP and GPT-NeoX are those of
transformers, between them is the readable forward of ../shared, which equals the authors' blocks."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import SHARED, TOLERANCE, far, pictures, presets, random_strings, write

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 32
END = "<|endofchunk|>"
PROMPTS: dict[str, list[Any]] = {  # numbers are pictures
    "an image alone": [0],
    "a caption after an example": [0, f"Output:An image of a cat.{END}", 1, "Output:"],
    "text before": ["Some text that sees nothing.", 0, "Question:what is it? Short answer:"],
    "neighbours": [1, 0, "and", 2, "Output:"],
    "no image": ["Question:what is it? Short answer:"],
}


class Pair:
    """The same random checkpoint as its parts and converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import torch
        import transformers

        self.name = name
        spec = importlib.util.spec_from_file_location("family_reference", SHARED / "spec" / "family_reference.py")
        assert spec and spec.loader
        self.reference = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.reference)
        self.folder = write("openflamingo", name, folder / "parts")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder / "lang_encoder")
        self.images = transformers.AutoImageProcessor.from_pretrained(self.folder / "vision")
        self.clip = transformers.CLIPVisionModel.from_pretrained(self.folder / "vision").eval()
        self.state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)
        self.image = self.tokenizer.convert_tokens_to_ids("<image>")

    def pixels(self, prompt: list[Any]) -> Any:
        from PIL import Image

        shown = [Image.fromarray(pictures()[p]) for p in prompt if isinstance(p, int)] or [Image.new("RGB", (9, 9))]
        return self.images(shown, return_tensors="pt").pixel_values

    def ids(self, prompt: list[Any]) -> list[int]:
        """As open_flamingo's users write it: one text."""
        whole = "".join("<image>" if isinstance(p, int) else p for p in prompt)
        return self.tokenizer(whole, add_special_tokens=False).input_ids

    def segments(self, prompt: list[Any]) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for part in prompt:
            if isinstance(part, int):
                picture = pictures()[part]
                found.append(("image", self.engine.encode_image(picture.tobytes(), *picture.shape[1::-1])))
            else:
                found.append(("tags", part))
        return found

    def expected(self, ids: list[int], prompt: list[Any]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.reference.openflamingo(str(self.folder), ids, self.pixels(prompt))[0].numpy()

    def logits(self, segments: list[tuple[str, Any]]) -> np.ndarray:
        raw, rows, cols = self.engine.logits(segments)
        return np.frombuffer(raw, np.float32).reshape(rows, cols)


@pytest.fixture(scope="module", params=presets())
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("openflamingo"), request.param)


def test_image_rows(pair: Pair) -> None:
    import torch

    for number in range(3):
        with torch.inference_mode():
            seen = pair.clip(pair.pixels([number])).last_hidden_state[:, 1:]
            rows = pair.reference.perceiver(pair.state, seen)[0].numpy()
        ((_, image),) = pair.segments([number])
        assert far(np.frombuffer(image.tobytes(), np.float32).reshape(image.shape), rows) <= TOLERANCE


@pytest.mark.parametrize("name", PROMPTS)
def test_logits(pair: Pair, name: str) -> None:
    ids, segments = pair.ids(PROMPTS[name]), pair.segments(PROMPTS[name])
    assert pair.engine.prompt_ids(segments) == ids
    assert far(pair.logits(segments), pair.expected(ids, PROMPTS[name])) <= TOLERANCE


@pytest.mark.parametrize("name", ["a caption after an example", "text before", "no image"])
def test_answers(pair: Pair, name: str) -> None:
    """Every token that the engine chooses is the likeliest of the reference's row, which its own row equals."""
    prompt = PROMPTS[name]
    segments, ids = pair.segments(prompt), pair.ids(prompt)
    params = _core.GenerateParams()
    params.max_tokens = LENGTH
    found = pair.engine.generate(segments, params).token_ids
    assert len(found) == LENGTH or found[-1] == pair.metadata["openflamingo.generation.end_token_id"]
    rows = pair.expected([*ids, *found], prompt)[len(ids) - 1 : -1].copy()
    assert far(pair.logits([*segments, ("ids", found)])[len(ids) - 1 : -1], rows) <= TOLERANCE
    rows[:, pair.image] = -np.inf
    assert rows.argmax(-1).tolist() == found


def test_the_verbs_prompts(pair: Pair) -> None:
    images = pictures()
    with load(pair.path, threads=1) as model:
        captioned = model.caption(images[1], examples=[(images[0], "a cat")], max_tokens=3)
        assert captioned.timings.prompt_tokens == len(pair.ids([0, f"Output:a cat{END}", 1, "Output:"]))
        asked = model.ask(images[1], "why?", examples=[(images[0], "what?", "red")], max_tokens=3)
        prompt = [0, f"Question:what? Short answer:red{END}", 1, "Question:why? Short answer:"]
        assert asked.timings.prompt_tokens == len(pair.ids(prompt))
        params = _core.GenerateParams()
        params.max_tokens = 3
        assert asked.token_ids == pair.engine.generate(pair.segments(prompt), params).token_ids


def test_any_text_has_the_ids_of_the_tokenizer(pair: Pair) -> None:
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][2:-3] if text.isascii()]
    texts = random_strings(pair.name, pieces, ("<|", "<image>", "<PAD"), assigned=False)
    found = pair.tokenizer(texts, add_special_tokens=False).input_ids
    wrong = [t for t, ids in zip(texts, found, strict=True) if pair.engine.tokenizer.encode(t) != ids]
    assert wrong == []


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
