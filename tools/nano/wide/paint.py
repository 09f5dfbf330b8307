"""The reference renderer: a scene to a PIL picture with numpy alone. `compose.py` does the same on a device.

A pixel is a bilinear sample of each layer's chosen mip level, colours times alpha, laid over what is below; then
light and grain. Outside its square a sprite is clear, a background repeats. Rounded to 8 bits at the end.
"""

import numpy as np
from PIL import Image

from wide.spec import rows_of


def noise(seed, size):
    """(size, size) in -1..1, the same on every machine: a hash of the pixel's number and the seed in 32 bits"""
    x = np.arange(size * size, dtype=np.uint64) + np.uint64((seed * 2654435761) & 0xFFFFFFFF)
    for shift, factor in ((16, 0x45D9F3B), (16, 0x45D9F3B)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return (x & np.uint64(0xFFFF)).astype(np.float32).reshape(size, size) / 32767.5 - 1


def _texels(atlas, offset, width, y, x):
    return atlas[offset + y * width + x].view(np.uint8).reshape(*x.shape, 4).astype(np.float32) / 255


def _bilinear(atlas, row, u, v, wrap):
    offset, width = int(row[0]), int(row[1])
    x, y = u * width - 0.5, v * width - 0.5
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    out = 0
    for dy in (0, 1):
        for dx in (0, 1):
            xi, yi = (x0 + dx).astype(np.int64), (y0 + dy).astype(np.int64)
            weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
            if wrap:
                t = _texels(atlas, offset, width, yi % width, xi % width)
            else:
                inside = (xi >= 0) & (xi < width) & (yi >= 0) & (yi < width)
                t = _texels(atlas, offset, width, yi.clip(0, width - 1), xi.clip(0, width - 1)) * inside[..., None]
            out = out + t * weight
    return out.astype(np.float32)


def _colored(t, row):
    m = row[8:20].reshape(3, 4).astype(np.float32)
    a = t[..., 3:]
    return np.clip(t[..., :3] @ m[:, :3].T + a * m[:, 3], 0, a), a


def bent(u, v, amount, waves, phase):
    """u moved by a wave along v that is nothing at u's edges (`spec.NO_WARP` has the formula)"""
    return u + amount * np.sin(2 * np.pi * (waves * v + phase)) * np.maximum(4 * u * (1 - u), 0)


def paint_arrays(scene, opened, size):
    """-> (size, size, 3) float32 in 0..1, (size, size) uint8: which object is on top, 0 for none"""
    rows = rows_of(scene, opened, size)
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(line, line)

    def place(r, x, y):
        u, v = r[2] * x + r[3] * y + r[4], r[5] * x + r[6] * y + r[7]
        return bent(u, v, *r[22:25]), bent(v, u, *r[25:28])

    out = _colored(_bilinear(opened.ground_atlas, rows[0], *place(rows[0], x, y), True), rows[0])[0]
    owner = np.zeros((size, size), np.uint8)
    for r in rows[1 : 1 + len(scene.layers)]:
        inverse = r[2:8].reshape(2, 3)
        forward = np.linalg.inv(inverse[:, :2])
        corners = (np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) - inverse[:, 2]) @ forward.T
        reach = 1.0 / max(1, int(r[1]))  # half a texel beyond the square, generously
        low = np.floor((corners.min(0) - reach) * size).astype(int).clip(0, size)
        high = np.ceil((corners.max(0) + reach) * size).astype(int).clip(0, size)
        part = slice(low[1], high[1]), slice(low[0], high[0])
        if (high <= low).any():
            continue
        color, a = _colored(_bilinear(opened.atlas, r, *place(r, x[part], y[part]), False), r)
        color, a = color * np.float32(r[20]), a * np.float32(r[20])
        out[part] = out[part] * (1 - a) + color
        on_top = a[..., 0] > 0.5
        owner[part] = np.where(on_top, np.uint8(r[21]), owner[part])
    gain, right, down = scene.light
    out *= (gain * (1 + right * (x - 0.5) + down * (y - 0.5)))[..., None]
    if scene.grain:
        out += scene.grain * noise(scene.seed, size)[..., None]
    return np.clip(out, 0, 1), owner


def paint(scene, opened, size):
    """A scene as an RGB picture of size x size"""
    pixels, _ = paint_arrays(scene, opened, size)
    return Image.fromarray((pixels * 255 + 0.5).astype(np.uint8))
