"""Curves by number of shots as an SVG file: no library is needed for five points."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 320, 46, 150, 16, 36
INKS = ("#1b6ca8", "#c0392b", "#27804a", "#8e44ad", "#b9770e", "#7f8c8d")


def lines_of(rows, classes=2):
    """Pooled rows of incontext.evaluate -> {condition: [(shots, share)]}"""
    return {
        row["condition"]: [(int(k), cell["value"]) for k, cell in row["shots"].items()]
        for row in rows
        if row["classes"] == classes
    }


def svg(rows, classes=2):
    """The share of right answers over the number of shots, one line for each condition"""
    lines = lines_of(rows, classes)
    shots = [k for k, _ in next(iter(lines.values()))]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(k, share):
        return LEFT + shots.index(k) / (len(shots) - 1) * width, TOP + (1 - share) * height

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(shots[0], share)
        out.append(f'<path d="M{x:.1f} {y:.1f}h{width}" stroke="#ddd"/>')
        out.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{share:.2f}</text>')
    for k in shots:
        x, y = at(k, 0)
        out.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{k}</text>')
    x, y = at(shots[-1], 1 / classes)
    out.append(f'<path d="M{LEFT} {y:.1f}h{width}" stroke="#555" stroke-dasharray="4 3"/>')
    out.append(f'<text x="{LEFT + width / 2:.1f}" y="{HEIGHT - 4}" text-anchor="middle">shots (dashed: chance)</text>')
    for n, (condition, points) in enumerate(lines.items()):
        ink = INKS[n % len(INKS)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(k, share) for k, share in points))
        out.append(f'<path d="M{path}" fill="none" stroke="{ink}" stroke-width="2"/>')
        y = TOP + 14 + 18 * n
        out.append(f'<path d="M{WIDTH - RIGHT + 14} {y - 4}h18" stroke="{ink}" stroke-width="2"/>')
        out.append(f'<text x="{WIDTH - RIGHT + 38}" y="{y}">{condition}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
