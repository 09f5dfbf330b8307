"""Stage A: the ViT alone, taught by dense heads to say at every patch what object covers it and where that ends.

Placing boxes comes early and by itself; naming small shapes is the slow part and what limits the finished model,
so this stage goes on until about nine objects in ten are named right on scenes never trained on.

    python stage_a.py --run RUN --steps 3000              # resumes RUN/stage_a.pt if it is there
"""

import argparse
import os
import time

import numpy as np
import torch
from boxes import BINS, iou
from common import Log, batch_at, load, one_thread, save
from data import Batch, Pool, normalise
from model import DenseHeads, Nano
from optimiser import Optimiser, schedule


@torch.no_grad()
def evaluate(model, heads, pool, count=500, size=100):
    """Share of objects named right (scores summed over an object's patches), box IoU, picture heads"""
    hit = {"shape": [], "color": [], "name": [], "iou": [], "count": [], "kind": [], "tone": []}
    by_size = {"under 32 px": [], "32 px and more": []}
    for start in range(0, count, size):
        batch = Batch(pool, range(start, start + size))
        patch, picture = heads(model.features(normalise(batch.images)))
        labels = batch.labels()
        for k in picture:
            hit[k] += (picture[k].argmax(-1) == labels[k]).tolist()
        edges = patch["box"].unflatten(-1, (4, BINS)).softmax(-1) @ ((torch.arange(BINS) + 0.5) / BINS)
        for b in range(size):
            for i, (shape, color, box) in enumerate(batch.objects(b)):
                own = torch.from_numpy(batch.owner[b] == i + 1)
                s = int(patch["shape"][b][own].log_softmax(-1).sum(0).argmax()) == shape
                c = int(patch["color"][b][own].log_softmax(-1).sum(0).argmax()) == color
                hit["shape"].append(s)
                hit["color"].append(c)
                hit["name"].append(s and c)
                hit["iou"].append(iou(edges[b][own].mean(0).tolist(), box.tolist()))
                side = max(box[2] - box[0], box[3] - box[1]) * 112
                by_size["under 32 px" if side < 32 else "32 px and more"].append(s and c)
    return {k: round(float(np.mean(v)), 3) for k, v in {**hit, **by_size}.items()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, help="folder with pool/ and valid/; checkpoints and logs go here")
    ap.add_argument("--steps", type=int, default=3000)
    ap.add_argument("--fall", type=int, default=900, help="steps over which the rate falls to nothing at the end")
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--every", type=int, default=200, help="steps between evaluations and checkpoints")
    ap.add_argument("--compile", action="store_true", help="torch.compile the ViT (wants a C++ compiler)")
    ap.add_argument("--bf16", action="store_true", help="the ViT's arithmetic in bfloat16 (weights stay float32)")
    a = ap.parse_args()
    one_thread(a.seed)
    pool, valid = Pool(os.path.join(a.run, "pool")), Pool(os.path.join(a.run, "valid"))
    model = Nano(vocabulary=8, image_open=4, image_close=5)  # only the ViT is used and kept
    heads = DenseHeads(model.config["dim"])
    named = [*model.vision_model.named_parameters(), *heads.named_parameters()]
    optimiser = Optimiser([(named, 1.0)])
    log = Log(os.path.join(a.run, "stage_a.jsonl"))
    path = os.path.join(a.run, "stage_a.pt")
    step, seconds = 0, 0.0
    if os.path.exists(path):
        state = load(path)
        model.vision_model.load_state_dict(state["vision"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]

    features_of = torch.compile(model.vision_model.model) if a.compile else model.features
    while step < a.steps:
        begin = time.time()
        batch = batch_at(pool, step, a.batch, a.seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            features = features_of(normalise(batch.images))
        loss, parts = heads.loss(features.float(), batch.labels())
        loss.backward()
        optimiser.step(schedule(step, a.steps, a.fall))
        step += 1
        seconds += time.time() - begin
        if step % 50 == 0:
            log(step=step, seconds=round(seconds), loss={k: round(v, 3) for k, v in parts.items()})
        if step % a.every == 0 or step == a.steps:
            log(step=step, samples=step * a.batch, seconds=round(seconds), valid=evaluate(model, heads, valid))
            save(
                path,
                {
                    "vision": model.vision_model.state_dict(),
                    "heads": heads.state_dict(),
                    "step": step,
                    "optimiser": optimiser.state_dict(),
                    "seconds": seconds,
                },
            )


if __name__ == "__main__":
    main()
