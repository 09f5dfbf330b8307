"""The nouns of the wider world, from `nouns.txt`: noun|group|emoji names|icon names."""

import os
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Noun:
    name: str
    group: str
    emoji: tuple
    icons: tuple


def nouns():
    with open(os.path.join(HERE, "nouns.txt"), encoding="utf-8") as f:
        rows = [line.rstrip("\n").split("|") for line in f if line.strip() and not line.startswith("#")]
    return [Noun(n, g, tuple(filter(None, e.split(","))), tuple(filter(None, i.split(",")))) for n, g, e, i in rows]
