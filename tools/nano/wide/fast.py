"""The renderer for a CPU: what `paint.py` and `compose.py` paint, each layer only where it lies, compiled by numba.

A picture of 128 x 128 with four things takes half a millisecond of one core; painting whole layers takes four.
"""

import math

import numba
import numpy as np
import torch

from wide.spec import MAX_LAYERS


@numba.njit(inline="always")
def _texel(t):
    """32 bits -> R, G, B, A in 0..255"""
    return (
        np.float32(t & 255),
        np.float32((t >> 8) & 255),
        np.float32((t >> 16) & 255),
        np.float32((t >> 24) & 255),
    )


@numba.njit(inline="always")
def _bent(u, v, amount, waves, phase):
    """`paint.bent` of one place"""
    return u + amount * math.sin(2 * math.pi * (waves * v + phase)) * max(4 * u * (1 - u), np.float32(0))


@numba.njit(nogil=True, fastmath=True, cache=True)
def _layer(out, owner, atlas, offset, width, p, wrap):
    """One layer over what is there: out (3, S, S), owner (S, S); p is a row of `spec.rows_of` without its two first"""
    size = out.shape[1]
    y0, y1, x0, x1 = 0, size, 0, size
    if not wrap:
        det = p[0] * p[4] - p[1] * p[3]
        if width == 0 or det == 0:
            return
        low_x, low_y, high_x, high_y = 1e9, 1e9, -1e9, -1e9
        for i in range(4):
            u, v = (i & 1) - p[2], (i >> 1) - p[5]
            x, y = (p[4] * u - p[1] * v) / det, (p[0] * v - p[3] * u) / det
            low_x, high_x, low_y, high_y = min(low_x, x), max(high_x, x), min(low_y, y), max(high_y, y)
        reach = 1.0 / width  # half a texel beyond the square, generously
        x0, x1 = max(0, int(np.floor((low_x - reach) * size))), min(size, int(np.ceil((high_x + reach) * size)))
        y0, y1 = max(0, int(np.floor((low_y - reach) * size))), min(size, int(np.ceil((high_y + reach) * size)))
    for yi in range(y0, y1):
        y = np.float32((yi + 0.5) / size)
        for xi in range(x0, x1):
            x = np.float32((xi + 0.5) / size)
            u, v = p[0] * x + p[1] * y + p[2], p[3] * x + p[4] * y + p[5]
            if p[20] != 0 or p[23] != 0:
                u, v = _bent(u, v, p[20], p[21], p[22]), _bent(v, u, p[23], p[24], p[25])
            u, v = u * width - np.float32(0.5), v * width - np.float32(0.5)
            u0, v0 = int(np.floor(u)), int(np.floor(v))
            if not wrap and (u0 < -1 or v0 < -1 or u0 >= width or v0 >= width):
                continue
            fu, fv = np.float32(u - u0), np.float32(v - v0)
            r = g = b = a = np.float32(0)
            for dy in range(2):
                for dx in range(2):
                    ui, vi = u0 + dx, v0 + dy
                    if wrap:
                        ui, vi = ui % width, vi % width
                    elif ui < 0 or vi < 0 or ui >= width or vi >= width:
                        continue
                    w = (fu if dx else 1 - fu) * (fv if dy else 1 - fv) * np.float32(1 / 255)
                    tr, tg, tb, ta = _texel(atlas[offset + vi * width + ui])
                    r, g, b, a = r + tr * w, g + tg * w, b + tb * w, a + ta * w
            cr = min(max(p[6] * r + p[7] * g + p[8] * b + p[9] * a, np.float32(0)), a)
            cg = min(max(p[10] * r + p[11] * g + p[12] * b + p[13] * a, np.float32(0)), a)
            cb = min(max(p[14] * r + p[15] * g + p[16] * b + p[17] * a, np.float32(0)), a)
            if wrap:
                out[0, yi, xi], out[1, yi, xi], out[2, yi, xi] = cr, cg, cb
                continue
            under = 1 - a * p[18]
            out[0, yi, xi] = out[0, yi, xi] * under + cr * p[18]
            out[1, yi, xi] = out[1, yi, xi] * under + cg * p[18]
            out[2, yi, xi] = out[2, yi, xi] * under + cb * p[18]
            if a * p[18] > 0.5:
                owner[yi, xi] = np.uint8(p[19])


@numba.njit(nogil=True, fastmath=True, cache=True)
def _light(out, light, seed):
    """Gain, slopes and grain, in place; the grain is `paint.noise`"""
    size = out.shape[1]
    gain, right, down, grain = light
    start = (seed * 2654435761) & 0xFFFFFFFF
    for yi in range(size):
        for xi in range(size):
            x, y = np.float32((xi + 0.5) / size - 0.5), np.float32((yi + 0.5) / size - 0.5)
            shade, speck = gain * (1 + right * x + down * y), np.float32(0)
            if grain > 0:
                h = np.int64(yi * size + xi) + start
                for _ in range(2):
                    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
                h ^= h >> 16
                speck = grain * (np.float32(h & 0xFFFF) / np.float32(32767.5) - 1)
            for c in range(3):
                out[c, yi, xi] = min(max(out[c, yi, xi] * shade + speck, np.float32(0)), np.float32(1))


@numba.njit(nogil=True, cache=True)
def _paint(atlas, ground_atlas, where, params, light, seed, out, owner):
    for b in range(len(where)):
        _layer(out[b], owner[b], ground_atlas, where[b, 0, 0], where[b, 0, 1], params[b, 0], True)
        for k in range(1, MAX_LAYERS + 1):
            _layer(out[b], owner[b], atlas, where[b, k, 0], where[b, k, 1], params[b, k], False)
        _light(out[b], light[b], seed[b])


class Painter:
    """Takes arrays of scenes to pixels as `compose.Composer` does, at the model's size (no supersampling)."""

    def __init__(self, opened, picture):
        self.world, self.picture, self.size = opened, picture, picture

    def pictures(self, batch):
        """-> pixels (B, 3, picture, picture) float32 in 0..1, owner (B, picture, picture) uint8; tensors"""
        put = [np.asarray(batch[k]) for k in ("where", "params", "light", "seed")]
        n, size = len(put[0]), self.size
        out, owner = np.empty((n, 3, size, size), np.float32), np.zeros((n, size, size), np.uint8)
        _paint(self.world.atlas, self.world.ground_atlas, *put, out, owner)
        return torch.from_numpy(out), torch.from_numpy(owner)
