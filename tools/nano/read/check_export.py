"""The exported checkpoint opened by `transformers`, held against this folder's own code on held-out pages.

    python -m read.check_export --model DIR --run RUN

Patches and prompt ids equal, logits of a forced answer within 1e-4 relative, tokenizer equal on texts and tags, the
same greedy ids. Exits 1 if not. Needs transformers.
"""

import argparse
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import AutoProcessor, Kosmos2_5ForConditionalGeneration

from read.batches import World, answer, arrays
from read.evaluate import inputs, write
from read.export import load_state
from read.labels import resized
from read.losses import tensors


def check(folder, model, v, world, count=3):
    """(largest relative difference of logits, lines that say what differs)"""
    processor = AutoProcessor.from_pretrained(folder)
    theirs = Kosmos2_5ForConditionalGeneration.from_pretrained(folder).eval()
    worst, wrong = 0.0, []
    for text in (
        "Total 12.50",
        "<bbox><x_3><y_1023></bbox>£5 €7 20°\n",
        "na\u00efve \u201cquoted\u201d \u2013 \u4e2d",
        "  two  \n\n",
    ):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        if "<" not in text and ids != v.encode(text):
            wrong.append(f"other ids of {text!r}")
        if processor.tokenizer.decode(ids) != text or v.decode(ids) != text:
            wrong.append(f"{text!r} does not come back")
    for n in range(count):
        rng = np.random.default_rng((77, n))
        page, how, picture = world.sample(rng, ("line", "lines", "table")[n % 3], 1.0)
        x = processor(images=picture, text="<ocr>", max_patches=model.config["max_patches"], return_tensors="pt")
        _, rows, columns = resized(picture)
        if (x["width"].item(), x["height"].item()) != (columns * 16, rows * 16):
            wrong.append(f"page {n}: another grid")
            continue
        _, latents, _ = model.image(*inputs(picture))
        near = tensors([a[None] for a in arrays(page, how, picture)])[0]
        if (inputs(picture)[0] - near).abs().max() > 0.05:
            wrong.append(f"page {n}: the patches of training are others")
        if (x["flattened_patches"][0, :, 2:] - inputs(picture)[0][0]).abs().max() > 2e-4:
            wrong.append(f"page {n}: other patches")
        before = v.before("ocr")
        prompt = [*before[:2], *[0] * latents.shape[1], *before[2:]]
        if x["input_ids"][0].tolist() != prompt:
            wrong.append(f"page {n}: another prompt")
            continue
        table = model.embedding_table()
        table[1] = 0
        ids = torch.tensor([v.ocr(answer(page, how, rows, columns))])
        mine = model.text(latents, table, before, ids)[0] @ table.T
        size = {k: x.pop(k) for k in ("width", "height")}
        full = dict(x)
        full["input_ids"] = torch.cat([x["input_ids"], ids], 1)
        full["attention_mask"] = torch.ones_like(full["input_ids"])
        full["image_embeds_position_mask"] = torch.cat([x["image_embeds_position_mask"], torch.zeros_like(ids)], 1)
        said = theirs(**full).logits[:, len(prompt) - 1 :]
        worst = max(worst, ((said - mine).abs().max() / said.abs().max()).item())
        told = theirs.generate(**x, max_new_tokens=48, do_sample=False)[0, len(prompt) :].tolist()
        own = write(model, v, picture, 48)[0]
        if told[: len(own)] != own:
            wrong.append(f"page {n}, {size}: another answer")
    return worst, wrong


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--run", required=True)
    ap.add_argument("--state", default="state.pt")
    ap.add_argument("--raw", action="store_true")
    a = ap.parse_args()
    model, v, _ = load_state(os.path.join(a.run, a.state), a.raw)
    worst, wrong = check(a.model, model, v, World("held"))
    print(f"largest relative difference of logits {worst:.1e}; {len(wrong)} things differ", *wrong, sep="\n")
    sys.exit(bool(wrong) or worst > 1e-4)


if __name__ == "__main__":
    main()
