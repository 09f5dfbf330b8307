"""A converted LLaVA with SigLIP and Qwen2 gives the image rows, logits and ids of transformers'
LlavaForConditionalGeneration in float32, with one and with two images in the prompt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import PRESETS, random_strings
from helpers.llava_qwen2_checkpoint import ADDED, SIZES, random_state, write_hf

from kosmos_edge import _core, load
from kosmos_edge.convert import convert

LENGTH, SIZE = 40, SIZES["image"]
SLOTS = (SIZE // SIZES["patch"]) ** 2
QUESTIONS = ("ba keloo?", "steqing  minura\nth", "12:30 e\u0301 日本 🙂")  # one is not in form C
VARIANTS: dict[str, tuple[int, bool, dict[str, Any]]] = {  # seed, tied, changes
    "as published": (3, True, {"kv": 4, "text_config__num_key_value_heads": 4}),
    "shared KV heads and a head of its own": (4, False, {}),
    "an inner layer and another base": (5, True, {"vision_feature_layer": -2, "text_config__rope_theta": 10000.0}),
}


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, seed: int, tied: bool, changes: dict[str, Any]) -> None:
        import transformers
        from helpers.byte_bpe_vocabularies import chat_vocabulary

        pieces, merges = chat_vocabulary(ADDED)
        self.rows, self.image_id, self.tokens = len(pieces) + 24, pieces.index("<image>"), len(pieces)
        sizes = {key: value for key, value in changes.items() if key in SIZES}
        settings = {key: value for key, value in changes.items() if key not in SIZES}
        state = random_state(self.rows, seed, tied, **sizes)
        self.folder = write_hf(folder / "hf", pieces, merges, state, self.rows, tied, **settings)
        self.model, info = transformers.LlavaForConditionalGeneration.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not info["missing_keys"] and not info["mismatched_keys"] and not info["unexpected_keys"]
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)

    def inputs(self, prompt: str, pictures: list[np.ndarray]) -> dict[str, Any]:
        """Of a prompt with an <image> for each picture."""
        import torch

        ids = torch.tensor([self.tokenizer.encode(prompt.replace("<image>", "<image>" * SLOTS))])
        pixels = np.stack([((p.astype(np.float64) / 255 - 0.5) / 0.5).transpose(2, 0, 1) for p in pictures])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.tensor(pixels).float()}

    def turn(self, question: str) -> str:
        format = self.metadata["llava_qwen2.prompt.question"]
        return format.replace("{image}", "<image>").replace("{question}", question)

    def segments(self, prompt: str, pictures: list[np.ndarray]) -> list[tuple[str, object]]:
        first, *rest = prompt.split("<image>")
        out: list[tuple[str, object]] = [("tags", first)]
        for picture, text in zip(pictures, rest, strict=True):
            out += [("image", self.engine.encode_image(picture.tobytes(), SIZE, SIZE)), ("tags", text)]
        return out


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("llava_qwen2"), *VARIANTS[request.param])


def pictures() -> list[np.ndarray]:
    """Of the tower's size, so that nothing is resized."""
    rng = np.random.default_rng(5)
    steps = np.indices((SIZE, SIZE)).sum(0)[..., None] * np.array([3, 4, 2])
    return [rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), steps.astype(np.uint8)]


def test_image_rows(pair: Pair) -> None:
    import torch

    for picture in pictures():
        pixels = pair.inputs("<image>", [picture])["pixel_values"]
        with torch.inference_mode():
            expected = pair.model.get_image_features(
                pixel_values=pixels, vision_feature_layer=pair.model.config.vision_feature_layer,
                vision_feature_select_strategy="full",
            ).pooler_output[0].numpy()  # fmt: skip
        encoded = pair.engine.encode_image(picture.tobytes(), SIZE, SIZE)
        found = np.frombuffer(encoded.tobytes(), np.float32).reshape(encoded.shape)
        assert found.shape == expected.shape == (SLOTS, SIZES["width"])
        assert (np.abs(found - expected) / np.abs(expected).max(1, keepdims=True)).max() <= 1e-4


@pytest.mark.parametrize("count", [1, 2])
def test_logits(pair: Pair, count: int) -> None:
    import torch

    for question in QUESTIONS:
        several = "".join(f"<image>\npicture {i} " for i in range(count - 1))
        prompt = pair.turn(question).replace("<image>", several + "<image>")
        with torch.inference_mode():
            expected = pair.model(**pair.inputs(prompt, pictures()[:count])).logits[0].numpy()
        raw, rows, cols = pair.engine.logits(pair.segments(prompt, pictures()[:count]))
        found = np.frombuffer(raw, np.float32).reshape(rows, cols)
        assert rows == len(expected), "the prompt has other ids"
        largest = np.abs(expected).max(1, keepdims=True)
        assert (np.abs(found - expected[:, :cols]) / largest).max() <= 1e-4


def test_any_text_has_the_ids_of_the_tokenizer(transformers_here: None, tmp_path: Path) -> None:
    """80,000 strings; what spells a special token is one to transformers alone."""
    pair = Pair(tmp_path, 6, True, {})
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][: -len(ADDED)] if text.isascii()]
    for name in PRESETS:
        texts = random_strings(name, pieces, ADDED)
        found = pair.tokenizer(texts).input_ids
        wrong = [t for t, ids in zip(texts, found, strict=True) if pair.engine.tokenizer.encode(t) != ids]
        assert wrong == []


def test_answers(pair: Pair) -> None:
    """Greedy ids, token by token through the caches: of one picture, and after an example with another."""
    import torch

    seen: set[int] = set()
    banned = [pair.image_id, *range(pair.tokens, pair.rows)]
    first, second = pictures()
    with load(pair.path, threads=1) as model:
        for question in QUESTIONS:
            shot = f"{pair.turn('ba?')}keloo<|im_end|>{pair.turn(question)}"
            for prompt, shown, examples in (
                (pair.turn(question), [second], []),
                (shot, [first, second], [(first, "ba?", "keloo")]),
            ):
                inputs = pair.inputs(prompt, shown)
                with torch.inference_mode():
                    whole = pair.model.generate(
                        **inputs, do_sample=False, max_new_tokens=LENGTH, suppress_tokens=banned,
                        eos_token_id=pair.tokens - 2, pad_token_id=pair.tokens - 4,
                    )[0]  # fmt: skip
                expected = whole[inputs["input_ids"].shape[1] :].tolist()
                answer = model.ask(second, question, examples=examples, max_tokens=LENGTH)
                assert answer.timings.prompt_tokens == inputs["input_ids"].shape[1]
                assert answer.token_ids == expected[: len(answer.token_ids)]
                assert len(answer.token_ids) >= len(expected) - 1  # the end itself is no part of an answer
                seen.update(expected)
    assert len(seen) > 32
