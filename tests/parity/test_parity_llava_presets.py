"""LLaVA's published layouts at two sizes: converted checkpoints give the image rows, logits and ids of transformers'
LlavaForConditionalGeneration in float32 and, of the authors' own layout with a linear projector, those of a reference
in torch. Pictures of any shape, both ways to a square, two images in one prompt, and any text."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, reference, write
from helpers.bpe_vocabularies import random_texts
from PIL import Image

from kosmos_edge import _core, load
from kosmos_edge.convert import convert

LENGTH = 40
SPECIALS = ("<s>", "</s>", "<unk>", "<image>", "<pad>")
QUESTIONS = ("what is in the photo?", "How many\nbridges  are there", "12:30 é 日本 🙂 don't")
SECOND = "and\n<image> in the second?"


def images_of(folder: Path, padded: bool) -> Any:
    """transformers' image processor with Pillow's resizing."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    settings = json.loads((folder / "preprocessor_config.json").read_text())
    return (LlavaImageProcessorPil if padded else CLIPImageProcessorPil)(**settings)


class Converted:
    """A converted file and what is asked of it."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.path = convert(folder, path, type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)

    def prompt(self, question: str) -> str:
        """The model's own, with <image> at its place."""
        turn = self.metadata["llava.prompt.question"].replace("{image}", "<image>").replace("{question}", question)
        return self.metadata["llava.prompt.system"] + turn

    def image(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def rows(self, picture: np.ndarray) -> np.ndarray:
        image = self.image(picture)
        return np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)

    def segments(self, prompt: str, shown: list[np.ndarray]) -> list[tuple[str, object]]:
        first, *rest = prompt.split("<image>")
        out: list[tuple[str, object]] = [("text", first)]
        for picture, text in zip(shown, rest, strict=True):
            out += [("image", self.image(picture)), ("text", text)]
        return out

    def logits(self, segments: list[tuple[str, object]]) -> np.ndarray:
        raw, rows, cols = self.engine.logits(segments)
        return np.frombuffer(raw, np.float32).reshape(rows, cols)


class Pair(Converted):
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import transformers

        preset, _, way = name.partition("/")
        self.folder = write("llava", preset, folder / "hf")
        if way == "padded":
            file = self.folder / "preprocessor_config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"do_pad": True}))
        super().__init__(self.folder, folder / "f32.gguf")
        assert self.metadata["llava.image.aspect"] == {"padded": "pad", "cut": "crop"}[way]
        self.model, info = transformers.LlavaForConditionalGeneration.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not any(info.values()), info
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.images = images_of(self.folder, way == "padded")
        self.slots = self.model.config.image_seq_length

    def inputs(self, prompt: str, shown: list[np.ndarray]) -> dict[str, Any]:
        import torch

        ids = torch.tensor([self.tokenizer.encode(prompt.replace("<image>", "<image>" * self.slots))])
        pixels = self.images([Image.fromarray(p) for p in shown], return_tensors="pt").pixel_values
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels.float()}


WAYS = [f"{preset}/{way}" for preset in presets() for way in ("cut", "padded")]


@pytest.fixture(scope="module", params=WAYS)
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("llava"), request.param)


def test_image_rows(pair: Pair) -> None:
    import torch

    for picture in pictures():
        pixels = pair.inputs("<image>", [picture])["pixel_values"]
        with torch.inference_mode():
            expected = pair.model.get_image_features(
                pixel_values=pixels, vision_feature_layer=-2, vision_feature_select_strategy="default"
            ).pooler_output[0]
        assert far(pair.rows(picture), expected.numpy()) <= TOLERANCE


@pytest.mark.parametrize("count", [1, 2])
def test_logits(pair: Pair, count: int) -> None:
    import torch

    for question in QUESTIONS:
        prompt, shown = pair.prompt(question + SECOND * (count - 1)), pictures()[:count]
        with torch.inference_mode():
            expected = pair.model(**pair.inputs(prompt, shown)).logits[0].numpy()
        found = pair.logits(pair.segments(prompt, shown))
        assert far(found, expected[:, : found.shape[1]]) <= TOLERANCE  # rows that pad the vocabulary have no token


def test_answers(pair: Pair) -> None:
    """Greedy ids, token by token through the caches; and logits at each of their positions, for random weights may
    repeat an id."""
    import torch

    tokens, rows = len(pair.metadata["tokenizer.ggml.tokens"]), pair.model.config.text_config.vocab_size
    banned = [pair.metadata["llava.image.token_id"], *range(tokens, rows)]
    with load(pair.path, threads=1) as model:
        for picture, question in zip(pictures(), QUESTIONS, strict=True):
            inputs = pair.inputs(pair.prompt(question), [picture])
            size = inputs["input_ids"].shape[1]
            with torch.inference_mode():
                whole = pair.model.generate(
                    **inputs, do_sample=False, max_new_tokens=LENGTH, suppress_tokens=banned, pad_token_id=tokens - 1
                )[0]
                expected = whole[size:].tolist()
                logits = pair.model(**{**inputs, "input_ids": whole[None], "attention_mask": None}).logits[0].numpy()
            answer = model.ask(picture, question, max_tokens=LENGTH)
            assert answer.timings.prompt_tokens == size
            assert answer.token_ids == expected[: len(answer.token_ids)]
            assert len(answer.token_ids) >= len(expected) - 1  # the end itself is no part of an answer
            found = pair.logits([*pair.segments(pair.prompt(question), [picture]), ("ids", expected)])
            assert far(found[size - 1 :], logits[size - 1 :, : found.shape[1]]) <= TOLERANCE


@pytest.mark.skipif(not presets(), reason="no ../shared")
def test_any_text_has_the_ids_of_the_tokenizer(transformers_here: None, tmp_path: Path) -> None:
    """80,000 strings, also around images; what spells a special token is one to transformers alone."""
    pair = Pair(tmp_path, "tiny-0/cut")
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][3:] if text not in SPECIALS]
    texts = [text for text in random_texts(pieces, 90_000, seed=4) if not any(s in text for s in SPECIALS)]
    texts = [text for text in texts if all(unicodedata.category(c) != "Cn" for c in text)][:80_000]
    assert len(texts) > 60_000
    found = pair.tokenizer(texts, add_special_tokens=False).input_ids
    wrong = [t for t, ids in zip(texts, found, strict=True) if pair.engine.tokenizer.encode(t) != ids]
    assert wrong == []
    image = pair.image(pictures()[0])
    for before, after in zip(texts[:2000:2], texts[1:2000:2], strict=True):
        segments = [("text", before), ("image", image), ("text", after)]
        expected = pair.tokenizer.encode(before + "<image>" * pair.slots + after)
        assert pair.engine.prompt_ids(segments) == expected, (before, after)


# ---- the authors' layout, whose projector is one matrix


class Own(Converted):
    """A checkpoint of LLaVA-1 and its reference."""

    def __init__(self, folder: Path, name: str) -> None:
        import transformers

        self.folder = write("llava_v1", name, folder / "own")
        super().__init__(self.folder, folder / "f32.gguf")
        assert self.metadata["llava.projector"] == "linear"
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.images = images_of(self.folder / "vision_tower", padded=False)

    def ids(self, prompt: str) -> list[int]:
        """Texts around an image by themselves, as the authors encode them; below zero: an image."""
        first, *rest = prompt.split("<image>")
        ids = self.tokenizer.encode(first)
        for text in rest:
            ids += [-1, *self.tokenizer.encode(text, add_special_tokens=False)]
        return ids

    def expected(self, ids: list[int], shown: list[np.ndarray]) -> np.ndarray:
        import torch

        pixels = self.images([Image.fromarray(p) for p in shown], return_tensors="pt").pixel_values.float()
        with torch.inference_mode():
            return reference().llava_v1(str(self.folder), ids, pixels)[0].numpy()


@pytest.fixture(scope="module", params=presets())
def own(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Own:
    return Own(tmp_path_factory.mktemp("llava_v1"), request.param)


@pytest.mark.parametrize("count", [1, 2])
def test_logits_of_a_linear_projector(own: Own, count: int) -> None:
    for question in QUESTIONS:
        prompt, shown = own.prompt(question + SECOND * (count - 1)), pictures()[:count]
        expected, found = own.expected(own.ids(prompt), shown), own.logits(own.segments(prompt, shown))
        assert far(found, expected) <= TOLERANCE


def test_answers_of_a_linear_projector(own: Own) -> None:
    """Each id is the reference's choice behind those before it, but never the placeholder."""
    with load(own.path, threads=1) as model:
        for picture, question in zip(pictures(), QUESTIONS, strict=True):
            answer = model.ask(picture, question, max_tokens=LENGTH)
            ids = own.ids(own.prompt(question))
            logits = own.expected([*ids, *answer.token_ids], [picture])[-len(answer.token_ids) - 1 :]
            logits[:, own.metadata["llava.image.token_id"]] = -np.inf
            choices = logits.argmax(1).tolist()
            assert choices[: len(answer.token_ids)] == answer.token_ids
            assert len(answer.token_ids) == LENGTH or choices[-1] == model.model_info["eos"]
