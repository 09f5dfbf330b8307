"""Training batches by number: scenes, their texts as tokens, what the dense heads are to say. No pixels, no torch
needed to make one; a loader's worker processes make them while the device paints and learns.

Batch `step` of a run is a function of (seed, step) alone. Texts are packed behind each picture in slots of fixed
room, so that every batch of a kind has the same shapes.
"""

import random

import numpy as np
import texts
from boxes import box_bins
from vocabulary import EOS, PAD

from wide import language, spec

IGNORE = -100
# sets of texts behind a picture, and room for each in tokens; with the 67 of the picture multiples of 16
SHORT = (("caption", 64), ("locate", 29), ("describe", 16), *[("ask", 24)] * 4)
LONG = (("detailed", 84), ("plain", 44), ("locate", 29), ("describe", 16), *[("ask", 24)] * 2)
LONG_SHARE = 0.3
ANSWER_WEIGHT = 4.0  # of an answer's tokens, a refusal to locate among them: few among a caption's many
# of a caption that says that nothing is known: moves the point from which nano claims to see something
NOTHING_WEIGHT = 16.0
EXTRA_EVERY, EXTRA_ROWS, EXTRA_ROOM = 8, 32, 48  # every 8th batch also has 32 pairs of pictures and 32 lines of text
TRAIN_SEED, VALID_SEED, HELD_OUT_SEED = 0, 910_000_000, 900_000_000
NO_COLOR = len(spec.COLOR_NAMES)


def classes_of(opened):
    """What the dense heads tell apart: nouns, shapes, a word, a number"""
    return [*opened.nouns, *language.shapes.SHAPES, "word", "number"]


def make_text(kind, scene, rng, names):
    """(prompt, target) of a kind; some with or without <grounding> where a caller of the runtime may choose"""
    if scene.shapes_alone and kind in ("ask", "locate") and rng.random() < 0.6:
        return v0_text(kind, scene, rng)
    if kind == "caption":
        return language.caption(scene)
    if kind == "plain":
        return language.plain(scene) if rng.random() < 0.6 else language.detailed(scene, tagged=False)
    if kind == "detailed":
        return language.detailed(scene)
    if kind == "locate":
        return language.locate(scene, rng, names)
    if kind == "describe":
        prompt, target = language.describe(scene, rng)
        return (prompt.removeprefix("<grounding>") if rng.random() < 0.15 else prompt), target
    prompt, target = language.ask(scene, rng, names)
    return ("<grounding> " + prompt if rng.random() < 0.1 else prompt), target


def v0_text(kind, scene, rng):
    """What v0 is asked of its world ("What shape is red?"), which `kosmos-edge bench quality` asks too"""
    names, kinds = language.shapes.SHAPES, language.shapes.BACKGROUNDS
    objects = [(names.index(o.name), spec.COLOR_NAMES.index(o.color), o.box) for o in scene.objects]
    if kind == "locate":
        return texts.locate(objects, rng)
    return texts.ask(objects, (kinds.index(scene.kind), language.shapes.TONES.index(scene.tone)), rng)


class Maker:
    """Makes batches. `vocabulary_path` is opened where the batch is made (a tokenizer does not travel)."""

    def __init__(self, opened, vocabulary_path, size, picture, seed=0, texts=True):
        self.pools, self.size, self.picture, self.seed, self.texts = spec.Pools(opened), size, picture, seed, texts
        self.names = language.known_names(opened)
        self.class_of = {n: i for i, n in enumerate(classes_of(opened))}
        self.vocabulary_path, self.vocabulary = vocabulary_path, None
        self.first_scene = TRAIN_SEED + seed * 100_000_000

    def scenes(self, step):
        first, scope = self.first_scene + step * self.size, self.pools.scope
        practices = (None, scope.reading) if self.texts else (scope.practice, scope.practice)
        return [spec.sample(self.pools, s, practice=practices[s % 2]) for s in range(first, first + self.size)]

    def labels(self, scenes):
        """For the dense heads: class, color, box in bins and presence of each object; count and kind of background"""
        n, m = len(scenes), spec.MAX_OBJECTS
        out = {
            "class": np.zeros((n, m), np.int64),
            "color": np.full((n, m), NO_COLOR),
            "box": np.zeros((n, m, 4), np.int64),
        }
        for b, s in enumerate(scenes):
            for i, o in enumerate(s.objects):
                out["class"][b, i] = self.class_of[o.kind if o.kind in ("word", "number") else o.name]
                if o.color:
                    out["color"][b, i] = spec.COLOR_NAMES.index(o.color)
                out["box"][b, i] = box_bins(o.box)
        out["count"] = np.array([len(s.objects) for s in scenes])
        out["kind"] = np.array([spec.KINDS.index(s.kind) for s in scenes])
        return out

    def _fill(self, row, room, prompt, target, weight):
        """One text into a slot; -> False if it is too long for it"""
        p = self.vocabulary.encode(prompt) if prompt else []
        full = p + self.vocabulary.encode(target, target=True) + [EOS]
        n = len(full) - 1
        if n > room:
            return False
        ids, labels, weights = row
        ids[:n] = full[:-1]
        labels[max(0, len(p) - 1) : n] = full[max(1, len(p)) :]
        weights[:n] = weight
        return True

    def pack(self, scenes, kinds, rng):
        """ids, labels (the next token where it belongs to a target), weights: (B, T); `left_out` texts had no room"""
        total = sum(room for _, room in kinds)
        ids = np.full((len(scenes), total), PAD, np.int64)
        labels = np.full((len(scenes), total), IGNORE, np.int64)
        weights = np.ones((len(scenes), total), np.float32)
        left_out = 0
        for b, scene in enumerate(scenes):
            at = 0
            for kind, room in kinds:
                slot = slice(at, at + room)
                text = make_text(kind, scene, rng, self.names)
                weight = ANSWER_WEIGHT if kind in ("ask", "locate") else 1.0
                if kind in ("caption", "plain", "detailed") and not scene.objects:
                    weight = NOTHING_WEIGHT
                left_out += not self._fill((ids[b, slot], labels[b, slot], weights[b, slot]), room, *text, weight)
                at += room
        return {"ids": ids, "labels": labels, "weights": weights, "left_out": np.array(left_out)}

    def extras(self, scenes, rng):
        """Two pictures in a row, each with its plain caption (pictures 2i and 2i + 1), and lines of text alone.

        Layout of `pair`: [EXTRA_ROOM of the first text, EXTRA_ROOM of the second]; pads are at the end of each."""
        rows = min(EXTRA_ROWS, len(scenes) // 2)
        shape = (rows, 2, EXTRA_ROOM)
        pair = np.full(shape, PAD, np.int64), np.full(shape, IGNORE, np.int64), np.ones(shape, np.float32)
        lines = [np.full((rows, EXTRA_ROOM), v) for v in (PAD, IGNORE)] + [np.ones((rows, EXTRA_ROOM), np.float32)]
        for r in range(rows):
            for k in range(2):
                prompt, target = language.plain(scenes[2 * r + k])
                self._fill([a[r, k] for a in pair], EXTRA_ROOM, prompt, target, 1.0)
            self._fill([a[r] for a in lines], EXTRA_ROOM, *language.fact(rng, self.names), 1.0)
        return {
            "pair_ids": pair[0], "pair_labels": pair[1], "line_ids": lines[0], "line_labels": lines[1],
        }  # fmt: skip

    def __len__(self):
        return 1 << 40

    def __getitem__(self, step):
        if self.vocabulary is None and self.texts:
            from vocabulary import Vocabulary

            self.vocabulary = Vocabulary(self.vocabulary_path)
        rng = random.Random(f"{self.seed} {step}")
        scenes = self.scenes(step)
        out = {**spec.arrays(scenes, self.pools.world, self.picture), **self.labels(scenes)}
        if self.texts:
            long = rng.random() < LONG_SHARE
            out.update(self.pack(scenes, LONG if long else SHORT, rng), long=np.array(int(long)))
            if step % EXTRA_EVERY == 0:
                out.update(self.extras(scenes, rng))
        return out


def sentences(opened, count=30_000, seed=11):
    """What the vocabulary is trained on: the world's own sentences without tags, then all its words"""
    import vocabulary

    pools, rng, names = spec.Pools(opened), random.Random(seed), language.known_names(opened)
    words = {w for n in names for p in (n, language.plural(n)) for w in p.split()}
    words |= {w for s in opened.sprites if s["kind"] in ("word", "number") for w in s["name"].split()}
    words |= {*vocabulary.EVERYDAY, *spec.COLOR_NAMES, *spec.KINDS, *language.shapes.TONES, *language.NUMBERS}
    for i in range(count // 3):
        s = spec.sample(pools, 800_000_000 + i)
        pairs = [language.plain(s), language.detailed(s), language.locate(s, rng, names), language.fact(rng, names)]
        pairs += [language.describe(s, rng), *(language.ask(s, rng, names) for _ in range(4))]
        if s.shapes_alone:
            pairs = [v0_text(kind, s, rng) for kind in ("ask", "ask", "ask", "locate")]
        for prompt, target in rng.sample(pairs, 3):
            line = " ".join(vocabulary._TAG.sub(" ", prompt + target).split()).replace(" .", ".").replace(" ,", ",")
            words.update(w for w in line.replace("?", " ").split() if w.isalpha())
            yield line
    yield from vocabulary.repeated(words)
