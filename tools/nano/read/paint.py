"""A page as pixels: ink on paper, turned, blurred, photographed; and the way from final pixels back to the page."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import fonts

PATCH = 16
MAX_PATCHES = 128


def grid(width, height, max_patches=MAX_PATCHES):
    """(rows, columns) of KOSMOS-2.5's rule for a picture of that size"""
    scale = math.sqrt(max_patches * (PATCH / height) * (PATCH / width))
    rows = max(min(math.floor(scale * height / PATCH), max_patches), 1)
    columns = max(min(math.floor(scale * width / PATCH), max_patches), 1)
    return rows, columns


@dataclass
class Look:
    """How a page was taken: angle in degrees; noise 0..1 says how much of everything else"""

    angle: float
    noise: float


def look(rng, level):
    """level 0: clean and straight; 1: anything this world has"""
    if level == 0 or rng.random() > level + 0.1:
        return Look(0.0, 0.0)
    angle = float(rng.uniform(-3, 3)) * level if rng.random() < 0.5 else 0.0
    return Look(angle, float(rng.random() ** 0.7) * level if rng.random() < 0.75 else 0.0)


def paint(rng, page, how):
    """The page as an RGB picture of page.width x page.height"""
    mask = Image.new("L", (page.width, page.height))
    draw = ImageDraw.Draw(mask)
    for kind, points, share in page.shapes:
        fill = int(255 * share)
        if kind == "scribble":
            draw.line(points, fill=fill, width=max(1, page.height // 40), joint="curve")
        else:
            getattr(draw, kind)(points, fill=fill)
    for s in page.segments:
        draw.text((s.x, s.base), s.text, font=fonts.load(s.font, s.size), fill=255, anchor=fonts.BASELINE)
    for x0, y0, x1, y1, thick in page.rules:
        draw.line((x0, y0, x1, y1), fill=255, width=thick)
    if how.angle:
        mask = mask.rotate(how.angle, Image.BILINEAR)
    n = how.noise
    sizes = [s.size for s in page.segments] or [24]
    if n and rng.random() < 0.5:
        mask = mask.filter(ImageFilter.GaussianBlur(n * rng.random() * 0.045 * min(sizes)))
    ink = np.asarray(mask, np.float32) * (1 / 255)
    back, front = _colours(rng, n)
    if n == 0 and back.std() == 0 and front.std() == 0:
        value = back[0] + (front[0] - back[0]) * ink
        return Image.fromarray(value.astype(np.uint8)).convert("RGB")
    if n:
        paper = _paper(rng, page, n)
        value = (back + (front - back) * ink[..., None]) * paper[..., None]
        if rng.random() < 0.6:
            value += rng.standard_normal(ink.shape, np.float32)[..., None] * (n * 22 * rng.random())
    else:
        value = back + (front - back) * ink[..., None]
    picture = Image.fromarray(np.clip(value, 0, 255).astype(np.uint8))
    if n and rng.random() < 0.35:
        picture = _jpeg(picture, int(90 - 60 * n * rng.random()))
    return picture


def _colours(rng, noise):
    """(paper, ink), RGB 0..255: dark on light mostly, light on dark in a sixth, grey in half of the rest"""
    contrast = rng.uniform(0.45 if noise else 0.6, 1.0) if rng.random() < 0.6 else 1.0
    light = np.full(3, rng.uniform(200, 255) if rng.random() < 0.5 else 255.0, np.float32)
    dark = light * (1 - contrast)
    if rng.random() < 0.35:
        light = np.minimum(light, rng.uniform(170, 255, 3)).astype(np.float32)
        dark = (dark + rng.uniform(0, 90, 3)).astype(np.float32) * min(1.0, 110 / (dark.mean() + 45))
    return (dark, light) if rng.random() < 0.16 else (light, dark)


def _paper(rng, page, noise):
    """Brightness of each pixel: light from one side, clouds, the sheet's edge on something darker"""
    h, w = page.height, page.width
    paper = np.ones((h, w), np.float32)
    if rng.random() < 0.6:
        k = int(rng.integers(2, 6))
        clouds = Image.fromarray(rng.random((k, k), np.float32)).resize((w, h), Image.BICUBIC)
        paper -= noise * 0.45 * rng.random() * np.clip(np.asarray(clouds), 0, 1)
    if rng.random() < 0.4:
        k = int(rng.integers(2, 5))
        grain = Image.fromarray(rng.random((h // k + 1, w // k + 1), np.float32)).resize((w, h), Image.BILINEAR)
        paper -= noise * 0.25 * rng.random() * np.asarray(grain)
    if rng.random() < 0.2:
        edge = int(min(h, w) * 0.06 * rng.random()) + 1
        shade = rng.uniform(0.2, 0.8)
        side = rng.integers(4)
        part = (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:])[side]
        paper[part] *= shade
    return paper


def _jpeg(picture, quality):
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


# ------------------------------------------------------------------------------------------ geometry
def turned(x, y, page, angle):
    """Where points of the straight page are after `paint` turned it"""
    a, cx, cy = math.radians(angle), page.width / 2, page.height / 2
    dx, dy = np.asarray(x) - cx, np.asarray(y) - cy
    return cx + math.cos(a) * dx + math.sin(a) * dy, cy - math.sin(a) * dx + math.cos(a) * dy


def boxes(page, how):
    """Pixel boxes (segments, 4) x0 y0 x1 y1, upright around the turned text: as high as its ink, as wide as its type"""
    out = np.zeros((len(page.segments), 4), np.float32)
    for i, s in enumerate(page.segments):
        x0, y0, x1, y1 = fonts.load(s.font, s.size).getbbox(s.text, anchor=fonts.BASELINE)
        x = np.array([x0, x1, x1, x0]) + s.x
        y = np.array([y0, y0, y1, y1]) + s.base
        x, y = turned(x, y, page, how.angle)
        out[i] = x.min(), y.min(), x.max(), y.max()
    return np.clip(out, 0, [page.width, page.height, page.width, page.height])
