"""The exported checkpoint opened by `transformers`, held against this folder's own code on held-out scenes.

    python check_export.py --model DIR

For each task's prompt: token ids equal, pixels equal, logits within 1e-4, and the same greedy text. Exits 1 if not.
"""

import argparse
import os
import random
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import texts
import torch
from data import normalise
from evaluate import cases_from_seeds
from export import read
from generate import write
from model import packed_layout
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration
from world import HELD_OUT_SEED, squash


def prompts_of(case, rng):
    pairs = [
        texts.caption(case.objects),
        texts.detailed(case.objects, case.ground),
        texts.plain(case.objects),
        texts.locate(case.objects, rng),
        texts.describe(case.objects, rng, jitter=False),
    ]
    return [p for p, _ in pairs] + [texts.ask(case.objects, case.ground, rng)[0]]


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--count", type=int, default=4, help="scenes")
    a = ap.parse_args()
    torch.set_num_threads(int(os.environ.get("NANO_THREADS", "1")))
    ours, v = read(a.model)
    processor = AutoProcessor.from_pretrained(a.model)
    theirs = Kosmos2ForConditionalGeneration.from_pretrained(a.model).eval()
    rng, worst, wrong = random.Random(0), 0.0, []
    for case in cases_from_seeds(HELD_OUT_SEED, a.count, 448):
        pixels = normalise(np.array(squash(case.image, ours.config["image"]))[None])
        tokens = ours.image_tokens(ours.features(pixels))
        for prompt in prompts_of(case, rng):
            x = processor(text=prompt, images=case.image, return_tensors="pt")
            x = {k: t for k, t in x.items() if k not in ("width", "height")}
            ids = v.encode(prompt)
            if x["input_ids"][0, ours.prefix :].tolist() != ids or not torch.equal(x["pixel_values"], pixels):
                wrong.append(f"ids or pixels differ: {prompt}")
                continue
            mine = ours.logits(ours.decode(tokens, torch.tensor([ids]), packed_layout(ours.prefix, [len(ids)])))
            worst = max(worst, (theirs(**x).logits[:, ours.prefix :] - mine).abs().max().item())
            said = theirs.generate(**x, max_new_tokens=96, do_sample=False)[0, x["input_ids"].shape[1] :].tolist()
            said = said[: said.index(2)] if 2 in said else said
            if said != write(ours, tokens, [ids])[0]:
                wrong.append(f"another text: {prompt}")
    print(f"largest difference of logits {worst:.1e}; {len(wrong)} prompts differ", *wrong, sep="\n")
    sys.exit(bool(wrong) or worst > 1e-4)


if __name__ == "__main__":
    main()
