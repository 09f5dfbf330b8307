"""Pictures of one object each, as the features that the frozen ViT of the packaged nano gives them.

The ViT is read out of the GGUF file that ships, so nothing but this checkout is needed. Features are computed once.

    python -m incontext.bank --out RUN/bank --count 8000
    python -m incontext.bank --out RUN/valid --count 1500 --seed 910000000
"""

import argparse
import json
import os
import time

import numpy as np
import torch
from data import normalise
from model import VisionTransformer, vision_config
from world import TRAIN_SEED, squash

from incontext.pictures import index_by_kind, kind_of, paint, singles
from kosmos_edge import _core, hub
from kosmos_edge.convert.models import kosmos2


def read_tower(path=None):
    """-> (configuration of the ViT as model.CONFIG spells it, weights by published name) of a nano's GGUF file"""
    path = str(path or hub.nano_path())
    file, info = _core.GgufFile(path), _core.model_info(path)
    vision, heads = info["vision"], file.metadata()["clip.vision.attention.head_count"]
    config = {
        "image": vision["image_size"],
        "patch": vision["patch_size"],
        "vision_dim": vision["width"],
        "vision_heads": heads,
        "vision_ffn": vision["ff_width"],
        "vision_layers": vision["layers"],
    }
    stored = {name: (dtype, shape) for name, dtype, shape, *_ in file.tensors()}
    sizes = kosmos2.Config(
        vision_width=config["vision_dim"],
        vision_layers=config["vision_layers"],
        vision_ff_width=config["vision_ffn"],
        image_size=config["image"],
        patch_size=config["patch"],
    )
    weights = {}
    for source, name, _ in kosmos2.tensor_table(sizes):
        if source.startswith("vision_model."):
            dtype, shape = stored[name]
            floats = _core.dequantize(dtype, file.tensor_data(name), int(np.prod(shape)))
            weights[source] = torch.from_numpy(np.frombuffer(floats, np.float32).reshape(shape).copy())
    return config, weights


def tower(config, weights):
    """The ViT with these weights"""
    defaults = {"dim": config["vision_dim"], "heads": config["vision_heads"], "ffn": config["vision_ffn"]}
    vit = VisionTransformer(vision_config({**defaults, **config}))
    vit.load_state_dict({name.removeprefix("vision_model.model."): t for name, t in weights.items()})
    return vit.eval()


@torch.no_grad()
def build(out, count, seed=TRAIN_SEED, batch=64):
    """Folder `out`: features.npy (count, 1 + patches, D) float16, kinds.npy (count, 2), seeds.json"""
    os.makedirs(out, exist_ok=True)
    config, weights = read_tower()
    vit, kinds, seeds, features, scenes = tower(config, weights), [], [], None, singles(seed)
    start = time.time()
    for at in range(0, count, batch):
        part = [next(scenes) for _ in range(min(batch, count - at))]
        pixels = np.stack([np.asarray(squash(paint(s), config["image"])) for s in part])
        found = vit(normalise(pixels)).half().numpy()
        if features is None:
            path = os.path.join(out, "features.npy")
            features = np.lib.format.open_memmap(path, "w+", np.float16, (count, *found.shape[1:]))
        features[at : at + len(part)] = found
        kinds += [kind_of(s) for s in part]
        seeds += [s.seed for s in part]
    features.flush()
    np.save(os.path.join(out, "kinds.npy"), np.array(kinds, np.int64))
    with open(os.path.join(out, "seeds.json"), "w") as f:
        json.dump(seeds, f)
    print(f"{out}: {count} pictures of {len(set(kinds))} kinds in {time.time() - start:.0f} s", flush=True)


class Bank:
    """A folder of `build`; `by_kind` has the numbers of each kind's pictures"""

    def __init__(self, folder):
        self.features = np.load(os.path.join(folder, "features.npy"), mmap_mode="r")
        self.kinds = np.load(os.path.join(folder, "kinds.npy"))
        self.by_kind = index_by_kind(self.kinds.tolist())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--count", type=int, default=8000)
    ap.add_argument("--seed", type=int, default=TRAIN_SEED)
    a = ap.parse_args()
    torch.set_num_threads(int(os.environ.get("NANO_THREADS", "1")))
    build(a.out, a.count, a.seed)


if __name__ == "__main__":
    main()
