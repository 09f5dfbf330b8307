"""Held-out scenes as a folder of pictures with a file of labels, which `kosmos-edge bench quality --labels` reads.

    python -m wide.scenes --world world.zip --scope icons --out scenes --count 500
    kosmos-edge bench quality --model export --labels scenes/labels.json

The scenes are those of `figures.py`: unseen cut-outs, photographs never trained on behind them (`--set seen`: seen
cut-outs, new scenes). Pictures are PNG, boxes fractions of them; questions are drawn over all kinds in turn.
"""

import argparse
import json
import os
import random

from wide import batches, language, paint, spec
from wide.archive import World
from wide.figures import PAINTED, SETS
from wide.scope import SCOPES

QUESTIONS_PER_SCENE = 4


def label(scene, file, number, names):
    """A scene as a row of the file of labels; `number`: which kinds of questions come next"""
    rng, kinds, questions = random.Random(f"scene questions {number}"), language.QUESTIONS, []
    for turn in range(QUESTIONS_PER_SCENE):
        kind = kinds[(number * QUESTIONS_PER_SCENE + turn) % len(kinds)]
        made = language.ask(scene, rng, names, kind, style=False)
        if made:
            text = made[0].removeprefix("Question: ").removesuffix(" Answer:")
            questions.append({"question": text, "answer": made[1].strip(), "kind": kind})
    objects = [{"name": language.name_of(o), "box": [round(float(v), 5) for v in o.box]} for o in scene.objects]
    return {"file": file, "objects": objects, "questions": questions}


def write(world, out, split, seeds, size=PAINTED):
    """Scenes of these seeds, `size` pixels wide. -> the path of the labels"""
    os.makedirs(out, exist_ok=True)
    pools, names, rows = spec.Pools(world), language.known_names(world), []
    for i, seed in enumerate(seeds):
        scene = spec.sample(pools, seed, split, "test")
        file = f"scene-{i:05d}.png"
        paint.paint(scene, world, size).save(os.path.join(out, file))
        rows.append(label(scene, file, i, names))
    path = os.path.join(out, "labels.json")
    with open(path, "w") as f:
        json.dump({"boxes": "fractions", "pictures": rows}, f, indent=1)
        f.write("\n")
    return path


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--world", required=True)
    ap.add_argument("--scope", choices=SCOPES, default="all")
    ap.add_argument("--set", choices=SETS, default="unseen")
    ap.add_argument("--out", required=True)
    ap.add_argument("--count", type=int, default=500)
    ap.add_argument("--seeds", type=int, nargs="+", help="these scenes; default: --count of those that figures.py asks")
    ap.add_argument("--size", type=int, default=PAINTED, help="pixels of a side")
    a = ap.parse_args()
    seeds = a.seeds or range(batches.HELD_OUT_SEED, batches.HELD_OUT_SEED + a.count)
    print(write(World(a.world, scope=a.scope), a.out, SETS[a.set], seeds, a.size))


if __name__ == "__main__":
    main()
