"""How often the runtime names a picture as its shots do, by number of shots: the curve of learning in context.

    python -m incontext.evaluate --model nano-in-context.gguf --json figures.json --plot curve.svg

Every answer is `Model.classify(..., prompt="a", examples=...)`, the likeliest of the episode's words, on scenes that
no training has seen. An episode is asked with its last 0, 1, 2, 4 and 8 shots, so that all numbers of shots are about
the same questions. Conditions:

    trained    words, values and pairs of them that training had, in new episodes
    pairs      only pairs of word and value that training never had
    words      words that training never had
    values     shapes and colours that training never had in an episode
    shuffled   as "pairs", but the labels of the shots are drawn without a look at the pictures: chance is expected

"ideal" is what an observer gets on the same episodes who knows how they are made (see incontext.episodes).
"""

import argparse
import json
import math
import random

from world import HELD_OUT_SEED

from incontext import episodes, plot
from incontext.pictures import every_kind, index_by_kind, kind_of, paint
from incontext.words import PROMPT, WORDS

SHOTS = (0, 1, 2, 4, 8)
CONDITIONS = (*episodes.CONDITIONS, "shuffled")


def interval(right, count, z=1.96):
    """Wilson's 95 % interval of a share"""
    p = right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return [min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half))]  # the share itself, whatever is rounded


def choose(episode, by_kind, rng):
    """A picture for each kind of the episode, none twice if there are enough"""
    pictures = []
    for kind in episode.kinds:
        new = [n for n in by_kind[kind] if n not in pictures]
        pictures.append(rng.choice(new or by_kind[kind]))
    return pictures


def is_right(answer, episode, pictures):
    """Whether answer(shots, picture, labels) is: shots are (picture, label), pictures numbers"""
    names = [WORDS[word] for word in episode.words]
    labels = [names[n] for n in episode.classes]
    shots = list(zip(pictures[:-1], labels[:-1], strict=True))
    return answer(shots, pictures[-1], names) == labels[-1]


def curve(answer, drawn, by_kind, seed=0, shuffle=False):
    """{shots: {"right", "n", "value", "ci95", "ideal"}} of these episodes"""
    right, best = dict.fromkeys(SHOTS, 0), dict.fromkeys(SHOTS, 0.0)
    for n, whole in enumerate(drawn):
        rng = random.Random(f"{seed}:{n}")
        pictures = choose(whole, by_kind, rng)
        if shuffle:
            whole = episodes.shuffled(whole, rng)
        for k in SHOTS:
            episode = episodes.last(whole, k)
            right[k] += is_right(answer, episode, pictures[-k - 1 :])
            best[k] += episodes.ideal_share(episode)
    count = len(drawn)
    return {
        k: {
            "right": right[k],
            "n": count,
            "value": right[k] / count,
            "ci95": interval(right[k], count),
            "ideal": best[k] / count,
        }
        for k in SHOTS
    }


def series(condition, rule, classes, count):
    """The episodes of a condition, the same whenever asked"""
    held_out = "pairs" if condition == "shuffled" else condition
    seed = f"figures {held_out} {rule} {classes}"
    return episodes.series(seed, count, classes=classes, rule=rule, condition=held_out)


def in_runtime(model, scenes):
    """-> answer(shots, picture, labels) of a kosmos_edge.Model; the scenes' pictures are encoded once"""
    encoded = {}

    def see(n):
        if n not in encoded:
            encoded[n] = model.encode(paint(scenes[n]))
        return encoded[n]

    def answer(shots, picture, labels):
        examples = [(see(n), label) for n, label in shots]
        return model.classify(see(picture), labels, prompt=PROMPT, examples=examples).best.text

    return answer


def rows(answer, by_kind, count, classes=(2, 4), conditions=CONDITIONS):
    """One row for each condition, rule and number of classes"""
    found = []
    for condition in conditions:
        for n in classes:
            if condition == "values" and n > len(episodes.HELD_OUT_COLORS):
                continue  # too few colours are held out
            for rule in episodes.RULES:
                drawn = series(condition, rule, n, count)
                measured = curve(answer, drawn, by_kind, shuffle=condition == "shuffled")
                found.append({"condition": condition, "classes": n, "rule": rule, "shots": measured})
                yield found[-1]


def pooled(found):
    """The rows with all rules together"""
    groups = {}
    for row in found:
        groups.setdefault((row["condition"], row["classes"]), []).append(row["shots"])
    out = []
    for (condition, classes), parts in groups.items():
        shots = {}
        for k in SHOTS:
            right, n = (sum(part[k][name] for part in parts) for name in ("right", "n"))
            ideal = sum(part[k]["ideal"] * part[k]["n"] for part in parts) / n
            shots[k] = {"right": right, "n": n, "value": right / n, "ci95": interval(right, n), "ideal": ideal}
        out.append({"condition": condition, "classes": classes, "rule": "all", "shots": shots})
    return out


def table(found):
    """The rows as Markdown"""
    head = " | ".join(str(k) for k in SHOTS)
    lines = [f"| held out | classes | rule | {head} | ideal, {SHOTS[-1]} |", "| --- " * (len(SHOTS) + 4) + "|"]
    for row in found:
        cells = []
        for k in SHOTS:
            low, high = row["shots"][k]["ci95"]
            cells.append(f"{row['shots'][k]['value']:.2f} ({low:.2f}-{high:.2f})")
        ideal = row["shots"][SHOTS[-1]]["ideal"]
        lines.append(f"| {row['condition']} | {row['classes']} | {row['rule']} | {' | '.join(cells)} | {ideal:.2f} |")
    return "\n".join(lines)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, help="a GGUF file, or nano for the packaged one")
    ap.add_argument("--count", type=int, default=200, help="episodes of each row")
    ap.add_argument("--least", type=int, default=2, help="pictures of the rarest kind that episodes choose from")
    ap.add_argument("--most", type=int, default=12, help="pictures of the commonest")
    ap.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    ap.add_argument("--classes", type=int, nargs="+", default=(2, 4))
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--json")
    ap.add_argument("--plot")
    a = ap.parse_args()
    import kosmos_edge

    scenes = every_kind(HELD_OUT_SEED, a.least, a.most)
    by_kind = index_by_kind([kind_of(scene) for scene in scenes])
    found = []
    with kosmos_edge.load(a.model, threads=a.threads) as model:
        answer = in_runtime(model, scenes)
        for row in rows(answer, by_kind, a.count, a.classes, a.conditions):
            found.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    print(table(pooled(found)))
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"model": a.model, "scenes": len(scenes), "rows": found, "pooled": pooled(found)}, f, indent=1)
            f.write("\n")
    if a.plot:
        with open(a.plot, "w", encoding="utf-8") as f:
            f.write(plot.svg(pooled(found), min(a.classes)))


if __name__ == "__main__":
    main()
