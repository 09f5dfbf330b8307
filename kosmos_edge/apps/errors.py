"""The errors of a run that asks a language model elsewhere."""

from __future__ import annotations

from kosmos_edge.errors import KosmosError


class EndpointError(KosmosError):
    """The language model's endpoint cannot be reached, refuses, or replies what is no completion."""


class TimeOver(Exception):
    """The run's time is over; the run ends with what it has."""


__all__ = ["EndpointError", "TimeOver"]
