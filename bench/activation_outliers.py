"""What int8 activations cost where activations have outliers, at the real widths, with random weights.

    python bench/activation_outliers.py [--layers 4] [--text-layers 2] [--types q8_0,q4_k_m] [--ratio 100] [--units]

A model of the published widths (ViT 1024/4096, 257 tokens; decoder 2048/8192) with few layers gets the outliers that
tests/helpers/outliers.py describes. It is stored in each type by the converter's recipe and computed twice from
the same decoded weights: in float32, and with the engine's quantized kernels. Printed are cosines: of the residual
stream after every layer, with all errors before it, and of every matrix alone, the worst three. Needs numpy and gguf.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from helpers.outliers import Difference, matrices, plant, run_both, streams  # noqa: E402
from helpers.tiny import Tiny, TinyConfig, make_picture, make_tiny, write_tiny  # noqa: E402

from kosmos_edge.convert import requantize  # noqa: E402
from kosmos_edge.targets import find_target, write_whole  # noqa: E402


def make(args: argparse.Namespace) -> tuple[Tiny, np.ndarray, list[int]]:
    """The model before planting, a picture, a text of 40 tokens."""
    config = TinyConfig(
        layers=args.text_layers,
        width=2048,
        ff_width=8192,
        heads=32,
        vision_layers=args.layers,
        vision_width=1024,
        vision_ff_width=4096,
        vision_heads=16,
        image_size=224,
        patch_size=14,
    )
    return make_tiny(args.seed, config), make_picture(args.seed, 320, 240), list(range(20, 60))


def line(d: Difference) -> str:
    return f"  {d.place:16} {d.whole:.6f}  {d.least:.6f}  {d.bulk:.6f}  {d.outlier:8.0f}"


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--layers", type=int, default=4, help="of the ViT")
    ap.add_argument("--text-layers", type=int, default=2)
    ap.add_argument("--types", default="q8_0,q4_k_m")
    ap.add_argument("--ratio", type=float, default=100.0, help="of the outlier channels to the rest; 0: none")
    ap.add_argument("--units", action="store_true", help="hidden units that are large at every token, too")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    target = find_target(args.json, overwrite=True) if args.json else None  # refused now, not after the work
    tiny, rgb, ids = make(args)
    vision = text = np.array([], int)
    if args.ratio:
        planted = plant(tiny.metadata, tiny.weights, rgb, ids, args.ratio, args.units)
        tiny.weights.update(planted.weights)
        vision, text = planted.vision, planted.text
        del planted
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="kosmos-edge-outliers-") as folder:
        whole = Path(folder) / "f32.gguf"
        write_tiny(whole, tiny=tiny)
        tiny.weights.clear()
        for type_ in args.types.split(","):
            path = Path(folder) / f"{type_}.gguf"
            requantize(whole, path, type=type_)
            exact, other = run_both(str(path), rgb, ids)
            path.unlink()
            for part, channels in (("ViT", vision), ("decoder", text)):
                behind = streams(exact, other, part == "ViT", channels)
                alone = matrices(exact, other, part == "ViT", channels)
                print(f"{type_}, {part}: place, cosine of all, of the worst token, without planted channels, outlier")
                print("\n".join(map(line, behind)))
                print("  each matrix alone, the worst three:")
                print("\n".join(map(line, sorted(alone, key=lambda d: d.bulk)[:3])), flush=True)
                rows += [{"type": type_, "kind": "stream", **vars(d)} for d in behind]
                rows += [{"type": type_, "kind": "matrix", **vars(d)} for d in alone]
    if target is not None:
        write_whole(target, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
