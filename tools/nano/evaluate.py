"""How well nano does on scenes it never saw, beside what could be had without looking.

    python evaluate.py --model DIR                            # torch, 1000 held-out scenes
    python evaluate.py --model nano.gguf --engine             # the same through kosmos_edge
    python evaluate.py --model DIR --folder SCENES            # a folder that `world.py --out` painted
    python evaluate.py --model DIR --json out.json --sheet sheet.png

An object counts as named if the entity matched to its box has exactly its phrase ("a red circle"). Entities and
objects are matched one to one, best overlap first. All writing is greedy.
Baselines: for boxes, the best constant centred box, fitted on training scenes; for names, the commonest phrase; for
questions, the commonest answer to that kind of question among the tested ones.
"""

import argparse
import json
import os
import random
import re
from collections import Counter

import numpy as np
import texts
from boxes import box_indices, indices_box, iou
from PIL import Image, ImageDraw
from world import BACKGROUNDS, COLOR_NAMES, HELD_OUT_SEED, SHAPES, TONES, TRAIN_SEED, render, sample_scene, squash

_ENTITY = re.compile(
    r"(?:<phrase>([^<]+)</phrase>)?<object>"
    r"((?:<patch_index_\d+>|</delimiter_of_multi_objects/>)+)</object>"
)
_INDEX = re.compile(r"<patch_index_(\d+)><patch_index_(\d+)>")
BOX_HIT = 0.5


class Case:
    """One picture with what is true of it"""

    def __init__(self, image, objects, ground):
        self.image, self.objects, self.ground = image, objects, ground


def cases_from_seeds(first, count, size=224):
    out = []
    for seed in range(first, first + count):
        s = sample_scene(seed)
        objects = [(o.shape, o.color, o.box) for o in s.objects]
        out.append(Case(render(s, size), objects, (s.background.kind, s.background.tone)))
    return out


def cases_from_folder(folder):
    with open(os.path.join(folder, "scenes.json")) as f:
        rows = json.load(f)
    return [
        Case(
            Image.open(os.path.join(folder, r["file"])).convert("RGB"),
            [(SHAPES.index(o["shape"]), COLOR_NAMES.index(o["color"]), o["box"]) for o in r["objects"]],
            (BACKGROUNDS.index(r["background"]["kind"]), TONES.index(r["background"]["tone"])),
        )
        for r in rows
    ]


# ------------------------------------------------------------------------------------------ who answers
class TorchNano:
    """The torch model. Each method takes one list per argument and gives one list."""

    def __init__(self, model, vocabulary, images):
        import torch
        from data import normalise

        self.model, self.vocabulary = model, vocabulary
        with torch.no_grad():
            parts = [np.stack([np.array(squash(i)) for i in images[s : s + 100]]) for s in range(0, len(images), 100)]
            self.tokens = torch.cat([model.image_tokens(model.features(normalise(p))) for p in parts])

    def _answer(self, which, prompts):
        from generate import write

        ids = write(self.model, self.tokens[which], [self.vocabulary.encode(p) for p in prompts])
        return [self.vocabulary.decode(i) for i in ids]

    def caption(self, which, detailed=False):
        """-> [(text without tags, [(phrase, [boxes])])]"""
        prompt = texts.DETAILED if detailed else texts.CAPTION
        return [(re.sub(r"<.*?>", "", t), entities_of(t)) for t in self._answer(which, [prompt] * len(which))]

    def plain(self, which):
        return self._answer(which, [texts.PLAIN] * len(which))

    def locate(self, which, phrases):
        """-> [[boxes]]"""
        found = self._answer(which, [f"<grounding><phrase> {p}</phrase>" for p in phrases])
        return [[b for _, boxes in entities_of(t)[:1] for b in boxes] for t in found]

    def describe(self, which, boxes):
        prompts = [f"<grounding><phrase> It</phrase>{texts.box_tags([b])} is" for b in boxes]
        return [t.rstrip(".") for t in self._answer(which, prompts)]

    def ask(self, which, questions):
        return self._answer(which, [f"Question: {q} Answer:" for q in questions])


class EngineNano:
    """The same answers through the runtime's Python interface"""

    def __init__(self, path, images):
        import kosmos_edge

        self.model, self.images = kosmos_edge.load(path), images

    @staticmethod
    def _boxes(entity):
        return [tuple(b.normalized) for b in entity.boxes]

    def caption(self, which, detailed=False):
        out = []
        for i in which:
            image = self.images[i]
            r = (
                self.model.ground(image, "Describe this image in detail:", grammar=True)
                if detailed
                else self.model.caption(image, ground=True, grammar=True)
            )
            out.append((r.text, [(e.phrase, self._boxes(e)) for e in r.entities]))
        return out

    def plain(self, which):
        return [self.model.caption(self.images[i], ground=False).text for i in which]

    def locate(self, which, phrases):
        found = [self.model.locate(self.images[i], p).entities for i, p in zip(which, phrases, strict=True)]
        return [self._boxes(e[0]) if e else [] for e in found]

    def describe(self, which, boxes):
        return [
            self.model.describe(self.images[i], box=tuple(map(float, b)), normalized=True).text
            for i, b in zip(which, boxes, strict=True)
        ]

    def ask(self, which, questions):
        return [self.model.ask(self.images[i], q).text for i, q in zip(which, questions, strict=True)]


def entities_of(text):
    """Tagged text -> [(phrase, [boxes])]"""
    return [
        ((phrase or "").strip(), [indices_box(int(a), int(b)) for a, b in _INDEX.findall(boxes)])
        for phrase, boxes in _ENTITY.findall(text)
    ]


# ------------------------------------------------------------------------------------------ figures
def match(entities, objects):
    """-> per object (phrase, IoU) of the entity matched to it, best overlap first; ("", 0) without one"""
    flat = [(phrase, b) for phrase, boxes in entities for b in boxes]
    pairs = sorted(((iou(b, o[2]), e, k) for e, (_, b) in enumerate(flat) for k, o in enumerate(objects)), reverse=True)
    used, out = set(), [("", 0.0)] * len(objects)
    for v, e, k in pairs:
        if v > 0 and e not in used and out[k][1] == 0.0:
            used.add(e)
            out[k] = flat[e][0], v
    return out, len(flat)


def _share(values):
    return round(float(np.mean(values)), 4) if len(values) else None


def caption_figures(said, cases):
    """Names and boxes of a list of grounded captions"""
    rows, counts, whole = [], [], []
    for (_, entities), case in zip(said, cases, strict=True):
        got, n = match(entities, case.objects)
        counts.append(n == len(case.objects))
        good = counts[-1]
        for (phrase, v), o in zip(got, case.objects, strict=True):
            words = phrase.split()
            rows.append(
                {
                    "named": phrase == texts.phrase_of(o),
                    "shape": words[-1:] == [SHAPES[o[0]]],
                    "color": COLOR_NAMES[o[1]] in words,
                    "iou": v,
                    "hit": v >= BOX_HIT,
                    "side": max(o[2][2] - o[2][0], o[2][3] - o[2][1]) * 112,
                }
            )
            good = good and rows[-1]["named"] and rows[-1]["hit"]
        whole.append(good)
    out = {k: _share([r[k] for r in rows]) for k in ("named", "shape", "color", "iou", "hit")}
    out.update(count=_share(counts), scene=_share(whole), n_objects=len(rows))
    for label, low, high in (("24-32", 0, 32), ("32-44", 32, 44), ("44-64", 44, 999)):
        part = [r for r in rows if low <= r["side"] < high]
        out["px_" + label] = {"n": len(part), **{k: _share([r[k] for r in part]) for k in ("named", "hit")}}
    return out


def confusions(said, cases, top=8):
    """The commonest wrong shapes, as 'truth > said'"""
    wrong = Counter()
    for (_, entities), case in zip(said, cases, strict=True):
        for (phrase, _), o in zip(match(entities, case.objects)[0], case.objects, strict=True):
            last = phrase.split()[-1] if phrase else "(nothing)"
            if last != SHAPES[o[0]]:
                wrong[f"{SHAPES[o[0]]} > {last}"] += 1
    return dict(wrong.most_common(top))


def question_figures(nano, cases, per_kind):
    out = {}
    for kind in texts.QUESTIONS:
        rng = random.Random(f"questions {kind}")
        which, questions, answers = [], [], []
        for i, case in enumerate(cases):
            made = texts.ask(case.objects, case.ground, rng, kind, style=False)
            if made and len(which) < per_kind:
                which.append(i)
                questions.append(made[0][len("Question: ") : -len(" Answer:")])
                answers.append(made[1].strip())
        got = [g.strip().rstrip(".") for g in nano.ask(which, questions)]
        common = Counter(answers).most_common(1)[0][1] / len(answers)
        right = _share([g == a for g, a in zip(got, answers, strict=True)])
        out[kind] = {"right": right, "majority": round(common, 4), "n": len(answers)}
    return out


def constant_box(count=1000):
    """The best centred box on training scenes"""
    boxes = [o.box for i in range(count) for o in sample_scene(TRAIN_SEED + i).objects]
    centred = [(0.5 - w / 2, 0.5 - w / 2, 0.5 + w / 2, 0.5 + w / 2) for w in np.arange(0.1, 0.8, 0.02)]
    return max(centred, key=lambda c: np.mean([iou(c, b) for b in boxes]))


def baselines(cases):
    objects = [o for c in cases for o in c.objects]
    box = constant_box()
    overlap = [iou(box, o[2]) for o in objects]
    grid = [iou(indices_box(*box_indices(o[2])), o[2]) for o in objects]
    top = Counter(o[:2] for o in objects).most_common(1)[0][1]
    return {
        "constant_box_iou": _share(overlap),
        "constant_box_hit": _share([v >= BOX_HIT for v in overlap]),
        "commonest_name": round(top / len(objects), 4),
        "commonest_shape": round(Counter(o[0] for o in objects).most_common(1)[0][1] / len(objects), 4),
        "commonest_color": round(Counter(o[1] for o in objects).most_common(1)[0][1] / len(objects), 4),
        "grid_ceiling_iou": _share(grid),
    }


def evaluate(nano, cases, full=True, per_kind=500):
    """All figures of `nano` (TorchNano or EngineNano) on `cases`"""
    every = list(range(len(cases)))
    said = nano.caption(every)
    out = {"n_scenes": len(cases), "caption": caption_figures(said, cases)}
    rng = random.Random("locate and describe")
    asked = [texts.locate(c.objects, rng, "name") for c in cases]
    phrases = [re.search("<phrase>(.*)</phrase>", p)[1].strip() for p, _ in asked]
    truth = [entities_of(t)[0][1] for _, t in asked]
    found = nano.locate(every, phrases)
    best = [
        max((iou(b, t) for t in true), default=0.0) if (b := boxes[0] if boxes else None) else 0.0
        for boxes, true in zip(found, truth, strict=True)
    ]
    out["locate"] = {
        "iou": _share(best),
        "hit": _share([v >= BOX_HIT for v in best]),
        "box_count": _share([len(b) == len(t) for b, t in zip(found, truth, strict=True)]),
    }
    chosen = [rng.choice(c.objects) for c in cases]
    got = nano.describe(every, [o[2] for o in chosen])
    out["describe"] = _share([g.strip().rstrip(".") == texts.phrase_of(o) for g, o in zip(got, chosen, strict=True)])
    out["ask"] = question_figures(nano, cases, per_kind)
    if full:
        names = [Counter(texts.phrase_of(o) for o in c.objects) for c in cases]
        written = [Counter(re.findall(r"\ban? \w+ \w+", t)) for t in nano.plain(every)]
        found = sum((a & b).total() for a, b in zip(names, written, strict=True))
        out["plain"] = {"named": round(found / sum(c.total() for c in names), 4)}
        long = nano.caption(every, detailed=True)
        out["detailed"] = caption_figures(long, cases)
        intro = [texts.detailed(c.objects, c.ground)[1].split(":")[0].strip() for c in cases]
        out["detailed"]["intro"] = _share([t.split(":")[0].strip() == i for (t, _), i in zip(long, intro, strict=True)])
        out["confusions"] = confusions(said, cases)
        out["baselines"] = baselines(cases)
    return out


def table(r):
    """The figures for people"""
    c, b = r["caption"], r.get("baselines", {})
    lines = [f"{r['n_scenes']} scenes, {c['n_objects']} objects", f"{'':34}nano     without looking"]

    def line(label, value, base=None):
        lines.append(f"{label:34}{value:.3f}" + (f"    {base:.3f}" if base is not None else ""))

    line("caption: shape and colour right", c["named"], b.get("commonest_name"))
    line("caption: shape right", c["shape"], b.get("commonest_shape"))
    line("caption: colour right", c["color"], b.get("commonest_color"))
    line("caption: box IoU", c["iou"], b.get("constant_box_iou"))
    line("caption: box IoU >= 0.5", c["hit"], b.get("constant_box_hit"))
    line("caption: number of objects right", c["count"])
    line("caption: whole scene right", c["scene"])
    for k in ("plain", "detailed"):
        if k in r:
            line(f"{k}: shape and colour right", r[k]["named"], b.get("commonest_name"))
    if "detailed" in r:
        line("detailed: opening words right", r["detailed"]["intro"])
    line("phrase to box: IoU", r["locate"]["iou"], b.get("constant_box_iou"))
    line("phrase to box: IoU >= 0.5", r["locate"]["hit"], b.get("constant_box_hit"))
    line("box to phrase", r["describe"], b.get("commonest_name"))
    for k, v in r["ask"].items():
        line(f"question: {k}", v["right"], v["majority"])
    if b:
        lines.append(f"a perfect box on the 32 x 32 grid has IoU {b['grid_ceiling_iou']:.3f}")
    return "\n".join(lines)


def contact_sheet(said, cases, path, columns=4, side=224):
    """Pictures with the truth in white, the answer's boxes in magenta, and what was said below"""
    rows = -(-len(cases) // columns)
    sheet = Image.new("RGB", (columns * side, rows * (side + 56)), "white")
    for i, ((text, entities), case) in enumerate(zip(said, cases, strict=True)):
        im = case.image.convert("RGB").resize((side, side), Image.BICUBIC)
        draw = ImageDraw.Draw(im)
        for o in case.objects:
            draw.rectangle([v * side for v in o[2]], outline="white")
        for _, boxes in entities:
            for b in boxes:
                x1, x2, y1, y2 = *sorted((b[0], b[2])), *sorted((b[1], b[3]))
                draw.rectangle([v * side for v in (x1, y1, x2, y2)], outline="magenta")
        x, y = i % columns * side, i // columns * (side + 56)
        sheet.paste(im, (x, y))
        words, line = [], ""
        for w in text.split():
            if len(line) + len(w) > 36:
                words.append(line)
                line = ""
            line = (line + " " + w).strip()
        ImageDraw.Draw(sheet).multiline_text((x + 3, y + side + 2), "\n".join([*words, line]), fill="black", spacing=1)
    sheet.save(path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, help="checkpoint folder; with --engine what kosmos_edge.load takes")
    ap.add_argument("--engine", action="store_true")
    ap.add_argument("--folder", help="scenes painted by world.py; else scenes are painted from seeds")
    ap.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    ap.add_argument("--count", type=int, default=1000)
    ap.add_argument("--json")
    ap.add_argument("--sheet", help="PNG of the first 16 scenes with boxes")
    a = ap.parse_args()
    cases = cases_from_folder(a.folder)[: a.count] if a.folder else cases_from_seeds(a.seed, a.count)
    images = [c.image for c in cases]
    if a.engine:
        nano = EngineNano(a.model, images)
    else:
        import torch
        from export import read

        torch.set_num_threads(int(os.environ.get("NANO_THREADS", "1")))
        nano = TorchNano(*read(a.model), images)
    result = evaluate(nano, cases)
    print(table(result))
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if a.sheet:
        contact_sheet(nano.caption(list(range(min(16, len(cases))))), cases[:16], a.sheet)


if __name__ == "__main__":
    main()
