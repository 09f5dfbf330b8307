"""A tiny model that reads the same lines on every page: it runs through the whole engine, so that what follows an
answer (streams, files, PDFs) can be tested on answers with lines, which random weights do not give.

Attention adds nothing, and the first layer's MLP is a table: it tells the last token and its position, and adds the
embedding of the token that comes next, large enough to be the likeliest. So the answer depends on the prompt's last
token alone, which asks for lines or for Markdown.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.tiny import Tiny, TinyConfig, TinyVocabulary, make_weight, write_tiny

A = "kosmos2_5"
WIDTH, FF, LATENTS, PATCHES, PATCH = 256, 256, 8, 64, 16
VISION, VISION_FF = 64, 64
CONTROL, TAG, NORMAL = 3, 4, 1
_PADDING = 1  # its id: positions are counted from the next one

# x1, y1, x2, y2 in pixels of the page as the model sees it, or None for text without a box; text
Boxed = tuple[tuple[int, int, int, int] | None, str]

_SHOWN = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that a byte-level BPE writes as themselves
_HIDDEN = [b for b in range(256) if b not in _SHOWN]
_PIECES = {b: chr(b) for b in _SHOWN} | {b: chr(256 + i) for i, b in enumerate(_HIDDEN)}
_TAGS = [
    "<ocr>", "<md>", "<image>", "</image>", "</chunk>", "<bbox>", "</bbox>",
    *(f"<{axis}_{i}>" for axis in "xy" for i in range(PATCHES * PATCH)),
]  # fmt: skip
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *(_PIECES[b] for b in range(256)), *_TAGS]
_IDS = {piece: index for index, piece in enumerate(VOCABULARY)}
_TYPES = [CONTROL] * 4 + [NORMAL] * 256 + [TAG] * len(_TAGS)


def ids_of_text(text: str) -> list[int]:
    """The ids of plain text, one per byte."""
    return [_IDS[_PIECES[b]] for b in text.encode()]


def ids_of_lines(lines: Sequence[Boxed]) -> list[int]:
    """The ids of the lines of a page."""
    ids: list[int] = []
    for box, text in lines:
        if box is not None:
            x1, y1, x2, y2 = box
            tags = ["<bbox>", f"<x_{x1}>", f"<y_{y1}>", f"<x_{x2}>", f"<y_{y2}>", "</bbox>"]
            ids += [_IDS[tag] for tag in tags]
        ids += ids_of_text(text)
    return ids


def reading_model(lines: Sequence[Boxed], markdown: str = "") -> Tiny:
    """The model that reads these lines, and this Markdown."""
    weights = {name: make_weight(name, shape, 0) for name, shape in _shapes().items()}
    recite(weights, 3 + LATENTS, {_IDS["<ocr>"]: ids_of_lines(lines), _IDS["<md>"]: ids_of_text(markdown)})
    return Tiny(TinyConfig(), TinyVocabulary(VOCABULARY, [], _TYPES), weights, _metadata())


def write_reader(path: Path, lines: Sequence[Boxed], markdown: str = "") -> Path:
    """reading_model as a file."""
    write_tiny(path, tiny=reading_model(lines, markdown))
    return path


def recite(weights: dict[str, np.ndarray], position: int, answers: dict[int, list[int]]) -> None:
    """Makes a decoder answer a prompt that ends with a token of `answers`, at this position, with its ids."""
    table = weights["token_embd.weight"]
    table[:] = np.random.default_rng(7).standard_normal(table.shape) * WIDTH**-0.5
    weights["segment_embd.weight"][:] = 0
    for name in ("blk.0.attn_output", "blk.0.ffn_up", "blk.0.ffn_down"):
        weights[f"{name}.weight"][:] = weights[f"{name}.bias"][:] = 0
    for name in ("blk.0.ffn_norm", "blk.0.ffn_sub_norm", "output_norm"):
        weights[f"{name}.weight"][:], weights[f"{name}.bias"][:] = 1, 0
    steps = {}  # (position, token there) -> the next token
    for last, ids in answers.items():
        for offset, (token, following) in enumerate(zip([last, *ids], [*ids, _IDS["</s>"]], strict=True)):
            assert steps.setdefault((position + offset, token), following) == following, "answers that meet and part"
    assert len(steps) <= FF
    seen = np.stack([WIDTH**0.5 * table[token] + _sinusoid(1 + _PADDING + place) for place, token in steps])
    directions = seen - seen.mean(1, keepdims=True)  # what the norm leaves, but for its length, which is WIDTH**0.5
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gap = 1 - np.max(directions @ directions.T - 2 * np.eye(len(steps)))
    assert gap > 1e-3, "two steps are too much alike"
    # Unit n tells step n: 10 where it is that one, and so far below 0 where it is not that GELU leaves nothing.
    weights["blk.0.ffn_up.weight"][: len(steps)] = directions * (20 / gap) * WIDTH**-0.5
    weights["blk.0.ffn_up.bias"][: len(steps)] = 10 - 20 / gap
    weights["blk.0.ffn_down.weight"][:, : len(steps)] = 10 * table[list(steps.values())].T


def _sinusoid(position: int) -> np.ndarray:
    half = WIDTH // 2
    angles = position * np.exp(-np.log(10000.0) / (half - 1) * np.arange(half))
    return np.concatenate([np.sin(angles), np.cos(angles)])


def _shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor, in file order."""
    d, v = WIDTH, VISION
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(VOCABULARY), d), "segment_embd.weight": (2, d)}

    def linear(name: str, rows: int, *columns: int) -> None:
        shapes[f"{name}.weight"] = (rows, *columns)
        shapes[f"{name}.bias"] = (rows,)

    linear("blk.0.attn_norm", d)
    for part in ("q", "k", "v", "output"):
        linear(f"blk.0.attn_{part}", d, d)
    linear("blk.0.ffn_norm", d)
    linear("blk.0.ffn_up", FF, d)
    linear("blk.0.ffn_sub_norm", FF)
    linear("blk.0.ffn_down", d, FF)
    linear("output_norm", d)
    linear("v.patch_embd", v, 3 * PATCH * PATCH)
    shapes |= {"v.row_embd.weight": (PATCHES, v), "v.col_embd.weight": (PATCHES, v), "v.blk.0.ln1.weight": (v,)}
    shapes |= {f"v.blk.0.attn_{part}.weight": (v, v) for part in ("q", "k", "v", "out")}
    shapes |= {"v.blk.0.ln2.weight": (v,), "v.blk.0.ffn_gate.weight": (VISION_FF, v)}
    shapes |= {"v.blk.0.ffn_up.weight": (VISION_FF, v), "v.blk.0.ffn_down.weight": (v, VISION_FF)}
    shapes |= {"v.post_ln.weight": (v,), "mm.latent_query": (LATENTS, d)}
    linear("mm.dense", d, v)
    for part in ("q", "k", "v", "out"):
        linear(f"mm.attn_{part}", d, d)
    return shapes


def _metadata() -> dict[str, tuple[str, object]]:
    return {
        "general.architecture": ("str", A),
        "general.name": ("str", "reciting"),
        "general.file_type": ("u32", 0),
        "general.quantization_version": ("u32", 2),
        "general.alignment": ("u32", 64),
        f"{A}.context_length": ("u32", 1024),
        f"{A}.embedding_length": ("u32", WIDTH),
        f"{A}.block_count": ("u32", 1),
        f"{A}.feed_forward_length": ("u32", FF),
        f"{A}.attention.head_count": ("u32", 4),
        f"{A}.attention.layer_norm_epsilon": ("f32", 1e-5),
        f"{A}.vocab_size": ("u32", len(VOCABULARY)),
        f"{A}.image_token_count": ("u32", LATENTS),
        f"{A}.first_slot_token_id": ("u32", 0),
        "clip.has_vision_encoder": ("bool", True),
        "clip.projector_type": ("str", A),
        "clip.vision.patch_size": ("u32", PATCH),
        f"{A}.vision.max_patches": ("u32", PATCHES),
        "clip.vision.embedding_length": ("u32", VISION),
        "clip.vision.feed_forward_length": ("u32", VISION_FF),
        "clip.vision.block_count": ("u32", 1),
        "clip.vision.projection_dim": ("u32", WIDTH),
        "clip.vision.attention.head_count": ("u32", 4),
        "clip.vision.attention.layer_norm_epsilon": ("f32", 1e-6),
        f"{A}.generation.max_new_tokens": ("u32", 512),
        f"{A}.generation.no_repeat_ngram_size": ("u32", 0),
        f"{A}.prompt.read": ("str", "<ocr>"),
        f"{A}.prompt.markdown": ("str", "<md>"),
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "dbrx"),
        "tokenizer.ggml.tokens": ("[str]", VOCABULARY),
        "tokenizer.ggml.token_type": ("[i32]", _TYPES),
        "tokenizer.ggml.merges": ("[str]", []),
        "tokenizer.ggml.bos_token_id": ("u32", 0),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.padding_token_id": ("u32", _PADDING),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.ggml.add_space_prefix": ("bool", False),
    }
