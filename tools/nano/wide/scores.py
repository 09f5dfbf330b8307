"""What `--min-score` keeps and what it leaves out, threshold by threshold: the table of docs/nano.md.

    python -m wide.scores --world world.zip --scope icons --model nano --markdown scores.md

Captions of the held-out scenes of `figures.py` and of the photographs without a known thing, by `Entity.phrase_score`:
right is a box with IoU >= 0.5 and the whole phrase. `locate` asks each scene for a thing that is there (right: IoU >=
0.5) and for one that is not, by `Entity.found_score`.
"""

import argparse
import random

from boxes import iou

from wide import language, spec
from wide.archive import World
from wide.figures import HIT, SETS, cases, match
from wide.scope import SCOPES

THRESHOLDS = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def caption_scores(answer, objects):
    """[(score, right)] of a caption's entities"""
    said = [(e.phrase, tuple(b.normalized), e.phrase_score) for e in answer.entities for b in e.boxes]
    matched = ((e, None if k is None else objects[k]) for e, k in zip(said, match(said, objects)[1], strict=True))
    return [
        (e[2], o is not None and iou(e[1], o.box) >= HIT and e[0] == language.phrase_of(o))
        for e, o in matched
        if e[2] is not None
    ]


def locate_scores(model, picture, objects, names, rng):
    """[(score, right)] of what is found when asked for something here and for something that is not"""
    phrase = language.phrase_of(rng.choice(objects))
    absent = rng.choice([n for n in rng.sample(names, 9) if n not in {o.name for o in objects}])
    out = []
    for asked in (phrase, language.with_article(absent)):
        true = [o.box for o in objects if language.phrase_of(o) == asked]
        for e in model.locate(picture, asked).entities[:1]:
            out.append((e.found_score, any(iou(tuple(e.boxes[0].normalized), t) >= HIT for t in true)))
    return out


def measure(model, world, count):
    """-> {"seen", "unseen", "locate seen", "locate unseen": [(score, right)], "photographs": [highest or None]}"""
    pools, names, out = spec.Pools(world), language.known_names(world), {}
    for label, split in SETS.items():
        rng = random.Random("referring")
        said, found = [], []
        for case in cases(world, pools, split, count):
            picture = model.encode(case.image)
            said += caption_scores(model.caption(picture, ground=True), case.objects)
            if case.objects:
                found += locate_scores(model, picture, case.objects, names, rng)
        out[label], out[f"locate {label}"] = said, found
    claims = [model.caption(image, ground=True).entities for _, image in world.photographs()]
    out["photographs"] = [max((e.phrase_score for e in claim), default=None) for claim in claims]
    return out


def kept(scored, right, threshold):
    """Share of the right or wrong ones that reach the threshold"""
    values = [score >= threshold for score, is_right in scored if is_right == right]
    return f"{sum(values) / len(values):.3f}" if values else ""


def precision(scored, threshold):
    """Share of right ones among those that reach the threshold"""
    values = [right for score, right in scored if score >= threshold]
    return f"{sum(values) / len(values):.3f}" if values else ""


def markdown(r):
    """The table: a row for each threshold"""
    sets = [
        ("seen", "seen"),
        ("unseen", "unseen"),
        ("locate, seen", "locate seen"),
        ("locate, unseen", "locate unseen"),
    ]
    head = ["`--min-score`", *(f"{name}: {what} kept" for name, _ in sets for what in ("right", "wrong"))]
    head[5:5] = ["unseen: right among the kept", "photographs with a claim"]
    lines = [f"| {' | '.join(head)} |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for t in THRESHOLDS:
        cells = [f"{t:g}", *(kept(r[key], right, t) for _, key in sets for right in (True, False))]
        claims = sum(p is not None and p >= t for p in r["photographs"])
        cells[5:5] = [precision(r["unseen"], t), f"{claims} of {len(r['photographs'])}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--world", required=True)
    ap.add_argument("--model", default="nano", help="what kosmos_edge.load takes")
    ap.add_argument("--scope", choices=SCOPES, default="all", help="the one that the model was trained in")
    ap.add_argument("--count", type=int, default=1000, help="scenes of each set")
    ap.add_argument("--markdown", help="file for the table as docs/nano.md has it")
    a = ap.parse_args()
    import kosmos_edge

    table = markdown(measure(kosmos_edge.load(a.model), World(a.world, scope=a.scope), a.count))
    print(table, end="")
    if a.markdown:
        with open(a.markdown, "w", encoding="utf-8") as f:
            f.write(table)


if __name__ == "__main__":
    main()
