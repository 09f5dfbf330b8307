"""Converted MiniGPT-v2 checkpoints give the image rows and logits of a torch definition on the authors' files, whose
low-rank changes run beside the language model there, and whose positions torch resizes; MiniGPT-4 with LLaMA-2 those
without changes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, reference, write

from kosmos_edge import _core, load
from kosmos_edge.convert import convert, verify

LENGTH = 32
QUESTIONS = ("what is in the photo?", "How many bridges are there", "12:30 é 日本 🙂 don't")
IMAGE, RANK, ALPHA = -1, 8, 16
SIZES = {"tiny": (128, 256, 3), "small": (256, 512, 4)}


def draw(seed: int, *shape: int) -> Any:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / math.sqrt(shape[-1])


class Pair:
    """One of the random checkpoints of MiniGPT-4 without its Q-Former, whose images are twice as large."""

    def __init__(self, folder: Path, name: str, changed: bool) -> None:
        import sentencepiece
        import torch
        import transformers

        self.folder = write("minigpt4", name, folder / "hf")
        sizes = json.loads((self.folder / "sizes.json").read_text())
        self.eva = torch.load(self.folder / "eva_vit_g.pth", weights_only=True)
        self.text = json.loads((self.folder / "vicuna" / "config.json").read_text())
        (self.folder / "vicuna").rename(self.folder / "llama")
        for unused in ("blip2_pretrained_flant5xxl.pth", "pretrained_minigpt4_7b.pth"):
            (self.folder / unused).unlink()
        vision = dict(
            zip(("hidden_size", "intermediate_size", "num_hidden_layers"), SIZES[name.partition("-")[0]], strict=True)
        )
        self.heads, self.side = sizes["vit_heads"], 2 * sizes["image_size"]
        vision |= {"image_size": self.side, "num_attention_heads": self.heads}
        (self.folder / "config.json").write_text(json.dumps({"vision_config": vision, "lora_alpha": ALPHA}))
        width, features = self.text["hidden_size"], vision["hidden_size"]
        self.trained = {"llama_proj.weight": draw(1, width, 4 * features), "llama_proj.bias": draw(2, width)}
        if changed:
            lm = transformers.AutoModelForCausalLM.from_pretrained(self.folder / "llama")
            for number, (module, layer) in enumerate(lm.named_modules()):
                if module.endswith(("q_proj", "v_proj")):
                    at = f"llama_model.base_model.model.{module}.lora_"
                    self.trained[at + "A.default.weight"] = draw(3 + number, RANK, layer.in_features)
                    self.trained[at + "B.default.weight"] = draw(4 + number, layer.out_features, RANK)
        torch.save({"model": self.trained, "epoch": 49}, self.folder / "minigptv2_pair.pth")
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.engine = _core.Engine(str(self.path), threads=1)
        self.images = transformers.BlipImageProcessor(
            size={"height": self.side, "width": self.side},
            image_mean=[0.48145466, 0.4578275, 0.40821073],
            image_std=[0.26862954, 0.26130258, 0.27577711],
        )
        self.pieces = sentencepiece.SentencePieceProcessor(str(self.folder / "llama" / "tokenizer.model"))

    def rows(self, picture: np.ndarray) -> Any:
        """(rows, width), as the authors' encode_img and interpolate_pos_embed have it."""
        import torch
        from PIL import Image

        pixels = self.images(Image.fromarray(picture), return_tensors="pt").pixel_values
        table = self.eva["pos_embed"]
        old, new = math.isqrt(table.shape[1] - 1), self.side // self.eva["patch_embed.proj.weight"].shape[-1]
        grid = table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
        eva = {**self.eva, "pos_embed": torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)}
        x = reference().eva_vit(eva, pixels, self.heads)
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)[0, 1:]  # nobody trained this norm
        return reference().lin(self.trained, "llama_proj", x.reshape(len(x) // 4, -1))

    def language_model(self) -> Any:
        """With the low-rank changes beside their products."""
        import transformers

        lm = transformers.AutoModelForCausalLM.from_pretrained(self.folder / "llama").eval()
        for name, module in lm.named_modules():
            right = self.trained.get(f"llama_model.base_model.model.{name}.lora_A.default.weight")
            if right is not None:
                left = self.trained[f"llama_model.base_model.model.{name}.lora_B.default.weight"]

                def add(_: Any, given: Any, out: Any, left: Any = left, right: Any = right) -> Any:
                    return out + ALPHA / RANK * (given[0] @ right.T @ left.T)

                module.register_forward_hook(add)
        return lm

    def encode(self, picture: np.ndarray) -> _core.ImageEmbedding:
        height, width, _ = picture.shape
        return self.engine.encode_image(picture.tobytes(), width, height)

    def logits(self, ids: list[int], shown: list[np.ndarray]) -> np.ndarray:
        import torch

        lm = self.language_model()
        with torch.inference_mode():
            x = reference().splice(lm.get_input_embeddings(), ids, [self.rows(picture) for picture in shown])
            return lm(inputs_embeds=x).logits[0].numpy()


@pytest.fixture(scope="module", params=[(name, changed) for name in presets() for changed in (True, False)], ids=str)
def pair(request: Any, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name, changed = request.param
    if not changed and not name.endswith("-0"):
        pytest.skip("the variant without changes with one seed alone")
    return Pair(tmp_path_factory.mktemp("minigpt_v2"), name, changed)


def found_logits(pair: Pair, segments: list[tuple[str, object]]) -> np.ndarray:
    raw, rows, cols = pair.engine.logits(segments)
    return np.frombuffer(raw, np.float32).reshape(rows, cols)


def test_image_rows(pair: Pair) -> None:
    import torch

    for picture in pictures():
        with torch.inference_mode():
            expected = pair.rows(picture).numpy()
        image = pair.encode(picture)
        assert far(np.frombuffer(image.tobytes(), np.float32).reshape(image.shape), expected) <= TOLERANCE


def test_logits_of_a_question(pair: Pair) -> None:
    """Of the verb's own prompt, token by token as sentencepiece has it, and of what it answers at 32 positions more."""
    metadata = _core.GgufFile(str(pair.path)).metadata()
    system = metadata.get("minigpt_v2.prompt.system", "")
    for picture, question in zip(pictures(), QUESTIONS, strict=True):
        format_ = metadata["minigpt_v2.prompt.question"]
        before, behind = format_.replace("{question}", question).split("{image}")
        assert before.startswith("<s>")
        spell = pair.pieces.encode
        opened = [1, *(spell(system) if system else []), 1, *spell(before.removeprefix("<s>"))]
        ids = [*opened, IMAGE, *spell(behind)]
        rows = pair.encode(picture).shape[0]
        params = _core.GenerateParams()
        params.max_tokens = LENGTH
        segments = [("ids", opened[1:]), ("image", pair.encode(picture)), ("text", behind)]
        answer = pair.engine.generate(segments, params).token_ids
        with load(pair.path, threads=1) as model:
            asked = model.ask(picture, question, max_tokens=LENGTH, repetition_penalty=1)
        assert asked.timings.prompt_tokens == len(ids) - 1 + rows
        assert asked.token_ids == answer[: len(asked.token_ids)]
        expected = pair.logits([*ids, *answer], [picture])
        assert far(found_logits(pair, [*segments, ("ids", answer)]), expected) <= TOLERANCE
        best = expected[len(ids) - 2 + rows : -1].copy()
        best[:, metadata["minigpt_v2.image.token_id"]] = -np.inf
        assert best.argmax(-1).tolist() == answer


def test_several_images(pair: Pair) -> None:
    shown, texts = pictures()[:2], ["Give: ", " a cat. And: ", " a"]
    segments: list[tuple[str, object]] = [("text", texts[0])]
    ids = [1, *pair.pieces.encode(texts[0])]
    for picture, text in zip(shown, texts[1:], strict=True):
        segments += [("image", pair.encode(picture)), ("text", text)]
        ids += [IMAGE, *pair.pieces.encode(text)]
    assert far(found_logits(pair, segments), pair.logits(ids, shown)) <= TOLERANCE


def test_small_files_answer(pair: Pair, tmp_path: Path) -> None:
    path = convert(pair.folder, tmp_path / "q4.gguf", type="q4_k_m").output
    assert verify(path) == []
    with load(path, threads=1) as model:
        assert model.caption(pictures()[0], max_tokens=8).token_ids
