"""Figures of nano-read on held-out texts and fonts, for the torch model and for the runtime.

    python -m read.evaluate --run RUN                        # the averaged weights of RUN/state.pt
    python -m read.evaluate --model nano-read.gguf           # the same pages through kosmos_edge
    python -m read.evaluate --run RUN --json figures.json --sheet sheet.png
    python -m read.evaluate --run RUN --pictures ../../examples     # how often it says nothing about these

Sets, each from its own seeds: `clean` lines of 1 to 6 words, straight, without noise; `noisy` lines, all of them with
noise and turned by up to 3 degrees; `pages` of several segments, clean and noisy in turn; `none`, sheets without text.
Fonts and words are those of training, or held out (`--part held`, the default).
cer: Levenshtein distance to the true text over its length, all lines of a page joined by line ends, summed over the
set. boxes: share of true segments with a box of IoU >= 0.5, matched best first; whole: the same for one box around
the whole picture. exact: pages read without a mistake. silent: sheets without text on which it says nothing.
"""

import argparse
import json
import math
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from read.batches import World, answer
from read.paint import MAX_PATCHES, PATCH, Look, grid, paint
from read.vocabulary import EOS, Vocabulary

SEED = 900_000_000
SETS = ("clean", "noisy", "pages", "none")
_LINE = re.compile(r"<bbox><x_(\d+)><y_(\d+)><x_(\d+)><y_(\d+)></bbox>([^\n]*)\n?")


# ------------------------------------------------------------------------------------------ pages
def case(world, name, n, seed=SEED):
    """(picture, [(box in the resized picture, text)]) of page n of a set"""
    rng = np.random.default_rng((seed, SETS.index(name), n))
    kind = {"clean": "line", "noisy": "line", "none": "none"}.get(name) or ("lines", "receipt", "table")[n % 3]
    page = world.layout.page(rng, kind)
    how = Look(0.0, 0.0)
    if name == "noisy" or (name != "clean" and n % 2):
        how = Look(float(rng.uniform(-3, 3)), float(rng.uniform(0.3, 1)))
    return paint(rng, page, how), answer(page, how, *grid(page.width, page.height))


# ------------------------------------------------------------------------------------------ the torch model
def inputs(picture, max_patches=MAX_PATCHES):
    """(patches (1, P, 768), rows (1, P), columns (1, P)) as KOSMOS-2.5's processor makes them"""
    import torch

    x = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).double()
    x = ((x - x.mean()) / x.std(correction=0).clamp(min=x.numel() ** -0.5)).float()
    rows, columns = grid(*picture.size, max_patches)
    size = (rows * PATCH, columns * PATCH)
    x = torch.nn.functional.interpolate(x[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    x = x.view(3, rows, PATCH, columns, PATCH).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
    n = len(x)
    patches = torch.zeros(1, max_patches, x.shape[1])
    at = torch.zeros(2, 1, max_patches, dtype=torch.long)
    patches[0, :n] = x
    at[0, 0, :n] = torch.arange(n) // columns + 1
    at[1, 0, :n] = torch.arange(n) % columns + 1
    return patches, at[0], at[1]


def write(model, v, picture, most=400, task="ocr"):
    """(ids of the greedy answer without </s>, mean log-probability of them)"""
    import torch

    from read.model import positions

    m, dim = model.text_model.model, model.config["dim"]
    with torch.no_grad():
        _, latents, _ = model.image(*inputs(picture, model.config["max_patches"]))
        table = model.embedding_table().clone()
        table[1] = 0
        before, slots = v.before(task), latents.shape[1]
        head = table[torch.tensor(before)][None]
        x = torch.cat([head[:, :2], latents, head[:, 2:]], 1) * dim**0.5 + positions(slots + 4, dim)
        segment = torch.zeros(slots + 4, dtype=torch.long)
        segment[1 : slots + 3] = 1
        x = x + m.segment_emb(segment)
        past, ids, sure = [None] * len(m.layers), [], 0.0
        while True:
            for i, layer in enumerate(m.layers):
                x, past[i], _ = layer(x, past=past[i])
            log_p = (m.layer_norm(x[:, -1]) @ table.T).log_softmax(-1)[0]
            best = int(log_p.argmax())
            sure += float(log_p[best])
            if best == 2 or len(ids) == most:
                return ids, sure / (len(ids) + 1)
            ids.append(best)
            x = table[best][None, None] * dim**0.5 + positions(1, dim, slots + 3 + len(ids)) + m.segment_emb.weight[0]


class TorchReader:
    def __init__(self, model, vocabulary):
        self.model, self.vocabulary = model, vocabulary

    def __call__(self, picture):
        return self.vocabulary.decode(write(self.model, self.vocabulary, picture)[0])


class EngineReader:
    """kosmos_edge on a converted file; pictures go through PNG files"""

    def __init__(self, path):
        import kosmos_edge

        self.model, self.folder = kosmos_edge.load(path), tempfile.TemporaryDirectory()
        self.vocabulary = Vocabulary()

    def __call__(self, picture):
        path = Path(self.folder.name) / "page.png"
        picture.save(path)
        ids = self.model.generate([path, "<ocr>"], raw=True, max_tokens=400).token_ids
        return self.vocabulary.decode([i for i in ids if i != EOS])


def parse(text):
    """[(box, text)] of an answer"""
    return [(tuple(int(x) for x in m.groups()[:4]), m.group(5)) for m in _LINE.finditer(text)]


# ------------------------------------------------------------------------------------------ figures
def distance(a, b):
    """Levenshtein's"""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return w * h / (sum(area) - w * h)


def matched(true, said):
    """IoU of each true box with the said box that is its own, best pairs first"""
    pairs = sorted(((iou(t, s), i, j) for i, t in enumerate(true) for j, s in enumerate(said)), reverse=True)
    out, used = [0.0] * len(true), set()
    for value, i, j in pairs:
        if value > 0 and out[i] == 0 and j not in used:
            out[i] = value
            used.add(j)
    return out


def figures(reader, cases):
    """The figures of one set"""
    wrong = length = right = 0
    overlaps, whole, silent = [], [], 0
    for picture, lines in cases:
        answer_text = reader(picture)
        if not lines:
            silent += answer_text == ""
            continue
        said = parse(answer_text)
        true = "\n".join(t for _, t in lines)
        d = distance(true, "\n".join(t for _, t in said))
        wrong, length, right = wrong + d, length + len(true), right + (d == 0)
        rows, columns = grid(*picture.size)
        overlaps += matched([b for b, _ in lines], [b for b, _ in said])
        whole += matched([b for b, _ in lines], [(0, 0, columns * PATCH, rows * PATCH)])
    n = len(cases)
    if not length:
        return {"pages": n, "silent": silent / n}
    share = lambda x: float(np.mean(np.array(x) >= 0.5))  # noqa: E731
    return {
        "pages": n,
        "cer": wrong / length,
        "exact": right / n,
        "boxes": share(overlaps),
        "iou": float(np.mean(overlaps)),
        "whole": share(whole),
        "characters": length,
    }


def sheet(reader, cases, path, width=1100):
    """Pages with what was read below each, and the boxes in red"""
    strips = []
    for picture, _ in cases:
        rows, columns = grid(*picture.size)
        shown = picture.resize((columns * PATCH, rows * PATCH), Image.BILINEAR)
        said = parse(reader(picture))
        draw = ImageDraw.Draw(shown)
        for box, _ in said:
            draw.rectangle(box if box[0] <= box[2] and box[1] <= box[3] else (0, 0, 1, 1), outline=(220, 0, 0))
        strip = Image.new("RGB", (max(shown.width, 500), shown.height + 14 * max(1, len(said)) + 8), (235, 235, 235))
        strip.paste(shown, (0, 0))
        draw = ImageDraw.Draw(strip)
        for i, (_, text) in enumerate(said or [(None, "(no text)")]):
            draw.text((4, shown.height + 14 * i), text, fill=(0, 0, 0))
        strips.append(strip)
    columns = max(1, width // 520)
    heights = [0] * columns
    places = []
    for s in strips:
        c = int(np.argmin(heights)) if s.width <= 520 else 0
        y = heights[c] if s.width <= 520 else max(heights)
        places.append((c * 520, y))
        for k in range(columns):
            if k == c or s.width > 520:
                heights[k] = y + s.height + 6
    out = Image.new("RGB", (columns * 520, max(heights)), (255, 255, 255))
    for s, at in zip(strips, places, strict=True):
        out.paste(s, at)
    out.save(path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run")
    ap.add_argument("--state", default="state.pt")
    ap.add_argument("--raw", action="store_true", help="the last weights instead of the averaged")
    ap.add_argument("--model", help="what kosmos_edge.load takes")
    ap.add_argument("--part", default="held", choices=("held", "train"))
    ap.add_argument("--sets", default=",".join(SETS))
    ap.add_argument("--count", type=int, default=300, help="pages of each set")
    ap.add_argument("--pictures", help="a folder of PNG files without text, measured instead of the sets")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--json")
    ap.add_argument("--sheet")
    a = ap.parse_args()
    if bool(a.run) == bool(a.model):
        ap.error("give --run or --model")
    if a.run:
        import torch

        from read.export import load_state

        torch.set_num_threads(a.threads)
        model, v, at = load_state(os.path.join(a.run, a.state), a.raw)
        reader, result = TorchReader(model, v), {"pictures_of_training": at["pictures"]}
    else:
        reader, result = EngineReader(a.model), {}
    if a.pictures:
        files = sorted(Path(a.pictures).glob("*.png"))
        print(f"{len(files)} pictures:", figures(reader, [(Image.open(f).convert("RGB"), []) for f in files]))
        return
    world = World(a.part)
    for name in a.sets.split(","):
        result[name] = figures(reader, [case(world, name, n) for n in range(a.count)])
        row = {k: round(x, 4) if math.isfinite(x) else x for k, x in result[name].items()}
        print(name, json.dumps(row), flush=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if a.sheet:
        sheet(reader, [case(world, SETS[n % 3], n) for n in range(18)], a.sheet)


if __name__ == "__main__":
    main()
