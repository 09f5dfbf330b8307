"""What lmms-eval's entry point loads: the name of the model class, which is imported when it is asked for."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The registration of --model kosmos_edge."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("kosmos_edge", simple_class_path="kosmos_edge.integrations.lmms_eval.KosmosEdge")
