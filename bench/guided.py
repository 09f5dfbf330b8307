"""What contrastive search and guidance by the picture do to nano's captions: repetition, right names, wrong names.

    python bench/guided.py --scenes 100

Scenes are held out from nano's training. Long captions ("Describe this image in detail:") without the n-gram rule that
the model has by default, which would hide what the penalty does. A name is an object's colour and shape, "red star".
"""

import argparse
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import kosmos_edge
from kosmos_edge.quality.nano_world import COLOR_NAMES, HELD_OUT_SEED, SHAPES, render, sample_scene

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "contrastive, 0.1": {"degeneration_penalty": 0.1},
    "contrastive, 0.3": {"degeneration_penalty": 0.3},
    "contrastive, 0.6": {"degeneration_penalty": 0.6},
    "guided by itself, 0.5": {"image_weight": 0.5},
    "guided by itself, 2": {"image_weight": 2.0},
    "contrastive, 0.1, guided, 2": {"degeneration_penalty": 0.1, "image_weight": 2.0},
}


def repeated(ids: Sequence[int], n: int = 4) -> float:
    """The share of an answer's n-grams that it had before."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def names_in(text: str) -> set[str]:
    """Every colour and shape that stand side by side in it."""
    words = [word.strip(".,;:!?").lower() for word in text.split()]
    return {f"{a} {b}" for a, b in pairwise(words) if a in COLOR_NAMES and b in SHAPES}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--max-tokens", type=int, default=64)
    given = parser.parse_args()
    scenes = [sample_scene(HELD_OUT_SEED + number) for number in range(given.scenes)]
    with kosmos_edge.load(given.model) as model:
        print("| decoding | repeated 4-grams | objects named | names that are right | tokens |")
        print("| --- | --- | --- | --- | --- |")
        for way, options in WAYS.items():
            rates, lengths, found, there, right, said = [], [], 0, 0, 0, 0
            for scene in scenes:
                answer = model.caption(
                    render(scene), "long", max_tokens=given.max_tokens, no_repeat_ngram_size=0, **options
                )
                truth = {thing.name for thing in scene.objects}
                named = names_in(answer.text)
                rates.append(repeated(answer.token_ids))
                lengths.append(len(answer.token_ids))
                found, there = found + len(truth & named), there + len(truth)
                right, said = right + len(truth & named), said + len(named)
            share = right / said if said else float("nan")
            print(
                f"| {way} | {100 * statistics.mean(rates):.1f} % | {100 * found / there:.1f} % | {100 * share:.1f} % "
                f"| {statistics.mean(lengths):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
