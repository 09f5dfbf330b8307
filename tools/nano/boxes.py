"""Boxes and location tokens: 32 bins along each axis, a box is its upper left and its lower right cell."""

import numpy as np

BINS = 32  # location tokens per axis


def box_bins(box):
    """(..., 4) in 0..1 -> int bins x1, y1, x2, y2 in 0..31: floor for the upper left, ceil - 1 for the lower right"""
    b = np.asarray(box, np.float64) * BINS
    return np.concatenate([np.floor(b[..., :2]), np.ceil(b[..., 2:]) - 1], -1).clip(0, BINS - 1).astype(np.int64)


def box_indices(box):
    """A box -> its two location indices, upper left and lower right."""
    x1, y1, x2, y2 = box_bins(box).tolist()
    return y1 * BINS + x1, y2 * BINS + x2


def indices_box(a, b):
    """Two location indices -> the box: cell edges if they share a row or a column, else cell centres."""
    x1, y1, x2, y2 = a % BINS, a // BINS, b % BINS, b // BINS
    if x1 == x2 or y1 == y2:
        return x1 / BINS, y1 / BINS, (x2 + 1) / BINS, (y2 + 1) / BINS
    return tuple((v + 0.5) / BINS for v in (x1, y1, x2, y2))


def iou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = max(0.0, a[2] - a[0]) * max(0.0, a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / area if area > 0 else 0.0
