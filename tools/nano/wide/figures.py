"""How well the wider nano does, beside what could be had without looking.

    python -m wide.figures --world world.zip --model nano.gguf                 # in the runtime
    python -m wide.figures --world world.zip --shards RUN/carry                # in torch, where training runs
    python -m wide.figures ... --count 500 --json figures.json --sheet sheet.png

Two sets of held-out scenes: of seen cut-outs (new scenes) and of unseen ones (a design held out for that very noun,
fonts and shape variants likewise, photographs never trained on behind them). A name is right if the whole phrase is
("a red cat"). Boxes and objects are matched one to one, best overlap first. All writing is greedy.
Baselines: the best constant centred box, fitted on training scenes; the commonest name; for questions the commonest
answer to that kind, and the commonest answer to that very question in training scenes (without any picture).
False claims: photographs without a known thing whose caption names one all the same. AUROC: does a score tell right
boxes from wrong ones, 0.5 is chance; place: `Entity.score`, right where the IoU with its object is >= 0.5; name and
place: `Entity.phrase_score`, right where the whole phrase is too.
"""

import argparse
import json
import os
import random
import re
from collections import Counter

import numpy as np
from boxes import box_indices, indices_box, iou
from PIL import Image, ImageDraw

from wide import batches, language, paint, spec
from wide.archive import World
from wide.scope import SCOPES

HIT = 0.5
PAINTED = 384  # the side that evaluation scenes are painted at
SETS = {"seen": "train", "unseen": "test"}


class Case:
    def __init__(self, scene, image):
        self.scene, self.image = scene, image

    @property
    def objects(self):
        return self.scene.objects


def cases(world, pools, split, count, first=batches.HELD_OUT_SEED):
    """Held-out scenes of a split's cut-outs, photographs of the test split behind them"""
    scenes = (spec.sample(pools, first + i, split, "test") for i in range(count))
    return [Case(s, paint.paint(s, world, PAINTED)) for s in scenes]


# ------------------------------------------------------------------------------------------ who answers
class EngineAnswers:
    """Answers through the runtime's Python interface. One picture a call; a picture is encoded once."""

    def __init__(self, path):
        import kosmos_edge

        self.model, self._encoded = kosmos_edge.load(path), {}

    def _picture(self, image):
        if id(image) not in self._encoded:
            self._encoded = {id(image): (image, self.model.encode(image))}
        return self._encoded[id(image)][1]

    def caption(self, image):
        """-> text, [(phrase, box, score, score of the phrase)]"""
        r = self.model.caption(self._picture(image), ground=True)
        return r.text, [(e.phrase, tuple(b.normalized), b.score, e.phrase_score) for e in r.entities for b in e.boxes]

    def locate(self, image, phrase):
        found = self.model.locate(self._picture(image), phrase).entities
        return [tuple(b.normalized) for b in found[0].boxes] if found else []

    def describe(self, image, box):
        return self.model.describe(self._picture(image), box=tuple(map(float, box)), normalized=True).text

    def ask(self, image, question):
        return self.model.ask(self._picture(image), question).text


class TorchAnswers:
    """The same from the torch model, batched on whatever device it is on; `prepare` takes all pictures first."""

    ENTITY = re.compile(
        r"<phrase>([^<]*)</phrase><object>((?:<patch_index_\d+>|</delimiter_of_multi_objects/>)+)</object>"
    )
    BOXES = re.compile(r"<object>((?:<patch_index_\d+>|</delimiter_of_multi_objects/>)+)</object>")
    PAIR = re.compile(r"<patch_index_(\d+)><patch_index_(\d+)>")

    def __init__(self, model, vocabulary, device):
        self.model, self.vocabulary, self.device = model.to(device).eval(), vocabulary, device

    def _tokens(self, images):
        import torch

        from wide.steps import normalised

        side, out = self.model.config["image"], []
        with torch.no_grad():
            for i in range(0, len(images), 100):
                small = [np.asarray(im.resize((side, side), Image.BICUBIC)) for im in images[i : i + 100]]
                pixels = torch.from_numpy(np.stack(small)).to(self.device).permute(0, 3, 1, 2).float() / 255
                out.append(self.model.image_tokens(self.model.features(normalised(pixels))))
        return torch.cat(out)

    def _write(self, images, prompts):
        from generate import write

        ids = write(self.model, self._tokens(images), [self.vocabulary.encode(p) for p in prompts])
        return [self.vocabulary.decode(i) for i in ids]

    @classmethod
    def _boxes(cls, tags):
        return [indices_box(int(a), int(b)) for a, b in cls.PAIR.findall(tags)]

    def captions(self, images):
        said = self._write(images, [language.CAPTION] * len(images))
        return [
            (
                re.sub("<.*?>", "", t),
                [(p.strip(), b, None, None) for p, tags in self.ENTITY.findall(t) for b in self._boxes(tags)],
            )
            for t in said
        ]

    def locates(self, images, phrases):
        said = self._write(images, [f"<grounding><phrase> {p}</phrase>" for p in phrases])
        return [self._boxes(m[1]) if (m := self.BOXES.match(t)) else [] for t in said]

    def describes(self, images, boxes):
        prompts = [f"<grounding><phrase> It</phrase>{language.box_tags([b])} is" for b in boxes]
        return self._write(images, prompts)

    def asks(self, images, questions):
        return self._write(images, [f"Question: {q} Answer:" for q in questions])


def answer_all(nano, what, images, *arguments):
    """One method name for both: lists in, a list out"""
    if hasattr(nano, what + "s"):
        return getattr(nano, what + "s")(images, *arguments) if images else []
    return [getattr(nano, what)(*row) for row in zip(images, *arguments, strict=True)]


# ------------------------------------------------------------------------------------------ figures
def share(values):
    return round(float(np.mean(values)), 4) if len(values) else None


def match(entities, objects):
    """-> per object (phrase, IoU, entity or None), best overlap first; per entity the object that it was matched to"""
    pairs = sorted(
        ((iou(e[1], o.box), i, k) for i, e in enumerate(entities) for k, o in enumerate(objects)), reverse=True
    )
    of_object, of_entity = [("", 0.0, None)] * len(objects), [None] * len(entities)
    for v, i, k in pairs:
        if v > 0 and of_entity[i] is None and of_object[k][2] is None:
            of_entity[i], of_object[k] = k, (entities[i][0], v, i)
    return of_object, of_entity


def auroc(right, wrong):
    """Probability that a right one scores above a wrong one, ties half; None without both"""
    if not len(right) or not len(wrong):
        return None
    order = np.argsort(np.concatenate([right, wrong]), kind="stable")
    values = np.concatenate([right, wrong])[order]
    rank = np.empty(len(values))
    for v in np.unique(values):
        same = values == v
        rank[same] = np.flatnonzero(same).mean() + 1
    back = np.empty(len(values))
    back[order] = rank
    return round(float((back[: len(right)].sum() - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong))), 4)


def caption_figures(said, tested):
    rows, counts, silent, scored = [], [], [], []
    for (text, entities), case in zip(said, tested, strict=True):
        of_object, of_entity = match(entities, case.objects)
        if not case.objects:
            silent.append(not entities and text.strip().rstrip(".").endswith("nothing I know"))
            continue
        counts.append(len(entities) == len(case.objects))
        for (phrase, v, _), o in zip(of_object, case.objects, strict=True):
            named = phrase == language.phrase_of(o)
            rows.append({"kind": o.kind, "named": named, "noun": phrase.split()[-1:] == o.name.split()[-1:],
                         "iou": v, "hit": v >= HIT})  # fmt: skip
        for e, k in zip(entities, of_entity, strict=True):
            if e[2] is not None:
                o = None if k is None else case.objects[k]
                placed = o is not None and iou(e[1], o.box) >= HIT
                scored.append((placed, placed and e[0] == language.phrase_of(o), *e[2:]))
    out = {k: share([r[k] for r in rows]) for k in ("named", "noun", "iou", "hit")}
    out.update(objects=len(rows), count=share(counts), silent_on_nothing=share(silent), empty_scenes=len(silent))
    out["by_kind"] = {
        k: {"n": len(part), "named": share([r["named"] for r in part]), "hit": share([r["hit"] for r in part])}
        for k in ("noun", "shape", "word", "number")
        if (part := [r for r in rows if r["kind"] == k])
    }
    for label, is_right, score in (("place_auroc", 0, 2), ("name_auroc", 1, 3)):
        right, wrong = (np.array([s[score] for s in scored if bool(s[is_right]) is good]) for good in (True, False))
        out[label] = auroc(right, wrong)
    return out


def noun_figures(said, tested, world):
    """Things named in full in captions: {"noun": {name: {n, named}}, "package" of the cut-out: the same}"""
    out = {"noun": {}, "package": {}}
    for (_, entities), case in zip(said, tested, strict=True):
        for (phrase, _, _), o in zip(match(entities, case.objects)[0], case.objects, strict=True):
            if o.kind == "noun":
                package = world.sprites[o.sprite]["key"].partition(":")[0]
                for by, key in (("noun", o.name), ("package", package)):
                    out[by].setdefault(key, []).append(phrase == language.phrase_of(o))
    return {by: {k: {"n": len(v), "named": share(v)} for k, v in sorted(part.items())} for by, part in out.items()}


def referring_figures(nano, tested, names):
    rng = random.Random("referring")
    some = [c for c in tested if c.objects]
    images = [c.image for c in some]
    chosen = [rng.choice(c.objects) for c in some]
    phrases = [language.phrase_of(o) for o in chosen]
    found = answer_all(nano, "locate", images, phrases)
    best = []
    for c, p, boxes in zip(some, phrases, found, strict=True):
        true = [o.box for o in c.objects if language.phrase_of(o) == p]
        best.append(max((iou(boxes[0], t) for t in true), default=0.0) if boxes else 0.0)
    absent = [rng.choice([n for n in rng.sample(names, 9) if n not in {o.name for o in c.objects}]) for c in some]
    refused = answer_all(nano, "locate", images, [language.with_article(n) for n in absent])
    said = answer_all(nano, "describe", images, [o.box for o in chosen])
    return {
        "locate_iou": share(best),
        "locate_hit": share([v >= HIT for v in best]),
        "locate_absent_refused": share([not b for b in refused]),
        "describe": share([s.strip().rstrip(".") == language.phrase_of(o) for s, o in zip(said, chosen, strict=True)]),
        "n": len(some),
    }


def blind_answers(pools, names, count=4000):
    """{kind: {question: commonest answer}} over training scenes: what the question alone gives away"""
    rng, table = random.Random("blind"), {}
    for i in range(count):
        scene = spec.sample(pools, batches.TRAIN_SEED + i)
        for kind in language.QUESTIONS:
            made = language.ask(scene, rng, names, kind, style=False)
            if made:
                table.setdefault(kind, {}).setdefault(made[0], Counter())[made[1]] += 1
    return {k: {q: c.most_common(1)[0][0].strip() for q, c in t.items()} for k, t in table.items()}


def question_figures(nano, tested, names, blind, per_kind):
    out = {}
    for kind in language.QUESTIONS:
        rng = random.Random(f"questions {kind}")
        rows = []
        for c in tested:
            made = language.ask(c.scene, rng, names, kind, style=False)
            if made and len(rows) < per_kind:
                rows.append((c.image, made[0], made[1].strip()))
        if not rows:
            continue
        images, prompts, truth = map(list, zip(*rows, strict=True))
        questions = [p[len("Question: ") : -len(" Answer:")] for p in prompts]
        got = [g.strip().rstrip(".") for g in answer_all(nano, "ask", images, questions)]
        common, times = Counter(truth).most_common(1)[0]
        guess = [blind.get(kind, {}).get(p, common) for p in prompts]
        right = {a: share([g == a for g, t in zip(got, truth, strict=True) if t == a]) for a in set(truth)}
        out[kind] = {"n": len(rows), "right": share([g == t for g, t in zip(got, truth, strict=True)])}
        out[kind].update(majority=round(times / len(rows), 4), question_only=share(np.equal(guess, truth)))
        if kind.startswith("exist"):
            out[kind]["balanced"] = round(float(np.mean(list(right.values()))), 4)
    return out


def baselines(tested, pools):
    objects = [o for c in tested for o in c.objects]
    train = [o.box for i in range(600) for o in spec.sample(pools, batches.TRAIN_SEED + i).objects]
    centred = [(0.5 - w / 2, 0.5 - w / 2, 0.5 + w / 2, 0.5 + w / 2) for w in np.arange(0.1, 0.8, 0.02)]
    box = max(centred, key=lambda b: np.mean([iou(b, t) for t in train]))
    overlap = [iou(box, o.box) for o in objects]
    top = Counter(language.phrase_of(o) for o in objects).most_common(1)[0][1]
    return {
        "constant_box_iou": share(overlap),
        "constant_box_hit": share([v >= HIT for v in overlap]),
        "commonest_name": round(top / len(objects), 4),
        "grid_ceiling_iou": share([iou(indices_box(*box_indices(o.box)), o.box) for o in objects]),
    }


def false_claims(nano, world):
    """On photographs without a known thing"""
    photos = world.photographs()
    said = answer_all(nano, "caption", [p for _, p in photos])
    claimed = [bool(entities) or "nothing I know" not in text for text, entities in said]
    by_photo = {}
    for (row, _), c in zip(photos, claimed, strict=True):
        by_photo.setdefault(row["key"], []).append(c)
    return {
        "pictures": len(photos),
        "photographs": len(by_photo),
        "claims": share(claimed),
        "photographs_with_a_claim": share([any(v) for v in by_photo.values()]),
        "commonest": Counter(text.strip() for (text, _), c in zip(said, claimed, strict=True) if c).most_common(5),
    }


def evaluate(nano, world, count, per_kind=500):
    pools, names = spec.Pools(world), language.known_names(world)
    blind = blind_answers(pools, names, min(4000, 8 * count))
    out = {"scenes": count}
    for label, split in SETS.items():
        tested = cases(world, pools, split, count)
        said = answer_all(nano, "caption", [c.image for c in tested])
        out[label] = {
            "caption": caption_figures(said, tested),
            "named_by": noun_figures(said, tested, world),
            "referring": referring_figures(nano, tested, names),
            "ask": question_figures(nano, tested, names, blind, per_kind),
            "baselines": baselines(tested, pools),
        }
        out[label]["sheet"] = (said[:16], tested[:16])
    out["false_claims"] = false_claims(nano, world)
    return out


def rows(r):
    """[(what, seen, unseen, without looking)]; None where there is no such figure"""
    out, b, asked = [], r["unseen"]["baselines"], r["unseen"]["ask"]

    def row(label, get, base=None):
        out.append((label, *(get(r[k]) for k in SETS), base))

    row("caption: named in full", lambda s: s["caption"]["named"], b["commonest_name"])
    row("caption: noun right", lambda s: s["caption"]["noun"])
    row("caption: box IoU", lambda s: s["caption"]["iou"], b["constant_box_iou"])
    row("caption: box IoU >= 0.5", lambda s: s["caption"]["hit"], b["constant_box_hit"])
    row("caption: number of objects right", lambda s: s["caption"]["count"])
    row("caption: silent where nothing is", lambda s: s["caption"]["silent_on_nothing"])
    row("caption: AUROC of box scores, for places", lambda s: s["caption"]["place_auroc"], 0.5)
    row("caption: AUROC of phrase scores, for both", lambda s: s["caption"]["name_auroc"], 0.5)
    for kind in r["unseen"]["caption"]["by_kind"]:
        row(f"caption: named, of kind {kind}", lambda s, k=kind: s["caption"]["by_kind"].get(k, {}).get("named"))
    row("phrase to box: IoU >= 0.5", lambda s: s["referring"]["locate_hit"], b["constant_box_hit"])
    row("phrase of nothing there: no box", lambda s: s["referring"]["locate_absent_refused"])
    row("box to phrase", lambda s: s["referring"]["describe"], b["commonest_name"])
    guess = {kind: max(v["majority"], v["question_only"]) for kind, v in asked.items()}
    row("questions: mean over their kinds", lambda s: share([v["right"] for v in s["ask"].values()]),
        share(list(guess.values())))  # fmt: skip
    for kind, v in asked.items():
        row(f"question: {kind} (n = {v['n']})", lambda s, k=kind: s["ask"].get(k, {}).get("right"), guess[kind])
        if "balanced" in v:
            row(f"question: {kind}, balanced over yes and no",
                lambda s, k=kind: s["ask"].get(k, {}).get("balanced"), 0.5)  # fmt: skip
    return out


def claims_line(r):
    f = r["false_claims"]
    return (
        f"False claims on {f['photographs']} photographs ({f['pictures']} pictures) without a known thing: "
        f"{f['claims']:.3f} of the pictures."
    )


def nouns_lines(r):
    """How evenly unseen designs are named: nouns, and the packages of the cut-outs"""
    by = r["unseen"]["named_by"]
    named = {k: v["named"] for k, v in by["noun"].items()}
    often, seldom = sum(v >= 0.9 for v in named.values()), sum(v < 0.5 for v in named.values())
    never = ", ".join(k for k, v in named.items() if v == 0)
    packages = sorted(by["package"].items(), key=lambda kv: -kv[1]["named"])
    return [
        f"Of {len(named)} unseen nouns {often} are named in at least .9 of their scenes, {seldom} in less than half.",
        f"Never named: {never or 'none'}.",
        "By package: " + ", ".join(f"{k} {v['named']:.2f} of {v['n']}" for k, v in packages) + ".",
    ]


def table(r):
    """The figures for people"""
    lines = [f"{r['scenes']} scenes a set{'':20}seen   unseen   without looking"]
    for label, *values in rows(r):
        numbers = [f"{v:.3f}" if v is not None else "  -  " for v in values]
        lines.append(f"{label:44}{numbers[0]}  {numbers[1]}    {numbers[2].replace('-', ' ')}".rstrip())
    return "\n".join([*lines, claims_line(r), *nouns_lines(r)])


def markdown(r):
    """The same for a document"""
    lines = ["| | seen designs | unseen designs | without looking |", "| --- | --- | --- | --- |"]
    for label, *values in rows(r):
        cells = [f"{v:.3f}" if v is not None else "" for v in values]
        lines.append(f"| {label.replace('>=', '≥')} | {cells[0]} | {cells[1]} | {cells[2]} |")
    return "\n".join([*lines, "", claims_line(r)]) + "\n"


def contact_sheet(said, tested, path, columns=4, side=224):
    """Pictures with the truth in white, the answer's boxes in magenta, and what was said below"""
    sheet = Image.new("RGB", (columns * side, -(-len(tested) // columns) * (side + 56)), "white")
    for i, ((text, entities), case) in enumerate(zip(said, tested, strict=True)):
        im = case.image.resize((side, side), Image.BICUBIC)
        draw = ImageDraw.Draw(im)
        for ink, boxes in (("white", [o.box for o in case.objects]), ("magenta", [e[1] for e in entities])):
            for b in boxes:
                x1, x2, y1, y2 = *sorted((b[0], b[2])), *sorted((b[1], b[3]))
                draw.rectangle([v * side for v in (x1, y1, x2, y2)], outline=ink)
        x, y = i % columns * side, i // columns * (side + 56)
        sheet.paste(im, (x, y))
        words = re.findall(r"\S.{0,34}(?:\s|$)|\S+", text)[:4]
        ImageDraw.Draw(sheet).multiline_text((x + 3, y + side + 2), "\n".join(words), fill="black", spacing=1)
    sheet.save(path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--world", required=True)
    who = ap.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", help="what kosmos_edge.load takes")
    who.add_argument("--shards", help="prefix of float16 shards, RUN/carry")
    ap.add_argument("--device", default="", help="of --shards; default: cuda if there is one")
    ap.add_argument("--scope", choices=SCOPES, default="all", help="the one that the model was trained in")
    ap.add_argument("--count", type=int, default=1000, help="scenes of each set")
    ap.add_argument("--json")
    ap.add_argument("--markdown", help="file for the table as docs/nano.md has it")
    ap.add_argument("--sheet", help="PNG of 16 unseen scenes with boxes")
    a = ap.parse_args()
    if a.model:
        nano = EngineAnswers(a.model)
    else:
        import torch

        from wide.carry import model_of

        device = a.device or ("cuda" if torch.cuda.is_available() else "cpu")
        nano = TorchAnswers(*model_of(a.shards), device)
    result = evaluate(nano, World(a.world, scope=a.scope), a.count)
    sheets = {k: result[k].pop("sheet") for k in SETS}
    print(table(result))
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if a.markdown:
        with open(a.markdown, "w", encoding="utf-8") as f:
            f.write(markdown(result))
    if a.sheet:
        os.makedirs(os.path.dirname(os.path.abspath(a.sheet)), exist_ok=True)
        contact_sheet(*sheets["unseen"], a.sheet)


if __name__ == "__main__":
    main()
