"""Turns published checkpoints into one GGUF file: `convert`; `requantize` stores a file in another type;
`verify` checks one; `RECIPES` are the types."""

from .pipeline import ConvertReport, convert, describe
from .recipe import DEFAULT, RECIPES, find_recipe
from .requantize import requantize, stored_type
from .verify import verify
from .writer import Cancellable, Progress

__all__ = [
    "DEFAULT",
    "RECIPES",
    "Cancellable",
    "ConvertReport",
    "Progress",
    "convert",
    "describe",
    "find_recipe",
    "requantize",
    "stored_type",
    "verify",
]
