"""Reading the settings of a checkpoint: values of config.json, their ranges, what they must be."""

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
