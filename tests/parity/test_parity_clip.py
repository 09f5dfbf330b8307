"""A converted CLIP checkpoint gives the vectors of CLIPModel of transformers, and the ids of CLIPTokenizer."""

import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bpe_vocabularies import random_texts, sentences
from helpers.tiny import make_picture
from helpers.words_bpe import WordsBpe
from models.clip_towers import NUMBERS, VISION, tensor_shapes, weights_of, write_clip

from kosmos_edge import load
from kosmos_edge.convert import convert

SMALL = (
    NUMBERS | {"embedding_length": 64, "feed_forward_length": 256, "block_count": 4, "attention.head_count": 2},
    VISION | {"image_size": 224, "patch_size": 32, "embedding_length": 96, "feed_forward_length": 384,
              "block_count": 5, "attention.head_count": 3, "projection_dim": 48},
)  # fmt: skip
TINY = (NUMBERS, VISION)
TEXTS = [
    "a cat", "A photo of two dogs in the snow, at 12:30!", "it's", "snow " * 75, "the man's red house " * 30, "é日本🙂",
]  # fmt: skip


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, sizes: tuple[dict, dict], seed: int, end: int | None) -> None:
        import transformers

        words = WordsBpe(sorted({w.lower() for line in sentences(3, 40) for w in line.split() if w.isascii()}))
        weights = weights_of(tensor_shapes(*sizes, len(words.pieces)), seed)
        old: dict[str, Any] = {} if end is None else {"eos_token_id": end}
        self.folder = write_clip(folder / "hf", weights, *sizes, words, **old)
        self.model, info = transformers.CLIPModel.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not info["missing_keys"] and not info["mismatched_keys"] and not info["unexpected_keys"]
        self.model.eval()
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(self.folder)
        self.ours = load(convert(self.folder, folder / "f32.gguf", type="f32").output, threads=1)


@pytest.fixture(
    scope="module",
    params=[(TINY, 1, None), (TINY, 2, 2), (SMALL, 3, None), (SMALL, 4, 2)],
    ids=["tiny", "tiny, old end", "small", "small, old end"],
)
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("clip"), *request.param)


def unit(x: Any) -> np.ndarray:
    x = x.numpy()
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_images_texts_and_logits(pair: Pair) -> None:
    """Texts padded to the longest and cut at 77; pictures of several shapes through CLIPImageProcessor."""
    import torch
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pictures = [make_picture(seed, *size) for seed, size in enumerate([(100, 80), (300, 420), (224, 224), (31, 57)])]
    processor = CLIPImageProcessorPil.from_pretrained(pair.folder)
    inputs = pair.tokenizer(TEXTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    assert inputs["input_ids"].shape == (len(TEXTS), 77)
    with torch.inference_mode():
        out = pair.model(pixel_values=processor(pictures, return_tensors="pt")["pixel_values"], **inputs)
    words, images = unit(out.text_embeds), unit(out.image_embeds)
    ours = np.asarray(pair.ours.embed_text(TEXTS, truncate=True)), np.asarray(pair.ours.embed_image(pictures))
    for expected, found in ((words, ours[0]), (images, ours[1])):
        assert (np.abs(found - expected).max(1) / np.abs(expected).max(1)).max() <= 1e-4
        assert np.abs(expected[0] - expected[1]).max() > 0.01
    answer = pair.ours.similarity(pictures, TEXTS, truncate=True)
    logits = out.logits_per_image.numpy()
    scale = pair.ours.model_info["similarity_scale"]
    assert (np.abs(scale * np.array(answer.cosines) - logits).max(1) / np.abs(logits).max(1)).max() <= 1e-4
    np.testing.assert_allclose(answer.probabilities, out.logits_per_image.softmax(1).numpy(), atol=1e-4)


def test_ids_of_random_texts(transformers_here: None, tmp_path: Path) -> None:
    """22,000 strings, and how texts are framed."""
    pair = Pair(tmp_path, SMALL, 5, None)
    tokenizer = pair.ours._open.engine.tokenizer
    readable = [tokenizer.text(i) for i in range(tokenizer.size) if tokenizer.type(i) == 1]
    rng = random.Random(6)
    pool = "aAbBéÉßẞΣσςİıÅÅ'’.,!? \t\n\u00a0\u3000  0129٣½中文🙂ﬃ\u0301\u0327ÑñДд'"
    texts = random_texts(readable, 14_000, seed=5)
    texts += ["".join(rng.choice(pool) for _ in range(rng.randint(1, 24))) for _ in range(10_000)]
    texts = [t for t in texts if "<|" not in t and all(unicodedata.category(c) != "Cn" for c in t)]
    assert len(texts) > 20_000
    expected = pair.tokenizer(texts, add_special_tokens=False)["input_ids"]
    wrong = [t for t, ids in zip(texts, expected, strict=True) if tokenizer.encode(t) != ids]
    assert wrong == []
    framed = pair.tokenizer("a cat")["input_ids"]
    assert framed == [pair.tokenizer.bos_token_id, *tokenizer.encode("a cat"), pair.tokenizer.eos_token_id]
