"""The cells of 2 x 2 patches that the latents stand for."""

import functools

import numpy as np

from .paint import MAX_PATCHES

LONGEST = 64  # columns: cells beyond have no latent, so pictures wider than 16 : 1 are read in part
TALLEST = 28  # rows


def cells(max_patches=MAX_PATCHES):
    """(row, column) of every 2 x 2 cell, 0-based, that some grid within the limits has"""
    return [
        (r, c) for r in range(TALLEST // 2) for c in range(LONGEST // 2) if (2 * r + 1) * (2 * c + 1) <= max_patches
    ]


@functools.lru_cache(maxsize=4)
def cell_numbers(max_patches=MAX_PATCHES):
    """(rows of cells, columns of cells) -> number of the cell, -1 where there is none"""
    table = np.full((TALLEST // 2, LONGEST // 2), -1, np.int64)
    for i, (r, c) in enumerate(cells(max_patches)):
        table[r, c] = i
    return table
