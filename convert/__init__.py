"""Turns published KOSMOS-2 checkpoints into one GGUF file: `convert`; `verify` checks one; `RECIPES` are the types."""

from .pipeline import Cancellable, ConvertReport, Progress, convert, describe
from .recipe import DEFAULT, RECIPES
from .verify import verify

__all__ = ["DEFAULT", "RECIPES", "Cancellable", "ConvertReport", "Progress", "convert", "describe", "verify"]
