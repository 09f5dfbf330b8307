"""A converted LLaVA checkpoint gives the ids and logits of transformers' LlavaForConditionalGeneration in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bpe_vocabularies import SpmBpe
from helpers.llava_checkpoint import SIZES, random_state, write_hf, write_own

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, requantize, verify

ROWS, LENGTH = 640, 40
QUESTIONS = ("ba keloo?", "steqing  minura\nth", "12:30 é 日本 🙂")
VARIANTS: dict[str, dict[str, Any]] = {
    "shared KV heads": {},
    "a KV head for each": {"kv": 4, "text_config__num_key_value_heads": 4},
    "three layers side by side": {"features": 3, "vision_feature_layer": [-1, 1, -2]},
    "other bases and layers": {
        "text_config__rope_theta": 500000.0, "text_config__rope_scaling": {"type": "linear", "factor": 2.0},
        "vision_feature_layer": -1, "text_config__rms_norm_eps": 1e-6,
    },
}  # fmt: skip


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, changes: dict[str, Any]) -> None:
        import transformers

        sizes = {key: value for key, value in changes.items() if key in SIZES}
        settings = {key: value for key, value in changes.items() if key not in SIZES}
        state = random_state(ROWS, seed=3, **sizes)
        self.folder = write_hf(folder / "hf", SpmBpe(), state, ROWS, **settings)
        self.model, info = transformers.LlavaForConditionalGeneration.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not info["missing_keys"] and not info["mismatched_keys"]
        assert not [key for key in info["unexpected_keys"] if "position_ids" not in key]
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)

    def ids(self, prompt: str) -> list[int]:
        """Of a prompt with one <image>, each of whose rows has a slot."""
        before, after = prompt.split("<image>")
        rows = (SIZES["image"] // SIZES["patch"]) ** 2
        return self.tokenizer.encode(before + "<image>" * rows + after)

    def inputs(self, prompt: str, picture: np.ndarray) -> dict[str, Any]:
        import torch

        mean, std = self.metadata["clip.vision.image_mean"], self.metadata["clip.vision.image_std"]
        pixels = ((picture.astype(np.float64) / 255 - mean) / std).transpose(2, 0, 1)[None]
        ids = torch.tensor([self.ids(prompt)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.tensor(pixels).float()}

    def prompt(self, question: str) -> str:
        turn = self.metadata["llava.prompt.question"].replace("{image}", "<image>").replace("{question}", question)
        return self.metadata["llava.prompt.system"] + turn

    def segments(self, prompt: str, picture: np.ndarray) -> list[tuple[str, object]]:
        before, after = prompt.split("<image>")
        size = SIZES["image"]
        return [("text", before), ("image", self.engine.encode_image(picture.tobytes(), size, size)), ("text", after)]


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("llava"), VARIANTS[request.param])


def pictures() -> list[np.ndarray]:
    """Of the tower's size, so that nothing is resized."""
    rng = np.random.default_rng(5)
    size = SIZES["image"]
    steps = np.indices((size, size)).sum(0)[..., None] * np.array([3, 4, 2])
    return [rng.integers(0, 256, (size, size, 3), np.uint8), steps.astype(np.uint8)]


def test_logits(pair: Pair) -> None:
    import torch

    for picture in pictures():
        for question in QUESTIONS:
            prompt = pair.prompt(question)
            with torch.inference_mode():
                expected = pair.model(**pair.inputs(prompt, picture)).logits[0].numpy()
            raw, rows, cols = pair.engine.logits(pair.segments(prompt, picture))
            found = np.frombuffer(raw, np.float32).reshape(rows, cols)
            assert rows == len(expected), "the prompt has other ids"
            largest = np.abs(expected).max(1, keepdims=True)
            assert (np.abs(found - expected[:, :cols]) / largest).max() <= 1e-4


def test_answers(pair: Pair) -> None:
    """Greedy ids, token by token through the caches; ids of neither placeholder nor padding."""
    import torch

    seen = set()
    with load(pair.path, threads=1) as model:
        for picture in pictures():
            for question in QUESTIONS:
                inputs = pair.inputs(pair.prompt(question), picture)
                with torch.inference_mode():
                    whole = pair.model.generate(
                        **inputs, do_sample=False, max_new_tokens=LENGTH,
                        suppress_tokens=[600, *range(602, ROWS)], pad_token_id=601,
                    )[0]  # fmt: skip
                expected = whole[inputs["input_ids"].shape[1] :].tolist()
                answer = model.ask(picture, question, max_tokens=LENGTH)
                assert answer.token_ids == expected[: len(answer.token_ids)]
                assert len(answer.token_ids) >= len(expected) - 1  # the end itself is no part of an answer
                seen.update(expected)
    assert len(seen) > 32


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"no_repeat_ngram_size": 2}], ids=str)
def test_answers_with_a_repetition_penalty(pair: Pair, how: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt and answer count; by beams it is log-probabilities that are penalised, so the rows that only pad the
    vocabulary, which the converted file has not, must not be among them in transformers either."""
    import torch

    tokens, head = 602, pair.model.get_output_embeddings()
    monkeypatch.setattr(head.weight, "data", head.weight.data[:tokens])
    monkeypatch.setattr(pair.model.config.text_config, "vocab_size", tokens)
    with load(pair.path, threads=1) as model:
        for picture, question in zip(pictures(), QUESTIONS, strict=False):
            inputs = pair.inputs(pair.prompt(question), picture)
            found = []
            for penalty in (1.0, 1.3):
                with torch.inference_mode():
                    whole = pair.model.generate(
                        **inputs, do_sample=False, max_new_tokens=16, repetition_penalty=penalty,
                        suppress_tokens=[600], pad_token_id=601, **how,
                    )[0]  # fmt: skip
                expected = whole[inputs["input_ids"].shape[1] :].tolist()
                answer = model.ask(picture, question, max_tokens=16, repetition_penalty=penalty, **how)
                assert answer.token_ids[: len(expected)] == expected[: len(answer.token_ids)]
                found.append(answer.token_ids)
            assert found[0] != found[1]


def test_small_files_load_and_answer(pair: Pair, tmp_path: Path) -> None:
    small = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    other = requantize(pair.path, tmp_path / "q8.gguf", type="q8_0").output
    for path in (small, other):
        assert verify(path) == []
        with load(path, threads=1) as model:
            assert model.caption(pictures()[0], max_tokens=8).token_ids
    pairs = [_core.Engine(str(path), threads=1) for path in (pair.path, other)]
    size = SIZES["image"]
    prompt = pair.prompt(QUESTIONS[0]).split("<image>")
    logits = []
    for engine in pairs:
        picture = engine.encode_image(pictures()[0].tobytes(), size, size)
        logits.append(
            np.frombuffer(engine.logits([("text", prompt[0]), ("image", picture), ("text", prompt[1])])[0], "f")
        )
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()


def test_the_first_versions_linear_projector(transformers_here: None, tmp_path: Path) -> None:
    """The authors' layout, with CLIP's tower in a folder, pictures of another shape, and a vocabulary without <image>.
    The reference is transformers' model with a linear projector in place of its own."""
    import torch
    import transformers
    from PIL import Image

    vocabulary = SpmBpe()
    rows = len(vocabulary.pieces)
    state = random_state(rows, seed=8, linear=True)
    path = convert(write_own(tmp_path / "own", vocabulary, state), tmp_path / "a.gguf", type="f32").output
    whole = state | {"multi_modal_projector.linear_2.weight": ((64, 64), bytes(4 * 64 * 64))}
    whole["multi_modal_projector.linear_2.bias"] = ((64,), bytes(4 * 64))
    folder = write_hf(tmp_path / "hf", vocabulary, whole, rows, added=(), image_token_index=0)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()
    values = [np.frombuffer(state[f"multi_modal_projector.linear_1.{kind}"][1], "f") for kind in ("weight", "bias")]
    linear = torch.nn.Linear(SIZES["vision"], SIZES["width"])
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(values[0].reshape(SIZES["width"], SIZES["vision"])))
        linear.bias.copy_(torch.tensor(values[1]))
    model.model.multi_modal_projector = linear

    picture = np.random.default_rng(6).integers(0, 256, (40, 61, 3), np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
    engine = _core.Engine(str(path), threads=1)
    before, after = "USER: ", "\nba keloo? ASSISTANT:"
    slots = (SIZES["image"] // SIZES["patch"]) ** 2
    encode = vocabulary.reference.encode
    ids = [1, *encode(before), *[0] * slots, *encode(after)]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0].numpy()
    encoded = engine.encode_image(picture.tobytes(), picture.shape[1], picture.shape[0])
    raw, count, cols = engine.logits([("text", before), ("image", encoded), ("text", after)])
    found = np.frombuffer(raw, np.float32).reshape(count, cols)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) / np.abs(expected).max(1, keepdims=True)).max() <= 1e-4
