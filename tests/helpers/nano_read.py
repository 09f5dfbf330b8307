"""nano-read's recipe in small: its world with a few words and Pillow's own font, and a tiny model."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "nano"))

from read.batches import World
from read.paint import MAX_PATCHES

WORDS = ["apple", "Bread", "milk", "Paper's", "quick", "zebra", "window", "oxygen", "jump", "very", "long", "Total"]
TINY = {
    "vision_dim": 64,
    "vision_heads": 2,
    "vision_ffn": 64,
    "vision_layers": 2,
    "dim": 128,
    "heads": 4,
    "ffn": 64,
    "layers": 2,
    "max_patches": MAX_PATCHES,
}


def small_world():
    return World("train", fallback=WORDS)
