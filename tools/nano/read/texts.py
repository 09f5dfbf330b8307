"""Strings as they stand on labels, receipts, tables and pages, made of words and numbers at random.

Words are drawn without grammar on purpose: a reader that guesses the next word instead of looking gains nothing.
The words of `held` never occur in training: a word belongs to them by a hash of its letters.
"""

import zlib

import numpy as np

WORDS = "/usr/share/dict/american-english"  # Debian's wamerican
EXTRA = "£€°"
CHARS = "".join(chr(c) for c in range(32, 127)) + EXTRA  # what the world is written with
HELD_SHARE = 10  # one word in ten is for measuring only


def held(word):
    """Whether a word is for measuring only; the case of its letters does not matter"""
    return zlib.crc32(word.lower().encode()) % HELD_SHARE == 0


def read_words(path, part):
    """Words of one line each. part: `train` or `held`"""
    with open(path, encoding="utf-8") as f:
        words = sorted({line.strip() for line in f})
    good = [w for w in words if w.isascii() and w.replace("'", "").isalpha() and 1 < len(w) <= 12]
    return [w for w in good if held(w) == (part == "held")]


class Texts:
    """Draws strings; every method takes a numpy Generator first"""

    def __init__(self, words):
        self.words = np.array(words)
        lengths = np.array([len(w) for w in words])
        self.weights = 1.0 / np.bincount(lengths)[lengths] * np.minimum(lengths, 8) ** 0.5
        self.cumulative = np.cumsum(self.weights / self.weights.sum())

    def word(self, rng):
        w = str(self.words[min(np.searchsorted(self.cumulative, rng.random()), len(self.words) - 1)])
        roll = rng.random()
        return w.lower() if roll < 0.5 else w.capitalize() if roll < 0.8 else w.upper() if roll < 0.93 else w

    def number(self, rng):
        kind = rng.integers(10)
        n = int(rng.integers(10 ** int(rng.integers(1, 6))))
        if kind < 2:
            return str(n)
        if kind < 4:
            return self.price(rng)
        if kind == 4:
            day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(1950, 2040)
            mark = "./-"[rng.integers(3)]
            return f"{day:02d}{mark}{month:02d}{mark}{year}"
        if kind == 5:
            return f"{rng.integers(24):02d}:{rng.integers(60):02d}"
        if kind == 6:
            return f"{n}%" if rng.random() < 0.7 else f"{n}°"
        if kind == 7:
            return f"{n:,}"
        if kind == 8:
            return f"{n / 100:.2f}"
        unit = ("kg", "g", "ml", "cm", "mm", "x", "pcs", "W", "V")[rng.integers(9)]
        return f"#{n}" if rng.random() < 0.5 else f"{n}{unit}"

    def price(self, rng):
        value = int(rng.integers(10 ** int(rng.integers(2, 6)))) / 100
        return f"{['', '', '$', '£', '€', '-'][rng.integers(6)]}{value:.2f}"

    def code(self, rng):
        """Letters and digits without meaning, all characters of the world, an address"""
        kind = rng.integers(4)
        if kind == 0:
            return "".join(CHARS[i] for i in rng.integers(1, len(CHARS), int(rng.integers(2, 9))))
        if kind == 1:
            letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
            parts = ["".join(letters[i] for i in rng.integers(0, 36, int(rng.integers(2, 5)))) for _ in range(2)]
            return "-/"[rng.integers(2)].join(parts)
        if kind == 2:
            return f"{self.word(rng).lower()}@{self.word(rng).lower()}.{['com', 'org', 'net', 'eu'][rng.integers(4)]}"
        return f"www.{self.word(rng).lower()}.{['com', 'org', 'net', 'eu'][rng.integers(4)]}"

    def token(self, rng):
        """One stretch without blanks"""
        roll = rng.random()
        if roll < 0.72:
            t = self.word(rng)
            more = rng.random()
            if more < 0.16:
                t += ".,:;!?"[rng.integers(6)]
            elif more < 0.22:
                t = f"({t})" if more < 0.19 else f'"{t}"'
            elif more < 0.25:
                t += "-" + self.word(rng).lower()
            return t
        if roll < 0.92:
            return self.number(rng)
        return "&+-=/*|"[rng.integers(7)] if roll < 0.94 else self.code(rng)

    def phrase(self, rng, words, limit=48):
        """`words` tokens with single blanks, cut back to whole tokens within `limit` characters"""
        tokens = [self.token(rng)]
        for _ in range(words - 1):
            t = self.token(rng)
            if len(" ".join(tokens)) + 1 + len(t) > limit:
                break
            tokens.append(t)
        return " ".join(tokens)[:limit].strip()
