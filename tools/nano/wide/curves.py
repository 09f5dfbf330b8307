"""Loss and accuracy curves of a run as a picture, from its log of JSON lines. PIL alone: a plot needs no library.

python -m wide.curves --log RUN/log.jsonl --out curves.png
"""

import argparse
import json

from PIL import Image, ImageDraw

PANEL, EDGE = (420, 240), 42
INKS = ("#1b6ca8", "#c0392b", "#27804a", "#8e44ad", "#b9770e", "#2c3e50", "#16a085", "#d35400")


def panel(title, lines, log_scale=False):
    """lines {label: [(x, y)]} -> picture"""
    import math

    w, h = PANEL
    im = Image.new("RGB", PANEL, "white")
    draw = ImageDraw.Draw(im)
    points = [(x, y) for line in lines.values() for x, y in line]
    if not points:
        return im
    scale = (lambda v: math.log10(max(v, 1e-4))) if log_scale else (lambda v: v)
    xs, ys = [p[0] for p in points], [scale(p[1]) for p in points]
    x0, x1, y0, y1 = min(xs), max(xs) + 1e-9, min(ys), max(ys) + 1e-9

    def at(x, y):
        return (
            EDGE + (x - x0) / (x1 - x0) * (w - EDGE - 120),
            h - 26 - (scale(y) - y0) / (y1 - y0) * (h - 52),
        )

    draw.rectangle((EDGE, 26, w - 120, h - 26), outline="#999999")
    draw.text((EDGE, 8), title, fill="black")
    for v in (y0, (y0 + y1) / 2, y1):
        shown = 10**v if log_scale else v
        draw.text((2, h - 32 - (v - y0) / (y1 - y0) * (h - 52)), f"{shown:.3g}", fill="black")
    draw.text((EDGE, h - 20), f"{x0:.3g}", fill="black")
    draw.text((w - 150, h - 20), f"{x1:.3g} M", fill="black")
    for i, (label, line) in enumerate(lines.items()):
        ink = INKS[i % len(INKS)]
        draw.line([at(x, y) for x, y in line], fill=ink, width=2)
        draw.text((w - 112, 28 + 14 * i), label[:18], fill=ink)
    return im


def draw_curves(log_path, out):
    with open(log_path) as f:
        rows = [json.loads(line) for line in f if line.strip()]
    panels = []
    for stage in ("a", "c"):
        mine = [r for r in rows if r.get("stage") == stage]
        for what, log_scale in (("loss", True), ("valid", False)):
            lines = {}
            for r in mine:
                for k, v in r.get(what, {}).items():
                    lines.setdefault(k, []).append((r["samples"] / 1e6, v))
            panels.append(panel(f"stage {stage}: {what} by million pictures", lines, log_scale))
    sheet = Image.new("RGB", (2 * PANEL[0], 2 * PANEL[1]), "white")
    for i, p in enumerate(panels):
        sheet.paste(p, (i % 2 * PANEL[0], i // 2 * PANEL[1]))
    sheet.save(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--log", required=True)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    draw_curves(a.log, a.out)


if __name__ == "__main__":
    main()
