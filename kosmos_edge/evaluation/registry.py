"""The tasks: a row each."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.task import PromptTask, Task

# name -> module of this package, or module:object
TASKS = {
    "ocr": "ocr",
    "markdown": "markdown",
    "coco-caption": "tasks.captions:COCO",
    "flickr30k-caption": "tasks.captions:FLICKR30K",
    "vqav2": "tasks.vqa:VQAV2",
    "vizwiz": "tasks.vqa:VIZWIZ",
    "flickr30k-entities": "tasks.grounding:ENTITIES",
    "refcoco": "tasks.referring:REFCOCO",
    "refcoco+": "tasks.referring:REFCOCO_PLUS",
    "refcocog": "tasks.referring:REFCOCOG",
    "refcocog-reg": "tasks.referring:REFCOCOG_REG",
    "hatefulmemes": "tasks.choosing:HATEFUL_MEMES",
    "rendered-sst2": "tasks.choosing:RENDERED_SST2",
    "rendered-sst2-cot": "tasks.choosing:RENDERED_SST2_COT",
    "imagenet": "tasks.choosing:IMAGENET",
    "imagenet-free": "tasks.choosing:IMAGENET_FREE",
    "iq50": "tasks.reasoning:IQ50",
    "websrc": "tasks.reasoning:WEBSRC",
    "websrc-picture": "tasks.reasoning:WEBSRC_PICTURE",
    "bird-descriptions": "tasks.reasoning:BIRDS",
    "bird-names": "tasks.reasoning:BIRDS_NAMES",
    "relative-size": "tasks.commonsense:RELATIVE_SIZE",
    "memory-color": "tasks.commonsense:MEMORY_COLOR",
    "color-terms": "tasks.commonsense:COLOR_TERMS",
    "storycloze": "tasks.language:STORYCLOZE",
    "hellaswag": "tasks.language:HELLASWAG",
    "winograd": "tasks.language:WINOGRAD",
    "winogrande": "tasks.language:WINOGRANDE",
    "piqa": "tasks.language:PIQA",
    "boolq": "tasks.language:BOOLQ",
    "cb": "tasks.language:CB",
    "copa": "tasks.language:COPA",
    "seed-bench": "tasks.choosing:SEED_BENCH",
    "pope": "tasks.hallucination:POPE",
    "chair": "tasks.hallucination:CHAIR",
    "owleval": "tasks.owleval:OWLEVAL",
}


def find_task(name: str) -> Task | PromptTask:
    """The task of that name; InvalidRequest names the known ones."""
    if name not in TASKS:
        raise InvalidRequest(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    module, _, attribute = TASKS[name].partition(":")
    found = import_module(f"kosmos_edge.evaluation.{module}")
    return cast(PromptTask, getattr(found, attribute)) if attribute else cast(Task, found)
