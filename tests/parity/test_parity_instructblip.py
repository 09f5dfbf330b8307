"""A converted InstructBLIP checkpoint with Vicuna gives the ids, image rows and logits of transformers'
InstructBlipForConditionalGeneration in float32; what its Q-Former reads has the ids of BertTokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, random_strings, write
from models.description import described

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 36
QUESTIONS = ("what is in the photo?", "How many\nbridges  are there", "12:30 é 日本 🙂 don't")
OWN = "own, begins with </s>"


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import transformers

        self.name = name
        if name == OWN:
            self.folder = described()["instructblip"].write_checkpoint(folder / "hf")
        else:
            self.folder = write("instructblip", name, folder / "hf")
        self.model, info = transformers.InstructBlipForConditionalGeneration.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not any(info.values()), info
        self.model.eval()
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)
        self.images = transformers.AutoImageProcessor.from_pretrained(self.folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.question = transformers.AutoTokenizer.from_pretrained(self.folder / "qformer_tokenizer")

    def pixels(self, picture: np.ndarray) -> Any:
        from PIL import Image

        return self.images(Image.fromarray(picture), return_tensors="pt").pixel_values

    def ids(self, text: str) -> list[int]:
        """Of a prompt with one picture in front, as InstructBlipProcessor makes them: the beginning follows it."""
        image = self.metadata["instructblip.image.token_id"]
        return [image] * self.metadata["instructblip.qformer.query_count"] + self.tokenizer(text).input_ids

    def inputs(self, text: str, picture: np.ndarray) -> dict[str, Any]:
        import torch

        ids, words = torch.tensor([self.ids(text)]), torch.tensor([self.question(text).input_ids])
        return {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "qformer_input_ids": words,
            "qformer_attention_mask": torch.ones_like(words), "pixel_values": self.pixels(picture),
        }  # fmt: skip

    def encode(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def segments(self, text: str, picture: np.ndarray) -> list[tuple[str, object]]:
        return [("image", self.encode(picture)), ("text", text)]

    def rows(self, text: str, picture: np.ndarray) -> Any:
        """transformers' image rows."""
        import torch

        given = self.inputs(text, picture)
        names = ("pixel_values", "qformer_input_ids", "qformer_attention_mask")
        with torch.inference_mode():
            found = self.model.get_image_features(**{name: given[name] for name in names})
        return found.pooler_output[0] if hasattr(found, "pooler_output") else found[0]


@pytest.fixture(scope="module", params=[OWN, *presets()])
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("instructblip"), request.param)


def question(text: str) -> str:
    return f"Question: {text} Short answer:"


def values(embedding: _core.ImageEmbedding) -> np.ndarray:
    return np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)


def test_the_tower(pair: Pair) -> None:
    """What is kept of an image does not depend on the question: all of the tower's tokens, behind its last norm."""
    import torch

    for picture in pictures():
        with torch.inference_mode():
            expected = pair.model.vision_model(pair.pixels(picture)).last_hidden_state[0].numpy()
        assert far(values(pair.encode(picture)), expected) <= TOLERANCE


def test_image_rows(pair: Pair) -> None:
    """Of one encoded image with one question after the other."""
    for picture in pictures():
        image, seen = pair.encode(picture), set()
        for text in ("", *map(question, QUESTIONS), question(QUESTIONS[0])):
            found = values(pair.engine.read_image(image, text))
            assert far(found, pair.rows(text, picture).numpy()) <= TOLERANCE
            seen.add(found.tobytes())
        assert len(seen) == 4


def test_logits(pair: Pair) -> None:
    import torch

    for picture in pictures():
        for text in map(question, QUESTIONS):
            segments = pair.segments(text, picture)
            assert pair.engine.prompt_ids(segments) == pair.ids(text)
            with torch.inference_mode():
                expected = pair.model(**pair.inputs(text, picture)).logits[0].numpy()
            raw, rows, cols = pair.engine.logits(segments)
            found = np.frombuffer(raw, np.float32).reshape(rows, cols)
            assert far(found, expected[:, :cols]) <= TOLERANCE  # the embedding's last rows have no token


def test_several_images(pair: Pair) -> None:
    """Two pictures, each read with words of its own: by hand, for the processor takes one."""
    import torch

    first, second, _ = pictures()
    texts = [question(text) for text in QUESTIONS[:2]]
    segments = [*pair.segments(texts[0], first), *pair.segments(texts[1], second)]
    image = pair.metadata["instructblip.image.token_id"]
    ids = pair.engine.prompt_ids(segments)
    with torch.inference_mode():
        given = torch.tensor([ids])
        embedded = pair.model.get_input_embeddings()(given)
        rows = [pair.rows(text, picture) for text, picture in zip(texts, (first, second), strict=True)]
        embedded[given == image] = torch.cat(rows)
        expected = pair.model.language_model(inputs_embeds=embedded)
        expected = (expected.logits if hasattr(expected, "logits") else pair.model.lm_head(expected[0]))[0].numpy()
    raw, count, cols = pair.engine.logits(segments)
    assert far(np.frombuffer(raw, np.float32).reshape(count, cols), expected[:, :cols]) <= TOLERANCE


def test_answers(pair: Pair) -> None:
    """Greedy ids, token by token through the caches; never the placeholder or a row without a token. Where random
    weights repeat an id, the logits at each position are those of transformers, too."""
    import torch

    image, end = pair.metadata["instructblip.image.token_id"], pair.metadata["tokenizer.ggml.eos_token_id"]
    tokens = len(pair.metadata["tokenizer.ggml.tokens"])
    for picture in pictures():
        for text in QUESTIONS:
            inputs = pair.inputs(question(text), picture)
            size = inputs["input_ids"].shape[1]
            with torch.inference_mode():
                whole = pair.model.generate(
                    **inputs, do_sample=False, max_new_tokens=LENGTH, eos_token_id=end, pad_token_id=end,
                    suppress_tokens=[image, *range(tokens, pair.model.config.text_config.vocab_size)],
                )[0]  # fmt: skip
                expected = whole[size:].tolist()
                given = {**inputs, "input_ids": whole[None], "attention_mask": torch.ones_like(whole[None])}
                logits = pair.model(**given).logits[0].numpy()
            with load(pair.path, threads=1) as model:
                picked = model.ask(picture, text, max_tokens=LENGTH)
            assert picked.token_ids == expected
            raw, rows, cols = pair.engine.logits([*pair.segments(question(text), picture), ("ids", expected)])
            found = np.frombuffer(raw, np.float32).reshape(rows, cols)
            assert far(found[size - 1 :], logits[size - 1 :, :cols]) <= TOLERANCE
            assert len(expected) == LENGTH or expected[-1] == end


def test_any_text_has_the_ids_of_both_tokenizers(pair: Pair) -> None:
    """What spells a special token is one to transformers alone: a text never becomes it here."""
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][3:] if text.isascii()]
    specials = {*pair.tokenizer.added_tokens_encoder, *pair.question.added_tokens_encoder, "[DEC]"}
    texts = random_strings(pair.name, pieces + pair.metadata["instructblip.qformer.tokens"][5:], specials)
    first = pair.metadata["instructblip.begin_token_id"]
    found = pair.tokenizer(texts).input_ids
    wrong = [t for t, ids in zip(texts, found, strict=True) if [first, *pair.engine.tokenizer.encode(t)] != ids]
    assert wrong == []
    words = pair.metadata["instructblip.qformer.tokens"]
    begin, end, unknown = (pair.metadata[f"instructblip.qformer.{x}_token_id"] for x in ("begin", "end", "unknown"))
    types = [{begin: 3, end: 3, unknown: 2}.get(i, 1) for i in range(len(words))]
    tokenizer = _core.Tokenizer.word_piece(words, types, unknown)
    found = pair.question(texts).input_ids
    wrong = [t for t, ids in zip(texts, found, strict=True) if [begin, *tokenizer.encode(t), end] != ids]
    assert wrong == []


def test_what_begins_a_prompt(pair: Pair) -> None:
    """The published vocabulary calls </s> its beginning, and answers are worse behind <s>."""
    config = json.loads((pair.folder / "tokenizer_config.json").read_text())
    name = config["bos_token"]
    text = name["content"] if isinstance(name, dict) else name
    assert pair.metadata["instructblip.begin_token_id"] == pair.tokenizer.convert_tokens_to_ids(text)
    assert pair.engine.prompt_ids([("text", "a")])[0] == pair.tokenizer("a").input_ids[0]


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
