"""Training batches by number, made in processes of their own.

What is in batch number n depends on (seed, n, progress) only. progress: 0 at the start of the training, 1 when the
whole world is in use; it sets which kinds of pages come and how bad they look.
"""

import multiprocessing as mp
import os
import queue
import signal

import numpy as np

from . import fonts, texts
from .labels import cells_of, dense, final_boxes, resized, statistics
from .layout import Layout
from .paint import MAX_PATCHES, PATCH, boxes, look, paint


class World:
    """The pages of one part of texts and fonts (`train` or `held`)"""

    def __init__(self, part, words=texts.WORDS, fallback=None):
        known = fallback if fallback is not None else texts.read_words(words, part)
        families = [[""]] if fallback is not None else fonts.families(part)
        if not families:
            raise SystemExit("no font of fonts.txt is installed: apt-get install the packages that it names")
        self.layout = Layout(texts.Texts(known), families)

    def sample(self, rng, kind, level, words=6, tokens=320):
        """(page, look, picture)"""
        page = self.layout.page(rng, kind, words, tokens)
        how = look(rng, level)
        return page, how, paint(rng, page, how)


def shown(page, how):
    """Indices of the segments that are on the sheet, in reading order: turning can push one over the edge"""
    b = boxes(page, how)
    return [i for i in range(len(b)) if b[i, 2] - b[i, 0] > 1 and b[i, 3] - b[i, 1] > 1]


def answer(page, how, rows, columns):
    """[(box of 4 whole pixels in the resized picture, text)] in reading order"""
    b = final_boxes(page, how, rows, columns)
    return [(tuple(int(v) for v in b[i]), page.segments[i].text) for i in shown(page, how)]


def arrays(page, how, picture):
    """One sample as arrays: patches (P, 768) u8, rows, columns (P,), mean, deviation, the dense labels"""
    mean, deviation = statistics(picture)
    picture, rows, columns = resized(picture)
    pixels = np.asarray(picture).reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4)
    n = rows * columns
    patches = np.zeros((MAX_PATCHES, 3 * PATCH * PATCH), np.uint8)
    patches[:n] = pixels.reshape(n, -1)
    at = np.zeros((2, MAX_PATCHES), np.int16)
    at[0, :n] = np.repeat(np.arange(1, rows + 1), columns)
    at[1, :n] = np.tile(np.arange(1, columns + 1), rows)
    return patches, at, np.float32([mean, deviation]), *dense(page, how, rows, columns)


def kinds(rng, stage, progress):
    """(kind, words in a line) of one page"""
    roll = rng.random()
    if stage == "short":  # lines alone, and pages without text
        most = 1 + int(progress * 12) if progress < 0.42 else 6
        return ("none", 1) if roll < 0.07 else ("line", min(6, most))
    table = (0.42, 0.66, 0.86, 0.97) if stage == "dense" else (0.0, 0.5, 0.77, 0.97)
    return layout_kind(roll, table), 6


def layout_kind(roll, table):
    for kind, edge in zip(("line", "lines", "receipt", "table"), table, strict=True):
        if roll < edge:
            return kind
    return "none"


def make(world, seed, number, size, stage, progress, tokens):
    """Batch `number`: stacked arrays, the answers, and for each line of them the cells of its characters"""
    rng = np.random.default_rng((seed, number))
    rows, answers, looks = [], [], []
    for _ in range(size):
        kind, words = kinds(rng, stage, progress)
        page, how, picture = world.sample(rng, kind, level_of(rng, progress), words, tokens)
        one = arrays(page, how, picture)
        rows.append(one)
        size_of_grid = int(one[1][0].max()), int(one[1][1].max())
        answers.append(answer(page, how, *size_of_grid))
        found = cells_of(page, how, *size_of_grid)
        looks.append([found[i] for i in shown(page, how)])
    return [np.stack(column) for column in zip(*rows, strict=True)], answers, looks


def level_of(rng, progress):
    """How bad a page may look: clean at first; later clean in a third, up to anything in the rest"""
    return 0.0 if rng.random() < 0.35 else min(1.0, progress)


def _work(world, wanted, made):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    world, parent = world(), os.getppid()
    while os.getppid() == parent:  # a killed training leaves nobody behind
        try:
            job = wanted.get(timeout=10)
        except queue.Empty:
            continue
        made.put((job[1], make(world, *job)))


class Source:
    """Batches in order from `workers` processes, a few ahead"""

    def __init__(self, plan, first, workers=1, ahead=6, world=lambda: World("train")):
        """plan: function of the number -> the arguments of `make` behind `world`, which a worker makes for itself"""
        context = mp.get_context("fork")
        self.plan, self.next, self.asked = plan, first, first
        self.wanted, self.made, self.early = context.Queue(), context.Queue(), {}
        self.processes = [
            context.Process(target=_work, args=(world, self.wanted, self.made), daemon=True) for _ in range(workers)
        ]
        for p in self.processes:
            p.start()
        self.ahead = ahead

    def __call__(self):
        while self.asked < self.next + self.ahead:
            self.wanted.put(self.plan(self.asked))
            self.asked += 1
        while self.next not in self.early:
            try:
                number, batch = self.made.get(timeout=30)
                self.early[number] = batch
            except queue.Empty:
                if not all(p.is_alive() for p in self.processes):  # its batch would never come
                    raise RuntimeError("a process that makes batches has ended") from None
        self.next += 1
        return self.early.pop(self.next - 1)

    def close(self):
        for p in self.processes:
            p.terminate()
