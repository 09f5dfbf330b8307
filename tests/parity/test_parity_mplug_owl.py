"""A converted mPLUG-Owl gives the image rows, logits and ids of a reference in torch, in float32, whose language model
is transformers'."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, reference, write
from helpers.bpe_vocabularies import random_texts
from PIL import Image

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH, SLOTS = 40, 65
QUESTIONS = ("what is in the photo?", "How many\nbridges  are there", "12:30 é 日本 🙂 don't")


class Pair:
    """The same random checkpoint for the reference and converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import transformers

        self.folder = write("mplug_owl", name, folder / "hf")
        self.config = reference().config(str(self.folder))
        self.state = reference().load(str(self.folder / "model.safetensors"))
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)

    def pixels(self, shown: list[np.ndarray]):
        """Squashed first, as the authors' processor does; CLIP's own steps change nothing then."""
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        size = self.config["vision_config"]["image_size"]
        squares = [Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in shown]
        images = CLIPImageProcessorPil.from_pretrained(self.folder)
        return images(squares, return_tensors="pt").pixel_values.float()

    def prompt(self, question: str) -> str:
        turn = self.metadata["mplug_owl.prompt.question"].replace("{image}", "<image>").replace("{question}", question)
        return self.metadata["mplug_owl.prompt.system"] + turn

    def ids(self, prompt: str) -> list[int]:
        """As the authors' processor makes them: texts by themselves, an id below zero for each row of an image."""
        first, *rest = prompt.split("<image>")
        ids = [1, *self.tokenizer.encode(first, add_special_tokens=False)]
        for text in rest:
            ids += [-1] * SLOTS + self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def expected(self, ids: list[int], shown: list[np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return reference().mplug_owl(str(self.folder), ids, self.pixels(shown))[0].numpy()

    def image(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def logits(self, prompt: str, shown: list[np.ndarray]) -> np.ndarray:
        first, *rest = prompt.split("<image>")
        segments: list[tuple[str, object]] = [("text", first)]
        for picture, text in zip(shown, rest, strict=True):
            segments += [("image", self.image(picture)), ("text", text)]
        wanted = [max(i, 0) for i in self.ids(prompt)]  # the unknown token stands for rows
        assert self.engine.prompt_ids(segments) == wanted
        raw, rows, cols = self.engine.logits(segments)
        return np.frombuffer(raw, np.float32).reshape(rows, cols)


@pytest.fixture(scope="module", params=presets())
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("mplug_owl"), request.param)


def test_image_rows(pair: Pair) -> None:
    import torch

    for picture in pictures():
        with torch.inference_mode():
            expected = reference().mplug_owl_image(pair.state, pair.config, pair.pixels([picture]))[0].numpy()
        image = pair.image(picture)
        assert image.shape[0] == SLOTS
        assert far(np.frombuffer(image.tobytes(), np.float32).reshape(image.shape), expected) <= TOLERANCE


def test_logits(pair: Pair) -> None:
    for picture, question in zip(pictures(), QUESTIONS, strict=True):
        prompt = pair.prompt(question)
        assert far(pair.logits(prompt, [picture]), pair.expected(pair.ids(prompt), [picture])) <= TOLERANCE


def test_several_images(pair: Pair) -> None:
    """Several lines with an image each, as the authors have them."""
    prompt, shown = pair.prompt(QUESTIONS[0]).replace("<image>", "<image>\nHuman: <image>"), pictures()[:2]
    assert far(pair.logits(prompt, shown), pair.expected(pair.ids(prompt), shown)) <= TOLERANCE


def test_answers(pair: Pair) -> None:
    """Each id is the reference's choice behind those before it, but never the unknown token."""
    with load(pair.path, threads=1) as model:
        for picture, question in zip(pictures(), QUESTIONS, strict=True):
            answer = model.ask(picture, question, max_tokens=LENGTH)
            logits = pair.expected([*pair.ids(pair.prompt(question)), *answer.token_ids], [picture])
            logits = logits[-len(answer.token_ids) - 1 :]
            logits[:, 0] = -np.inf
            choices = logits.argmax(1).tolist()
            assert choices[: len(answer.token_ids)] == answer.token_ids
            assert len(answer.token_ids) == LENGTH or choices[-1] == model.model_info["eos"]


def test_turns(pair: Pair) -> None:
    """An answer is encoded by itself and ended; the next question stands on a line of its own."""
    picture, (first, second, _) = pictures()[0], QUESTIONS
    with load(pair.path, threads=1) as model:
        chat = model.chat(picture)
        said = chat.ask(first, max_tokens=4)
        answer = chat.ask(second, max_tokens=8)
        encode = pair.tokenizer.encode
        ids = pair.ids(pair.prompt(first)) + encode(said.text, add_special_tokens=False) * bool(said.text) + [2]
        ids += encode(f"\nHuman: {second}\nAI: ", add_special_tokens=False)
        assert answer.timings.prompt_tokens == len(ids)
        logits = pair.expected([*ids, *answer.token_ids], [picture])[-len(answer.token_ids) - 1 : -1]
        logits[:, 0] = -np.inf
        assert logits.argmax(1).tolist() == answer.token_ids


@pytest.mark.skipif(not presets(), reason="no ../shared")
def test_any_text_has_the_ids_of_the_tokenizer(transformers_here: None, tmp_path: Path) -> None:
    """What spells a special token is one to transformers alone."""
    pair = Pair(tmp_path, "tiny-0")
    texts = random_texts(pair.metadata["tokenizer.ggml.tokens"][3:], 90_000, seed=4)
    texts = [text for text in texts if not any(s in text for s in ("<s>", "</s>", "<unk>"))]
    texts = [text for text in texts if all(unicodedata.category(c) != "Cn" for c in text)][:80_000]
    assert len(texts) > 60_000
    found = pair.tokenizer(texts, add_special_tokens=False).input_ids
    wrong = [t for t, ids in zip(texts, found, strict=True) if pair.engine.tokenizer.encode(t) != ids]
    assert wrong == []


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
