"""A converted IDEFICS checkpoint gives the ids, image rows and logits of transformers' IdeficsForVisionText2Text in
float32, with one to three images, neighbours among them, and none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, random_strings, write
from models.description import described
from models.idefics import ADDED

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 40
NONE: list[Any] = ["Question: what is it? Answer:"]
PROMPTS: dict[str, list[Any]] = {  # numbers are pictures
    "an image alone": [0],
    "a turn": ["User:", 1, "Describe this image.\nAssistant:"],
    "text before an example": [
        "Some text that sees nothing.\nUser:", 0, "What is it?\nAssistant: A cat.\nUser:", 1, "Andé 12:30?\nAssistant:",
    ],
    "neighbours share a mark": ["Two:", 0, 1, "and one more", 2, "what are these? Answer:"],
    "three in a row": [2, 1, 0, "Answer:"],
    "documents": ["A cat", 0, "is here.</s>Another text that sees no image.", 1, "A dog"],
    "an end behind the last image": [0, "a cat</s>unseen: 日本"],
    "no image": NONE,
}  # fmt: skip


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, name: str) -> None:
        import transformers

        self.name = name
        if name.startswith("own"):
            self.folder = described()["idefics"].write_checkpoint(folder / "hf")
            path = self.folder / "tokenizer_config.json"
            settings = json.loads(path.read_text())
            path.write_text(json.dumps(settings | {"legacy": "legacy" in name}))
        else:
            self.folder = write("idefics", name, folder / "hf")
        self.model, info = transformers.IdeficsForVisionText2Text.from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not any(info.values()), info
        self.model.eval()
        self.processor = transformers.IdeficsProcessor(
            transformers.IdeficsImageProcessor.from_pretrained(self.folder),
            transformers.AutoTokenizer.from_pretrained(self.folder),
        )
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)
        self.end = self.metadata["idefics.generation.end_token_id"]
        self.never = [self.metadata[f"idefics.image.{key}"] for key in ("token_id", "mark_token_id")]

    def inputs(self, prompt: list[Any]) -> dict[str, Any]:
        from PIL import Image

        parts = [Image.fromarray(pictures()[p]) if isinstance(p, int) else p for p in prompt]
        return dict(self.processor(text=[parts], return_tensors="pt", add_end_of_utterance_token=False))

    def segments(self, prompt: list[Any]) -> list[tuple[str, Any]]:
        """The same for the engine, to which no text is an end of a document."""
        found: list[tuple[str, Any]] = []
        for part in prompt:
            if isinstance(part, int):
                picture = pictures()[part]
                height, width, _ = picture.shape
                found.append(("image", self.engine.encode_image(picture.tobytes(), width, height)))
                continue
            for number, text in enumerate(part.split("</s>")):
                found += [("ids", [self.metadata["tokenizer.ggml.eos_token_id"]])] * (number > 0) + [("text", text)]
        return found

    def logits(self, segments: list[tuple[str, Any]]) -> np.ndarray:
        raw, rows, cols = self.engine.logits(segments)
        return np.frombuffer(raw, np.float32).reshape(rows, cols)


@pytest.fixture(scope="module", params=["own", "own, legacy blanks", *presets()])
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("idefics"), request.param)


def test_image_rows(pair: Pair) -> None:
    import torch

    for number in range(3):
        pixels = pair.inputs([number])["pixel_values"][0]
        with torch.inference_mode():
            seen = pair.model.model.vision_model(pixel_values=pixels).last_hidden_state
            rows = pair.model.model.perceiver_resampler(seen)[0].numpy()
        ((_, image),) = pair.segments([number])
        assert far(np.frombuffer(image.tobytes(), np.float32).reshape(image.shape), rows) <= TOLERANCE


@pytest.mark.parametrize("name", PROMPTS)
def test_logits(pair: Pair, name: str) -> None:
    import torch

    inputs, segments = pair.inputs(PROMPTS[name]), pair.segments(PROMPTS[name])
    assert pair.engine.prompt_ids(segments) == inputs["input_ids"][0].tolist()
    with torch.inference_mode():
        expected = pair.model(**inputs).logits[0].numpy()
    assert far(pair.logits(segments), expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["a turn", "text before an example", "neighbours share a mark", "no image"])
def test_answers(pair: Pair, name: str) -> None:
    """Greedy ids, token by token through the caches; never <image> and its mark. Where random weights repeat an id, the
    logits at each position are those of transformers, too."""
    import torch

    inputs, segments = pair.inputs(PROMPTS[name]), pair.segments(PROMPTS[name])
    size = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        whole = pair.model.generate(
            **inputs, do_sample=False, max_new_tokens=LENGTH, eos_token_id=pair.end, pad_token_id=0,
            suppress_tokens=pair.never,
        )[0]  # fmt: skip
        expected = whole[size:].tolist()
        mask = inputs["image_attention_mask"]
        longer = torch.cat([mask, mask[:, -1:].expand(-1, len(whole) - size, -1)], 1)  # as the last row sees
        logits = pair.model(
            input_ids=whole[None], pixel_values=inputs["pixel_values"], image_attention_mask=longer
        ).logits[0].numpy()  # fmt: skip
    params = _core.GenerateParams()
    params.max_tokens = LENGTH
    found = pair.engine.generate(segments, params).token_ids
    assert found == expected and (len(found) == LENGTH or found[-1] == pair.end)
    assert far(pair.logits([*segments, ("ids", expected)])[size - 1 :], logits[size - 1 :]) <= TOLERANCE


def test_the_verbs_prompts_are_the_processors(pair: Pair) -> None:
    """A chat of two turns, and examples: one text to the processor."""
    chat = "<end_of_utterance>" in pair.metadata["tokenizer.ggml.tokens"]
    with load(pair.path, threads=1) as model:
        images = pictures()
        if chat:
            prompt = [
                "User:", 0, "what?<end_of_utterance>\nAssistant: red<end_of_utterance>\nUser:", 1,
                "why?<end_of_utterance>\nAssistant:",
            ]  # fmt: skip
        else:
            prompt = [0, "Question: what? Answer: red\n", 1, "Question: why? Answer:"]
        result = model.ask(images[1], "why?", examples=[(images[0], "what?", "red")], max_tokens=3)
        inputs = pair.inputs(prompt)
        assert result.timings.prompt_tokens == inputs["input_ids"].shape[1]
        params = _core.GenerateParams()
        params.max_tokens = 3
        assert pair.engine.prompt_ids(_tagged(pair, prompt)) == inputs["input_ids"][0].tolist()
        assert result.token_ids == pair.engine.generate(_tagged(pair, prompt), params).token_ids


def _tagged(pair: Pair, prompt: list[Any]) -> list[tuple[str, Any]]:
    return [("tags", part) if kind == "text" else (kind, part) for kind, part in pair.segments(prompt)]


def test_any_text_has_the_ids_of_the_tokenizer(pair: Pair) -> None:
    """Behind <s>, which the processor writes as text."""
    special = ("<unk>", "<s>", "</s>", *ADDED)
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][259:-3] if text.isascii()]
    texts = [text for text in random_strings(pair.name, pieces, special, assigned=False) if text]
    found = pair.processor.tokenizer([f"<s>{text}" for text in texts], add_special_tokens=False).input_ids
    encode = pair.engine.tokenizer.encode
    wrong = [t for t, ids in zip(texts, found, strict=True) if [1, *encode(t, at_start=False)] != ids]
    assert wrong == []


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
