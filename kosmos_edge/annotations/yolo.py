"""YOLO: a text file for each picture, and data.yaml with the names."""

from __future__ import annotations

from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture


def yolo(picture: Picture, labels: Labels) -> str:
    """A line "class cx cy width height" for each region: centre and size in fractions of the picture."""
    lines = []
    for region in picture.regions:
        number = labels.number(region.phrase)
        if number is not None:
            x, y, width, height = picture.fractions(region)
            lines.append(f"{number} {x + width / 2:.6f} {y + height / 2:.6f} {width:.6f} {height:.6f}\n")
    return "".join(lines)


def yolo_data(labels: Labels, *, train: str = "images", val: str = "images") -> str:
    """data.yaml. train, val: the folders of the pictures, seen from the file."""
    quoted = [name.replace("\\", "\\\\").replace('"', '\\"') for name in labels.names]
    names = "".join(f'  {number}: "{name}"\n' for number, name in enumerate(quoted)) or "  {}\n"
    return f"train: {train}\nval: {val}\nnc: {len(quoted)}\nnames:\n{names}"
