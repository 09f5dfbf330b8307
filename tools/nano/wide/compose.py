"""The renderer for a device: a batch of scenes to pictures with torch, tens of thousands a second on a GPU.

It paints what `paint.py` paints, from the same rows of numbers. Everything is elementwise over (B, S, S) with gathers
of 32-bit texels from two flat atlases, so that `torch.compile` turns a whole batch into a kernel or two; without it
the same code runs on a CPU. `Composer.pictures` then shrinks to what the model sees with PIL's bicubic weights, as
the runtime does.
"""

import math

import numpy as np
import torch

from wide.spec import MAX_LAYERS, ROW

FIELDS = 26  # numbers of a row after the two whole ones


def bicubic_weights(big, small):
    """(small, big) float32: PIL's antialiased bicubic (a = -0.5) of one axis"""
    scale = big / small
    support = 2.0 * max(scale, 1.0)
    out = np.zeros((small, big))
    for i in range(small):
        centre = (i + 0.5) * scale
        low, high = max(0, int(centre - support + 0.5)), min(big, int(centre + support + 0.5))
        x = np.abs((np.arange(low, high) + 0.5 - centre) / max(scale, 1.0))
        w = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
        out[i, low:high] = w / w.sum()
    return torch.from_numpy(out.astype(np.float32))


def _bytes(t):
    """int32 texels -> R, G, B, A in 0..1"""
    return [((t >> s) & 255).float() / 255 for s in (0, 8, 16, 24)]


def _bent(u, v, amount, waves, phase):
    """`paint.bent` for a batch"""
    return u + amount * (2 * math.pi * (waves * v + phase)).sin() * (4 * u * (1 - u)).clamp_min(0)


def _sample(atlas, where, p, x, y, wrap):
    """One layer of every scene: bilinear, colours times alpha. where (B, 2), p (B, 26) -> four (B, S, S)"""
    offset, width = where[:, 0, None, None], where[:, 1, None, None]
    a = [p[:, i, None, None] for i in range(6)]
    u, v = a[0] * x + a[1] * y + a[2], a[3] * x + a[4] * y + a[5]
    if not wrap:
        w = [p[:, i, None, None] for i in range(20, 26)]
        u, v = _bent(u, v, *w[:3]), _bent(v, u, *w[3:])
    u, v = u * width - 0.5, v * width - 0.5
    u0, v0 = u.floor(), v.floor()
    fu, fv = u - u0, v - v0
    u0, v0 = u0.int(), v0.int()
    out = [0, 0, 0, 0]
    for dy in (0, 1):
        for dx in (0, 1):
            ui, vi = u0 + dx, v0 + dy
            weight = (fu if dx else 1 - fu) * (fv if dy else 1 - fv)
            if wrap:
                at = offset + (vi % width) * width + ui % width
            else:
                weight = weight * ((ui >= 0) & (ui < width) & (vi >= 0) & (vi < width))
                edge = (width - 1).clamp_min(0)
                at = offset + vi.clamp_min(0).minimum(edge) * width + ui.clamp_min(0).minimum(edge)
            out = [o + c * weight for o, c in zip(out, _bytes(atlas[at]), strict=True)]
    return out


def _colored(t, p):
    m = [p[:, 6 + i, None, None] for i in range(12)]
    r, g, b, a = t
    rgb = [m[4 * i] * r + m[4 * i + 1] * g + m[4 * i + 2] * b + m[4 * i + 3] * a for i in range(3)]
    return [c.clamp_min(0).minimum(a) for c in rgb], a


def _noise(seed, size, device):
    """(B, S, S) in -1..1: `paint.noise` for a batch"""
    start = (seed * 2654435761) & 0xFFFFFFFF
    x = torch.arange(size * size, device=device)[None] + start[:, None]
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    x = x ^ (x >> 16)
    return ((x & 0xFFFF).float() / 32767.5 - 1).view(-1, size, size)


def compose(atlas, ground_atlas, where, params, light, seed, size, layers=MAX_LAYERS):
    """-> (B, 3, size, size) float in 0..1, (B, size, size) uint8 of which object is on top"""
    line = (torch.arange(size, device=atlas.device, dtype=torch.float32) + 0.5) / size
    x, y = line[None, None, :], line[None, :, None]
    out, _ = _colored(_sample(ground_atlas, where[:, 0], params[:, 0], x, y, True), params[:, 0])
    owner = torch.zeros_like(out[0], dtype=torch.uint8)
    for k in range(1, 1 + layers):
        p = params[:, k]
        rgb, a = _colored(_sample(atlas, where[:, k], p, x, y, False), p)
        opacity = p[:, 18, None, None]
        out = [o * (1 - a * opacity) + c * opacity for o, c in zip(out, rgb, strict=True)]
        owner = torch.where(a * opacity > 0.5, p[:, 19, None, None].to(torch.uint8), owner)
    gain, right, down, grain = (light[:, i, None, None] for i in range(4))
    shade = gain * (1 + right * (x - 0.5) + down * (y - 0.5))
    speck = grain * _noise(seed, size, atlas.device)
    return torch.stack([(o * shade + speck).clamp(0, 1) for o in out], 1), owner


class Composer:
    """Holds the atlases on a device and turns arrays of scenes into what the model sees."""

    def __init__(self, opened, device, picture, supersample=2, compiled=False):
        assert ROW == 2 + FIELDS
        self.device, self.picture, self.size = torch.device(device), picture, picture * supersample
        self.atlas = torch.from_numpy(opened.atlas.view(np.int32)).to(self.device)
        self.ground_atlas = torch.from_numpy(opened.ground_atlas.view(np.int32)).to(self.device)
        self.shrink = bicubic_weights(self.size, picture).to(self.device)
        self.compose = torch.compile(compose, dynamic=False) if compiled else compose

    @torch.no_grad()
    def pictures(self, batch):
        """-> pixels (B, 3, picture, picture) in 0..1 as the runtime would see them, owner (B, size, size)"""
        put = {
            k: torch.as_tensor(batch[k]).to(self.device, non_blocking=True)
            for k in ("where", "params", "light", "seed")
        }
        big, owner = self.compose(self.atlas, self.ground_atlas, **put, size=self.size)
        if self.size == self.picture:
            return big, owner
        big = _eight_bits(big)  # as the runtime: 8 bits before, between the passes (width first) and after
        wide = _eight_bits(torch.einsum("bchw,pw->bchp", big, self.shrink))
        return _eight_bits(torch.einsum("oh,bchp->bcop", self.shrink, wide)), owner


def _eight_bits(x):
    return (x * 255 + 0.5).floor().clamp(0, 255) / 255
