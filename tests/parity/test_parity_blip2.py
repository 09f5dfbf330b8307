"""A converted BLIP-2 checkpoint with OPT gives the ids, image rows and logits of transformers'
Blip2ForConditionalGeneration in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, random_strings, write
from models.description import described

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 40
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<image>")
QUESTIONS = ("what is in the photo?", "How many\nbridges  are there", "12:30 é 日本 🙂 don't")


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import transformers

        self.name = name
        if name == "own":
            self.folder = described()["blip2"].write_checkpoint(folder / "hf")
        else:
            self.folder = write("blip2", name, folder / "hf")
        self.model, info = transformers.Blip2ForConditionalGeneration.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not any(info.values()), info
        self.model.eval()
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)
        self.images = transformers.AutoImageProcessor.from_pretrained(self.folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder) if name != "own" else None

    def pixels(self, picture: np.ndarray) -> Any:
        from PIL import Image

        return self.images(Image.fromarray(picture), return_tensors="pt").pixel_values

    def ids(self, text: str) -> list[int]:
        """Of a prompt with one picture in front, as Blip2Processor makes them: the beginning follows the picture."""
        image = self.metadata["blip2.image.token_id"]
        encoded = self.tokenizer(text).input_ids if self.tokenizer else [2, *self.engine.tokenizer.encode(text)]
        return [image] * self.metadata["blip2.qformer.query_count"] + encoded

    def inputs(self, text: str, picture: np.ndarray) -> dict[str, Any]:
        import torch

        ids = torch.tensor([self.ids(text)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": self.pixels(picture)}

    def segments(self, text: str, picture: np.ndarray) -> list[tuple[str, object]]:
        height, width, _ = picture.shape
        return [("image", self.engine.encode_image(picture.tobytes(), width, height)), ("text", text)]


@pytest.fixture(scope="module", params=["own", *presets()])
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("blip2"), request.param)


def question(text: str) -> str:
    return f"Question: {text} Answer:"


def test_image_rows(pair: Pair) -> None:
    import torch

    for picture in pictures():
        with torch.inference_mode():
            rows = pair.model.get_image_features(pair.pixels(picture)).pooler_output
        (_, image), *_ = pair.segments("", picture)
        found = np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)
        assert far(found, rows.reshape(image.shape).numpy()) <= TOLERANCE


def test_logits(pair: Pair) -> None:
    import torch

    for picture in pictures():
        for text in ("", *map(question, QUESTIONS)):
            segments = pair.segments(text, picture)
            assert pair.engine.prompt_ids(segments) == pair.ids(text)
            with torch.inference_mode():
                expected = pair.model(**pair.inputs(text, picture)).logits[0].numpy()
            raw, rows, cols = pair.engine.logits(segments)
            found = np.frombuffer(raw, np.float32).reshape(rows, cols)
            assert far(found, expected[:, :cols]) <= TOLERANCE  # the embedding's last rows have no token


def test_several_images(pair: Pair) -> None:
    """Two pictures, each with words of its own: by hand, for the processor takes one."""
    import torch

    first, second, _ = pictures()
    texts = [question(text) for text in QUESTIONS[:2]]
    parts = [pair.segments(text, picture) for text, picture in zip(texts, (first, second), strict=True)]
    rows = pair.metadata["blip2.qformer.query_count"]
    whole, other = pair.ids(texts[0]), pair.ids(texts[1])
    ids = torch.tensor([[*whole, *other[:rows], *other[rows + 1 :]]])  # one beginning
    pixels = torch.cat([pair.pixels(first), pair.pixels(second)])
    with torch.inference_mode():
        images = pair.model.get_image_features(pixels).pooler_output.flatten(0, 1)
        embedded = pair.model.get_input_embeddings()(ids)
        embedded[ids == pair.metadata["blip2.image.token_id"]] = images
        expected = pair.model.language_model(inputs_embeds=embedded).logits[0].numpy()
    segments = [*parts[0], *parts[1]]
    assert pair.engine.prompt_ids(segments) == ids[0].tolist()
    raw, count, cols = pair.engine.logits(segments)
    assert far(np.frombuffer(raw, np.float32).reshape(count, cols), expected[:, :cols]) <= TOLERANCE


def test_answers(pair: Pair) -> None:
    """Greedy ids, token by token through the caches; never the placeholder or a row without a token. Where random
    weights repeat an id, the logits at each position are those of transformers, too."""
    import torch

    image, end = pair.metadata["blip2.image.token_id"], pair.metadata["blip2.generation.end_token_id"]
    tokens = len(pair.metadata["tokenizer.ggml.tokens"])
    for picture in pictures():
        for text in ("", *map(question, QUESTIONS)):
            inputs = pair.inputs(text, picture)
            size = inputs["input_ids"].shape[1]
            with torch.inference_mode():
                whole = pair.model.generate(
                    **inputs, do_sample=False, max_new_tokens=LENGTH, eos_token_id=end, pad_token_id=1,
                    suppress_tokens=[image, *range(tokens, pair.model.config.text_config.vocab_size)],
                )[0]  # fmt: skip
                expected = whole[size:].tolist()
                logits = pair.model(**{**inputs, "input_ids": whole[None], "attention_mask": None}).logits[0].numpy()
            with load(pair.path, threads=1) as model:
                picked = model.ask(picture, text[10:-8], max_tokens=LENGTH) if text else model.caption(
                    picture, max_tokens=LENGTH
                )  # fmt: skip
            assert picked.token_ids == expected
            raw, rows, cols = pair.engine.logits([*pair.segments(text, picture), ("ids", expected)])
            found = np.frombuffer(raw, np.float32).reshape(rows, cols)
            assert far(found[size - 1 :], logits[size - 1 :, :cols]) <= TOLERANCE
            assert len(expected) == LENGTH or expected[-1] == end


def test_any_text_has_the_ids_of_the_tokenizer(pair: Pair) -> None:
    """What spells a special token is one to transformers alone: a text never becomes it here."""
    if pair.tokenizer is None:
        pytest.skip("without tokenizer.json transformers makes another kind of tokenizer of the files")
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][4:] if text.isascii()]
    texts = random_strings(pair.name, pieces, SPECIALS, assigned=False)
    found = pair.tokenizer(texts).input_ids
    wrong = [t for t, ids in zip(texts, found, strict=True) if [2, *pair.engine.tokenizer.encode(t)] != ids]
    assert wrong == []


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
