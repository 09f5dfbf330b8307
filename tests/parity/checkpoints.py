"""The checkpoints that live parity runs on, each loaded in transformers and converted for the engine.

Always: two tiny ones of our own (`tiny_hf.py`), and nano as it is shipped. Where ../shared is: random ones with the
published tokenizer (its spec/make_checkpoint.py; presets tiny and small) and photographs.
"""

import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import numpy as np
from helpers.golden_cases import SIZES
from helpers.tiny import Tiny, TinyConfig, TinyVocabulary, make_picture, make_tiny
from helpers.tiny_hf import hf_name, write_hf_folder

import kosmos_edge
from kosmos_edge import _core, convert

SHARED = Path(__file__).resolve().parents[3] / "shared"
PHOTOGRAPHS = SHARED / "data" / "kosmos-2" / "images"
OWN = {
    "own": (21, TinyConfig(image_size=112)),
    "own, few latents": (
        22,
        TinyConfig(layers=3, width=192, ff_width=320, heads=6, latents=16, vision_width=128, vision_ff_width=160,
                   vision_heads=2, vision_layers=3, image_size=70, patch_size=10),
    ),
}  # fmt: skip
RANDOM = {"tiny-0": ("tiny", 0), "tiny-1": ("tiny", 1), "small-0": ("small", 0)}


def nano_file() -> Path | None:
    """The small trained model inside the package."""
    return next(iter(sorted(Path(kosmos_edge.__file__).parent.rglob("*nano*.gguf"))), None)


def available() -> list[str]:
    """Names of the checkpoints that can be made here."""
    names = list(OWN)
    if nano_file():
        names.append("nano")
    return names + list(RANDOM) if (SHARED / "spec" / "make_checkpoint.py").exists() else names


def read_gguf(path: Path) -> Tiny:
    """Any model file of ours as a `Tiny`: weights decoded to float32, so that it can be written in HF layout."""
    from helpers.reference import Reference

    ref = Reference.from_gguf(str(path))
    m = ref.metadata
    vision, text = "clip.vision.", "kosmos2."
    config = TinyConfig(
        layers=m[text + "block_count"],
        width=m[text + "embedding_length"],
        ff_width=m[text + "feed_forward_length"],
        heads=m[text + "attention.head_count"],
        context=m[text + "context_length"],
        latents=m[text + "image_token_count"],
        vision_layers=m[vision + "block_count"],
        vision_width=m[vision + "embedding_length"],
        vision_ff_width=m[vision + "feed_forward_length"],
        vision_heads=m[vision + "attention.head_count"],
        image_size=m[vision + "image_size"],
        patch_size=m[vision + "patch_size"],
        no_repeat_ngram_size=m[text + "generation.no_repeat_ngram_size"],
        eps=m[text + "attention.layer_norm_epsilon"],
        mean=tuple(m[vision + "image_mean"]),
        std=tuple(m[vision + "image_std"]),
    )
    tokenizer = "tokenizer.ggml."
    vocabulary = TinyVocabulary(
        m[tokenizer + "tokens"], m[tokenizer + "scores"], m[tokenizer + "token_type"],
        bytes(m[tokenizer + "precompiled_charsmap"]),
    )  # fmt: skip
    return Tiny(config, vocabulary, ref.weights, {k: ("", v) for k, v in m.items()})


class Checkpoint:
    """One checkpoint: folder, pictures, transformers' model, our files and engines. Made on first use."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.work, self.folder = name, work, work / "hf"
        if name in OWN:
            write_hf_folder(self.folder, make_tiny(*OWN[name]))
        elif name == "nano":
            write_hf_folder(self.folder, read_gguf(nano_file()))
        else:
            preset, seed = RANDOM[name]
            script = [sys.executable, str(SHARED / "spec" / "make_checkpoint.py"), "--preset", preset]
            subprocess.run([*script, "--seed", str(seed), "--out", str(self.folder)], check=True, capture_output=True)

    def close(self) -> None:
        """Delete all files."""
        shutil.rmtree(self.work)

    @cached_property
    def hf(self):  # its type is in a module that needs torch
        """Transformers' model and processor."""
        from helpers.hf_model import HfModel

        return HfModel(self.folder)

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """At least five pictures, (height, width, 3) uint8; photographs for the published tokenizer's checkpoints."""
        if self.name not in RANDOM:
            return [make_picture(200 + i, *size) for i, size in enumerate(SIZES)]
        from PIL import Image

        return [np.asarray(Image.open(p).convert("RGB")) for p in sorted(PHOTOGRAPHS.iterdir())]

    def file(self, type: str) -> Path:
        """The checkpoint converted by our converter."""
        path = self.work / f"{type}.gguf"
        if not path.exists():
            convert.convert(self.folder, path, type=type)
        return path

    @cached_property
    def engine(self) -> _core.Engine:
        """The engine on the float32 file."""
        return _core.Engine(str(self.file("f32")))

    def half(self):
        """An engine on the float16 file, and transformers in float32 on that file's weights (matrices rounded)."""
        import torch
        from helpers.hf_model import HfModel

        path = self.file("f16")
        hf = HfModel(self.folder)
        state = {hf_name(n): torch.from_numpy(w.copy()) for n, w in read_gguf(path).weights.items()}
        state["text_model.lm_head.weight"] = state["text_model.model.embed_tokens.weight"]
        hf.model.load_state_dict(state, strict=True)
        return _core.Engine(str(path)), hf


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    """Encode an RGB array."""
    height, width, _ = picture.shape
    return engine.encode_image(np.ascontiguousarray(picture), width, height)


def as_array(embedding: _core.ImageEmbedding) -> np.ndarray:
    """(image tokens, width) float32."""
    return np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)


def logits_of(engine: _core.Engine, segments: list[tuple[str, object]]) -> np.ndarray:
    """Logits of every position, (positions, vocab)."""
    data, rows, vocab = engine.logits(segments)
    return np.frombuffer(data, np.float32).reshape(rows, vocab)
