"""From a painted page to what training wants: patches, tokens' text, and dense labels of every patch.

Every patch is asked at SPOTS = 2 x 3 points (rows, columns of them) which character covers the point; and for each of
its two rows, at the middle, which segment it is (by reading order), how many characters of it stand before, and how
far the segment's box reaches.
"""

import numpy as np
from PIL import Image

from . import fonts
from .cells import cell_numbers
from .paint import MAX_PATCHES, PATCH, boxes, grid, turned
from .texts import CHARS

SPOTS_Y, SPOTS_X = (4.0, 12.0), (2.67, 8.0, 13.33)
CLASS = {c: i + 1 for i, c in enumerate(CHARS)}  # 0: no text
RANKS, PLACES = 40, 64  # classes of reading order and of characters before


def resized(picture):
    """The picture at the size of its grid, and (rows, columns)"""
    rows, columns = grid(*picture.size)
    return picture.resize((columns * PATCH, rows * PATCH), Image.BILINEAR, reducing_gap=None), rows, columns


def statistics(picture):
    """Mean and deviation of all values of the picture, which whiten it before it is resized"""
    counts = np.reshape(picture.histogram(), (-1, 256)).sum(0).astype(np.float64)
    n, value = counts.sum(), np.arange(256)
    mean = (counts * value).sum() / n
    return mean, max((counts * (value - mean) ** 2).sum() / n, 1 / n) ** 0.5


def final_boxes(page, how, rows, columns):
    """Whole-pixel boxes of the segments in the resized picture"""
    scale = np.array([columns * PATCH / page.width, rows * PATCH / page.height] * 2)
    return np.rint(boxes(page, how) * scale).astype(np.int32)


def edges_of(segment):
    """Where the characters of a segment begin, and where the last ends, in pixels of the straight page"""
    wide = fonts.advances(segment.font, segment.size)
    edges = np.cumsum([0.0] + [wide[c] for c in segment.text])
    return segment.x + edges * (fonts.load(segment.font, segment.size).getlength(segment.text) / edges[-1])


def cells_of(page, how, rows, columns, max_patches=MAX_PATCHES):
    """For each segment the number of the cell in which the middle of each character lies; -1: it has none"""
    table, out = cell_numbers(max_patches), []
    for s in page.segments:
        edges = edges_of(s)
        x, y = turned((edges[:-1] + edges[1:]) / 2, np.full(len(s.text), s.base - 0.3 * s.size), page, how.angle)
        column = np.clip((x * columns / page.width).astype(int), 0, columns - 1) // 2
        row = np.clip((y * rows / page.height).astype(int), 0, rows - 1) // 2
        known = (row < table.shape[0]) & (column < table.shape[1])
        out.append(np.where(known, table[np.where(known, row, 0), np.where(known, column, 0)], -1))
    return out


def dense(page, how, rows, columns, max_patches=MAX_PATCHES):
    """(characters (P, 2, 3) u8, ranks (P, 2) u8, places (P, 2) u8, reach (P, 2, 4) f32 in patches).

    Rank 0 and place 0: no text at the middle; else 1 + the number. reach: from the point to the box, x0 y0 x1 y1."""
    characters = np.zeros((max_patches, 2, 3), np.uint8)
    ranks, places = np.zeros((max_patches, 2), np.uint8), np.zeros((max_patches, 2), np.uint8)
    reach = np.zeros((max_patches, 2, 4), np.float32)
    fx = (np.arange(columns)[:, None] * PATCH + np.array(SPOTS_X)).ravel()
    fy = (np.arange(rows)[:, None] * PATCH + np.array(SPOTS_Y)).ravel()
    x, y = np.meshgrid(fx * page.width / (columns * PATCH), fy * page.height / (rows * PATCH))
    x, y = turned(x, y, page, -how.angle)
    found = np.zeros(x.shape, np.uint8)
    rank, place = np.zeros(x.shape, np.uint8), np.zeros(x.shape, np.uint8)
    for i, s in enumerate(page.segments):
        edges = edges_of(s)
        inside = (y >= s.base - 0.78 * s.size) & (y < s.base + 0.24 * s.size) & (x >= edges[0]) & (x < edges[-1])
        if inside.any():
            at = np.searchsorted(edges, x[inside], "right") - 1
            codes = np.array([CLASS[c] for c in s.text], np.uint8)
            found[inside] = codes[np.clip(at, 0, len(codes) - 1)]
            rank[inside] = min(i + 1, RANKS - 1)
            place[inside] = np.minimum(at + 1, PLACES - 1)
    n = rows * columns
    by_patch = lambda a: a.reshape(rows, 2, columns, 3).transpose(0, 2, 1, 3).reshape(n, 2, 3)  # noqa: E731
    characters[:n] = by_patch(found)
    ranks[:n], places[:n] = by_patch(rank)[:, :, 1], by_patch(place)[:, :, 1]
    if page.segments:
        box = final_boxes(page, how, rows, columns)[
            np.maximum(ranks[:n].astype(int), 1).clip(max=len(page.segments)) - 1
        ]
        middle_x, middle_y = np.meshgrid(np.arange(columns) * PATCH + 8.0, np.arange(rows) * PATCH)
        middle = np.stack([np.stack([middle_x, middle_y + dy] * 2, -1) for dy in SPOTS_Y], -2).reshape(n, 2, 4)
        reach[:n] = (box - middle) / PATCH * (ranks[:n, :, None] > 0)
    return characters, ranks, places, reach
