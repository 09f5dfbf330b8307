"""Reading the settings of a checkpoint: values of config.json, their ranges, what they must be."""

from collections.abc import Iterable
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .sources.files import brief


class Section:
    """An object of config.json. name: its path in there, "text_config". Defaults are those of transformers' classes,
    which old files rely on; ModelCorrupt says what a key must be."""

    def __init__(self, settings: Any, name: str) -> None:
        if not isinstance(settings, dict):
            raise ModelCorrupt(f"config.json: {name} is {brief(settings)}, expected an object")
        self.settings, self.name = settings, f"{name}." if name else ""

    def get(self, key: str, default: Any) -> Any:
        value = self.settings.get(key)
        return default if value is None else value

    def bad(self, key: str, expected: str) -> ModelCorrupt:
        return ModelCorrupt(f"config.json: {self.name}{key} is {brief(self.settings.get(key))}, expected {expected}")

    def whole(self, key: str, default: int, largest: int = 1 << 20) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 0 < value <= largest:
            raise self.bad(key, f"1..{largest}")
        return value

    def real(self, key: str, default: float, low: float, high: float) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not low < value < high:
            raise self.bad(key, f"a number in {low:g}..{high:g}")
        return float(value)

    def only(self, key: str, *allowed: Any) -> Any:
        """The value, the first of `allowed` where it is absent."""
        value = self.get(key, allowed[0])
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise self.bad(key, " or ".join(map(repr, allowed)))
        return value


def read_sizes(
    settings: dict[str, Any],
    defaults: type,
    fixed: Iterable[tuple[str, str, Any]],
    sizes: Iterable[tuple[str, str, str]],
) -> dict[str, Any]:
    """The numbers of a config.json of KOSMOS-2's kind by field, eps and vision_eps among them.

    fixed: (section, key, the only value that is supported). sizes: (field, section, key) of whole numbers in 1..2^20.
    What the file leaves out is taken from `defaults`. ModelCorrupt names the key.
    """
    sections = {"": settings, **{name: settings.get(name) or {} for name in ("text_config", "vision_config")}}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ModelCorrupt(f"config.json: {name} is {brief(section)}, expected an object")
    for section, key, expected in fixed:
        value = sections[section].get(key, expected)
        if type(value) is not type(expected) or value != expected:
            raise ModelCorrupt(f"config.json: {section}.{key} is {brief(value)}; only {expected!r} is supported")
    values: dict[str, Any] = {}
    for field, section, key in sizes:
        value = sections[section].get(key, getattr(defaults, field))
        if type(value) is not int or not 0 < value <= 1 << 20:
            raise ModelCorrupt(f"config.json: {section}.{key} is {brief(value)}, expected 1..{1 << 20}")
        values[field] = value
    for field, section in (("eps", "text_config"), ("vision_eps", "vision_config")):
        value = sections[section].get("layer_norm_eps", getattr(defaults, field))
        if type(value) not in (int, float) or not 0 < value < 1:
            raise ModelCorrupt(f"config.json: {section}.layer_norm_eps is {brief(value)}, expected a number in 0..1")
        values[field] = float(value)
    return values


def read_rope(text: Section, usual: float = 10000.0) -> tuple[float, float]:
    """Base and scale of the rotary positions: `rope_parameters` of transformers 5, or what came before it.

    usual: the base where there is none.
    """
    new = Section(text.get("rope_parameters", {}), f"{text.name}rope_parameters")
    scaling = Section(text.get("rope_scaling", new.settings), f"{text.name}rope_scaling")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear"):
        raise scaling.bad("rope_type" if "rope_type" in scaling.settings else "type", "'default' or 'linear'")
    for section in (text, new):
        if section.get("partial_rotary_factor", 1) != 1:
            raise section.bad("partial_rotary_factor", "1")
    base = (new if new.settings.get("rope_theta") is not None else text).real("rope_theta", usual, 1, 1e9)
    return base, scaling.real("factor", 1.0, 0.999, 1e4) if kind == "linear" else 1.0
