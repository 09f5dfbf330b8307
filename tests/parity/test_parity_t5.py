"""Converted BLIP-2 and InstructBLIP checkpoints with Flan-T5 give the ids, image rows and logits of transformers in
float32; texts have the ids of T5's tokenizer and of the sentencepiece library."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, random_strings, write
from models.description import described

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 36
QUESTIONS = ("what is in the photo?", "How many\nbridges  are there", "12:30 é 日本 🙂 don't " + "and why? " * 40)
CLASSES = {"blip2_t5": "Blip2ForConditionalGeneration", "instructblip_t5": "InstructBlipForConditionalGeneration"}
MADE = {"blip2_t5": ("tiny-0", "small-1"), "instructblip_t5": ("tiny-1",)}
PAIRS = [(family, name) for family in CLASSES for name in ("own", *presets()) if name in ("own", *MADE[family])]


def soften(folder: Path) -> Path:
    """T5 draws its queries smaller by the root of a head's width, for its scores have no scale. With others, as the
    script draws them, rounding grows until float32 is further from float64 than what is compared here."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    width = json.loads((folder / "config.json").read_text())["text_config"]["d_kv"]
    weights = {
        name: tensor * width**-0.5 if name.startswith("language_model.") and name.endswith(".q.weight") else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    return folder


class Pair:
    """The same random checkpoint in transformers and converted."""

    def __init__(self, folder: Path, family: str, name: str) -> None:
        import transformers

        self.family, self.name = family, name
        own = name == "own"
        made = described()[family].write_checkpoint if own else lambda at: soften(write(family, name, at))
        self.folder = made(folder / "hf")
        self.model, info = getattr(transformers, CLASSES[family]).from_pretrained(
            self.folder, dtype="float32", output_loading_info=True
        )
        assert not any(info.values()), info
        self.model.eval()
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.engine = _core.Engine(str(self.path), threads=1)
        self.images = transformers.AutoImageProcessor.from_pretrained(self.folder)
        self.tokenizer = None if own else transformers.AutoTokenizer.from_pretrained(self.folder)
        reads = self.folder / "qformer_tokenizer"
        self.question = transformers.AutoTokenizer.from_pretrained(reads) if reads.exists() else None

    def pixels(self, picture: np.ndarray) -> Any:
        from PIL import Image

        return self.images(Image.fromarray(picture), return_tensors="pt").pixel_values

    def ids(self, text: str) -> list[int]:
        """Of a prompt with one picture in front, as the processors make them."""
        image = self.metadata[f"{self.family}.image.token_id"]
        encoded = self.tokenizer(text).input_ids if self.tokenizer else [*self.engine.tokenizer.encode(text), 1]
        return [image] * self.metadata[f"{self.family}.qformer.query_count"] + encoded

    def inputs(self, text: str, picture: np.ndarray) -> dict[str, Any]:
        import torch

        ids = torch.tensor([self.ids(text)])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": self.pixels(picture)}
        if self.question is None:
            return given
        words = torch.tensor([self.question(text).input_ids])
        return {**given, "qformer_input_ids": words, "qformer_attention_mask": torch.ones_like(words)}

    def rows(self, text: str, picture: np.ndarray) -> np.ndarray:
        """transformers' image rows."""
        import torch

        names = ("pixel_values", "qformer_input_ids", "qformer_attention_mask")
        given = {name: value for name, value in self.inputs(text, picture).items() if name in names}
        with torch.inference_mode():
            found = self.model.get_image_features(**given)
        found = found.pooler_output if hasattr(found, "pooler_output") else found[0]
        return found.reshape(-1, found.shape[-1]).numpy()

    def segments(self, text: str, picture: np.ndarray) -> list[tuple[str, object]]:
        height, width, _ = picture.shape
        return [("image", self.engine.encode_image(picture.tobytes(), width, height)), ("text", text)]

    def logits(self, segments: list[tuple[str, object]], answer: list[int]) -> np.ndarray:
        raw, rows, cols = self.engine.logits(segments, answer)
        return np.frombuffer(raw, np.float32).reshape(rows, cols)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("t5"), *request.param)


def question(text: str) -> str:
    return f"Question: {text} " + "Answer:"


def test_image_rows(pair: Pair) -> None:
    for picture in pictures():
        (_, image), _ = pair.segments("", picture)
        if pair.question is not None:
            image = pair.engine.read_image(image, question(QUESTIONS[0]))
        found = np.frombuffer(image.tobytes(), np.float32).reshape(image.shape)
        assert far(found, pair.rows(question(QUESTIONS[0]), picture)) <= TOLERANCE


def test_answers(pair: Pair) -> None:
    """Greedy ids, token by token through the caches; never the placeholder or a row without a token. The logits at each
    position are those of transformers, too: random weights may repeat an id. The last question is longer than the
    distances that have a bucket of their own."""
    import torch

    image, end = pair.metadata[f"{pair.family}.image.token_id"], pair.metadata["tokenizer.ggml.eos_token_id"]
    tokens = len(pair.metadata["tokenizer.ggml.tokens"])
    questions = QUESTIONS[:2] if pair.name == "own" and pair.question else QUESTIONS  # its Q-Former reads few words
    for picture, text in zip([*pictures(), pictures()[0]], ["", *map(question, questions)], strict=False):
        inputs, segments = pair.inputs(text, picture), pair.segments(text, picture)
        assert pair.engine.prompt_ids(segments) == inputs["input_ids"][0].tolist()
        with torch.inference_mode():
            whole = pair.model.generate(
                **inputs, do_sample=False, max_new_tokens=LENGTH, eos_token_id=end, pad_token_id=0,
                suppress_tokens=[image, *range(tokens, pair.model.config.text_config.vocab_size)],
            )[0]  # fmt: skip
            expected = pair.model(**inputs, decoder_input_ids=whole[None]).logits[0].numpy()
        assert whole[0] == 0
        params = _core.GenerateParams()
        params.max_tokens = LENGTH
        assert pair.engine.generate(segments, params).token_ids == whole[1:].tolist()
        found = pair.logits(segments, whole[1:].tolist())
        assert far(found, expected[:, : found.shape[1]]) <= TOLERANCE  # the last rows have no token
        assert len(whole) == LENGTH + 1 or whole[-1] == end
    assert inputs["input_ids"].shape[1] > 128 + 32 or questions != QUESTIONS


def test_several_images(pair: Pair) -> None:
    """Two pictures, each with words of its own: by hand, for the processor takes one."""
    import torch

    first, second, _ = pictures()
    texts = [question(text) for text in QUESTIONS[:2]]
    segments = [*pair.segments(texts[0], first), *pair.segments(texts[1], second)]
    one, other = (pair.ids(text) for text in texts)
    ids = [*one[:-1], *other]  # one end
    assert pair.engine.prompt_ids(segments) == ids
    answer = [5, 9, 4, 30]
    with torch.inference_mode():
        given = torch.tensor([ids])
        embedded = pair.model.get_input_embeddings()(given)
        rows = [torch.tensor(pair.rows(text, picture)) for text, picture in zip(texts, (first, second), strict=True)]
        embedded[given == pair.metadata[f"{pair.family}.image.token_id"]] = torch.cat(rows)
        start = torch.tensor([[0, *answer]])
        expected = pair.model.language_model(inputs_embeds=embedded, decoder_input_ids=start).logits[0].numpy()
    found = pair.logits(segments, answer)
    assert far(found, expected[:, : found.shape[1]]) <= TOLERANCE


def test_beams(pair: Pair) -> None:
    import torch

    if pair.name != "own":
        pytest.skip("rows that only pad the vocabulary weigh in transformers' probabilities")

    image, end = pair.metadata[f"{pair.family}.image.token_id"], pair.metadata["tokenizer.ggml.eos_token_id"]
    tokens = len(pair.metadata["tokenizer.ggml.tokens"])
    picture, text = pictures()[1], question(QUESTIONS[0])
    with torch.inference_mode():
        whole = pair.model.generate(
            **pair.inputs(text, picture), do_sample=False, num_beams=3, max_new_tokens=8, eos_token_id=end,
            suppress_tokens=[image, *range(tokens, pair.model.config.text_config.vocab_size)], pad_token_id=0,
        )[0]  # fmt: skip
    params = _core.GenerateParams()
    params.max_tokens, params.num_beams = 8, 3
    assert pair.engine.generate(pair.segments(text, picture), params).token_ids == whole[1:].tolist()


def test_any_text_has_the_ids_of_the_tokenizer(pair: Pair) -> None:
    """Those of the sentencepiece library, with which T5 was trained; transformers sums scores in float64, so ways that
    are equal in float32 may be others there. What spells a special token is one to transformers alone."""
    import sentencepiece

    if pair.name == "own" or pair.family != "blip2_t5":
        pytest.skip("its tokenizer is no trained one, or that of the others")
    library = sentencepiece.SentencePieceProcessor(model_file=str(pair.folder / "spiece.model"))
    pieces = [text for text in pair.metadata["tokenizer.ggml.tokens"][3:-101] if text.isascii()]
    texts = random_strings(pair.name, pieces, set(pair.tokenizer.added_tokens_encoder))
    ours = [pair.engine.tokenizer.encode(text) for text in texts]
    wrong = [t for t, ids, mine in zip(texts, library.encode(texts), ours, strict=True) if ids != mine]
    assert wrong == []


def test_both_files_of_a_vocabulary_give_the_same(pair: Pair, tmp_path: Path) -> None:
    """tokenizer.json, and spiece.model with the settings beside it."""
    if pair.name == "own":
        pytest.skip("it has no spiece.model")
    other = tmp_path / "hf"
    other.mkdir()
    for file in pair.folder.iterdir():
        if file.name != "tokenizer.json":
            shutil.copytree(file, other / file.name) if file.is_dir() else os.link(file, other / file.name)
    image = pair.metadata[f"{pair.family}.image.token_id"]
    (other / "added_tokens.json").write_text(json.dumps({"<image>": image}))
    (other / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<image>"]}))
    again = convert(other, tmp_path / "f32.gguf", type="f32").output
    metadata = _core.GgufFile(str(again)).metadata()
    for key, value in pair.metadata.items():
        if key.startswith("tokenizer."):
            assert metadata[key] == value, key


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
