"""How kosmos-2's published processor reads an answer: transformers' models/kosmos2/processing_kosmos2.py, restated."""

import math
import re

Box = tuple[float, float, float, float]
PAIR = r"<patch_index_\d+><patch_index_\d+>"
DELIMITER = "</delimiter_of_multi_objects/>"
ENTITY = re.compile(rf"(?:(<phrase>([^<]+)</phrase>))?<object>((?:{PAIR}{DELIMITER})*{PAIR})</object>")


def reference_box(ul: int, lr: int, bins: int) -> Box:
    cell = 1.0 / bins
    (top, left), (bottom, right) = divmod(ul, bins), divmod(lr, bins)
    if left == right or top == bottom:
        return left * cell, top * cell, right * cell + cell, bottom * cell + cell
    return tuple(v * cell + cell / 2 for v in (left, top, right, bottom))


def reference_cells(x1: float, y1: float, x2: float, y2: float, bins: int) -> tuple[int, int]:
    upper = math.floor(y1 * bins) * bins + math.floor(x1 * bins)
    return upper, math.ceil(y2 * bins - 1) * bins + math.ceil(x2 * bins - 1)


def reference_parse(text: str, bins: int = 32) -> tuple[str, list[tuple]]:
    """(clean text, [(phrase, start, end, boxes, cells)]); an entity with a cell outside the grid is left out."""
    clean = re.sub("<.*?>", "", text)
    leading = len(clean) - len(clean.lstrip())
    entities = []
    for match in ENTITY.finditer(text):
        numbers = [int(n) for n in re.findall(r"<patch_index_(\d+)>", match[3])]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if max(numbers) >= bins * bins:
            continue
        if match[1]:
            named = [(match[2], match.span(2), pairs)]
        else:
            at = match.start()
            named = [(f"<patch_index_{i}><patch_index_{j}>", (at, at), [(i, j)]) for i, j in pairs]
        for name, (start, end), cells in named:
            start, end = (len(re.sub("<.*?>", "", text[:v])) - leading for v in (start, end))
            start += len(name) - len(name.lstrip())
            end -= len(name) - len(name.rstrip())
            entities.append((name.strip(), start, end, [reference_box(i, j, bins) for i, j in cells], cells))
    return clean.strip(), entities
