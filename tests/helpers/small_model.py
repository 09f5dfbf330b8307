"""The smallest complete KOSMOS-2 file (about 40 KB), for tests that load thousands of variants of it.

Its numbers are random: answers mean nothing, but every part of the engine runs.
"""

from helpers.tiny import (
    TAGS,
    GgufContent,
    StoredTensor,
    TinyConfig,
    TinyVocabulary,
    make_metadata,
    make_weights,
)

CONFIG = TinyConfig(
    layers=1, width=16, ff_width=16, heads=2, context=64, latents=4, vision_layers=1, vision_width=16,
    vision_ff_width=16, vision_heads=2, image_size=28, patch_size=14, max_new_tokens=8,
)  # fmt: skip
BINS = 2


def small_vocabulary() -> TinyVocabulary:
    """Forty pieces and a grid of 2 x 2 location tokens."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", ".", "▁a", "▁An", "▁image", "▁of", "▁", "s", "n", "e", "é", "中"]
    cells = [f"<patch_index_{i:04d}>" for i in range(BINS * BINS)]
    count = len(pieces)
    types = [3, 3, 3, 2] + [1] * (count - 4) + [5] + [4] * (len(TAGS) + len(cells))
    scores = [0.0] * 4 + [-3.0 - 0.25 * i for i in range(count - 4)] + [0.0] * (1 + len(TAGS) + len(cells))
    return TinyVocabulary([*pieces, "<mask>", *TAGS, *cells], scores, types)


def small_model() -> GgufContent:
    """The valid file's content, for a test to change and `write_gguf` to write."""
    vocabulary = small_vocabulary()
    content = GgufContent(make_metadata(CONFIG, vocabulary))
    content.metadata["kosmos2.location_bins"] = ("u32", BINS)
    for name, array in make_weights(CONFIG, len(vocabulary.pieces), 0).items():
        content.tensors[name] = StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
    return content
