"""Converted MiniGPT-4 checkpoints give the image rows and logits of a torch definition on the authors' files, and the
token ids of sentencepiece, text by text."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import SHARED, TOLERANCE, far, pictures, presets, random_strings, write

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 32
QUESTIONS = ("what is in the photo?", "How many bridges are there", "12:30 é 日本 🙂 don't")
IMAGE = -1


class Pair:
    """The same random checkpoint on both sides."""

    def __init__(self, folder: Path, name: str) -> None:
        import sentencepiece
        import transformers

        self.name = name
        self.folder = write("minigpt4", name, folder / "hf")
        sizes = json.loads((self.folder / "sizes.json").read_text())
        text = json.loads((self.folder / "vicuna" / "config.json").read_text())
        preset = {"tiny": (128, 256, 3, 128, 256, 3), "small": (256, 512, 4, 256, 512, 4)}[name.partition("-")[0]]
        vision = dict(zip(("hidden_size", "intermediate_size", "num_hidden_layers"), preset[:3], strict=True))
        qformer = dict(zip(("hidden_size", "intermediate_size", "num_hidden_layers"), preset[3:], strict=True))
        settings = {
            "vision_config": vision | {"image_size": sizes["image_size"], "num_attention_heads": sizes["vit_heads"]},
            "qformer_config": qformer
            | {"num_attention_heads": sizes["qformer_heads"], "encoder_hidden_size": vision["hidden_size"]},
        }
        (self.folder / "config.json").write_text(json.dumps(settings))
        assert text["model_type"] == "llama"
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)
        side = sizes["image_size"]
        self.images = transformers.BlipImageProcessor(
            size={"height": side, "width": side},
            image_mean=[0.48145466, 0.4578275, 0.40821073],
            image_std=[0.26862954, 0.26130258, 0.27577711],
        )
        self.pieces = sentencepiece.SentencePieceProcessor(str(self.folder / "vicuna" / "tokenizer.model"))
        spec = importlib.util.spec_from_file_location("family_reference", SHARED / "spec" / "family_reference.py")
        assert spec is not None and spec.loader is not None
        self.reference = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.reference)

    def pixels(self, picture: np.ndarray) -> Any:
        from PIL import Image

        return self.images(Image.fromarray(picture), return_tensors="pt").pixel_values

    def encode(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def ids(self, texts: list[str]) -> list[int]:
        """The authors' way: every text between pictures by itself, and one beginning."""
        found = [1]
        for number, text in enumerate(texts):
            found += [IMAGE] * (number > 0) + self.pieces.encode(text)
        return found

    def logits(self, ids: list[int], shown: list[np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.reference.minigpt4(str(self.folder), ids, torch.cat(list(map(self.pixels, shown))))[0].numpy()


@pytest.fixture(scope="module", params=presets())
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("minigpt4"), request.param)


def texts_of(pair: Pair, question: str) -> list[str]:
    """In front of the picture and behind it."""
    system = pair.metadata["minigpt4.prompt.system"]
    return [f"{system}###Human: <Img>", f"</Img> {question}###Assistant: "]


def found_logits(pair: Pair, segments: list[tuple[str, object]]) -> np.ndarray:
    raw, rows, cols = pair.engine.logits(segments)
    return np.frombuffer(raw, np.float32).reshape(rows, cols)


def test_image_rows(pair: Pair) -> None:
    """The tower's last norm has another epsilon than its blocks', and its keys no biases."""
    import torch

    r, folder = pair.reference, pair.folder
    sizes = json.loads((folder / "sizes.json").read_text())
    eva = r.load(str(folder / "eva_vit_g.pth"))
    bridge = r.load(str(folder / "blip2_pretrained_flant5xxl.pth"))["model"]
    product = r.load(str(folder / "pretrained_minigpt4_7b.pth"))["model"]
    for picture in pictures():
        with torch.inference_mode():
            x = r.ln(bridge, "ln_vision", r.eva_vit(eva, pair.pixels(picture), sizes["vit_heads"]))
            rows = r.lin(product, "llama_proj", r.qformer(bridge, x, sizes["qformer_heads"]))[0].numpy()
        image = pair.encode(picture)
        assert far(np.frombuffer(image.tobytes(), np.float32).reshape(image.shape), rows) <= TOLERANCE


def test_logits_of_a_question(pair: Pair) -> None:
    """Of the verb's own prompt, at each position behind the picture, and of what it answers at 32 positions more."""
    for picture, question in zip(pictures(), QUESTIONS, strict=True):
        texts = texts_of(pair, question)
        segments = [("text", texts[0]), ("image", pair.encode(picture)), ("text", texts[1])]
        ids, rows = pair.ids(texts), pair.metadata["minigpt4.qformer.query_count"]
        engine = [
            i for token in ids for i in ([pair.metadata["minigpt4.image.token_id"]] * rows if token < 0 else [token])
        ]
        assert pair.engine.prompt_ids(segments) == engine
        params = _core.GenerateParams()
        params.max_tokens = LENGTH
        answer = pair.engine.generate(segments, params).token_ids
        with load(pair.path, threads=1) as model:
            asked = model.ask(picture, question, max_tokens=LENGTH, repetition_penalty=1)
        assert asked.token_ids == answer[: len(asked.token_ids)] and asked.timings.prompt_tokens == len(engine)
        expected = pair.logits([*ids, *answer], [picture])
        found = found_logits(pair, [*segments, ("ids", answer)])
        assert far(found, expected) <= TOLERANCE
        best = expected[len(engine) - 1 : -1].copy()
        best[:, pair.metadata["minigpt4.image.token_id"]] = -np.inf
        assert best.argmax(-1).tolist() == answer and len(answer) in (LENGTH, answer.index(2) + 1 if 2 in answer else 0)


def test_any_text_has_the_ids_of_the_tokenizer(pair: Pair) -> None:
    """A text that spells a special token is text to both."""
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][3:] if text.isascii()]
    texts = random_strings(pair.name, pieces, (), assigned=False)
    found = pair.pieces.encode(texts)
    wrong = [t for t, ids in zip(texts, found, strict=True) if pair.engine.tokenizer.encode(t) != ids]
    assert wrong == []


def test_several_images(pair: Pair) -> None:
    shown, texts = pictures()[:2], ["Give: ", " a cat. And: ", " a"]
    segments: list[tuple[str, object]] = [("text", texts[0])]
    for picture, text in zip(shown, texts[1:], strict=True):
        segments += [("image", pair.encode(picture)), ("text", text)]
    assert far(found_logits(pair, segments), pair.logits(pair.ids(texts), shown)) <= TOLERANCE


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
