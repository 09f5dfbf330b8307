"""The models that can be converted: a module each, and a row here."""

from typing import Any

from kosmos_edge.errors import ModelCorrupt

from ..model import Model
from ..sources.files import brief
from . import (
    blip2,
    blip2_t5,
    clip_towers,
    idefics,
    instructblip,
    instructblip_t5,
    kosmos1,
    kosmos2,
    kosmos2_5,
    linear_prefix,
    llava,
    llava_qwen2,
    minigpt4,
    minigpt_v2,
    mplug_owl,
    openflamingo,
    openflamingo_mpt,
)

# config.json's model_type -> the module. The first whose `recognises` says yes converts a checkpoint.
MODELS: dict[str, Model] = {
    "kosmos-1": kosmos1,  # before KOSMOS-2, whose model_type it may have
    "kosmos-2": kosmos2,
    "kosmos-2.5": kosmos2_5,
    "llava_qwen2": llava_qwen2,  # before LLaVA, whose model_type it has
    "llava": llava,
    "blip2_t5": blip2_t5,  # before BLIP-2 with OPT, whose model_type it has
    "blip-2": blip2,
    "instructblip_t5": instructblip_t5,  # before InstructBLIP with Vicuna, likewise
    "instructblip": instructblip,
    "minigpt4": minigpt4,
    "minigpt_v2": minigpt_v2,
    "idefics": idefics,
    "openflamingo_mpt": openflamingo_mpt,  # before the other, whose model_type it has
    "openflamingo": openflamingo,
    "mplug-owl": mplug_owl,
    "linear_prefix": linear_prefix,
    "clip": clip_towers,
}


def find_model(settings: dict[str, Any]) -> Model:
    """The model that a config.json is of. ModelCorrupt names its model_type and those that are known."""
    for model in MODELS.values():
        if model.recognises(settings):
            return model
    kind = settings.get("model_type")
    raise ModelCorrupt(f"config.json: model_type is {brief(kind)}; expected one of {', '.join(MODELS)}")


def model_of(architecture: str) -> Model:
    """The model of a GGUF file with this general.architecture; ModelCorrupt where there is none."""
    for model in MODELS.values():
        if architecture == model.ARCHITECTURE:
            return model
    known = ", ".join(model.ARCHITECTURE for model in MODELS.values())
    raise ModelCorrupt(f"general.architecture is {brief(architecture)}; expected one of {known}")
