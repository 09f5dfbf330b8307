"""Checkpoints in Hugging Face's layout: config.json beside model.safetensors (or shards, or pytorch_model.bin)."""

from contextlib import closing
from pathlib import Path
from typing import Any

from kosmos_edge.errors import ModelNotFound

from .checkpoint import Checkpoint
from .files import Folder, SourceFile, read_json
from .tensor import SourceTensor
from .tokenizer_files import TokenizerFiles
from .weights import read_sharded, read_state

# In order of preference; an index names the files that hold the tensors.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "checkpoint.pt",
    "prefix.safetensors",
)
# The folder of a language model that is a part of the checkpoint; its config.json becomes this key of the outer one.
LANGUAGE = "lang_encoder"


def open_hf(folder: Folder, tokenizer: Path | None) -> Checkpoint:
    """The checkpoint in `folder`."""
    files: list[SourceFile] = []
    try:
        for name in WEIGHTS:
            if folder.has(name):
                file = folder.open(name)
                files.append(file)
                tensors = read_sharded(folder, file, files) if name.endswith(".index.json") else read_state(file)
                return _read(folder, tensors, files, tokenizer)
        raise ModelNotFound(f"no weights in {folder.path}: expected one of {', '.join(WEIGHTS)}")
    except BaseException:
        for file in files:
            file.close()
        raise


def open_hf_file(weights: SourceFile, folder: Folder, tokenizer: Path | None) -> Checkpoint:
    """The checkpoint whose weights are that file; its other files lie in `folder`."""
    files = [weights]
    try:
        return _read(folder, read_state(weights), files, tokenizer)
    except BaseException:
        for file in files:
            file.close()
        raise


def _read(
    folder: Folder, tensors: dict[str, SourceTensor], files: list[SourceFile], tokenizer: Path | None
) -> Checkpoint:
    def optional(name: str) -> dict[str, Any]:
        if not folder.has(name):
            return {}
        files.append(folder.open(name))
        return read_json(files[-1])

    if not folder.has("config.json"):
        raise ModelNotFound(f"no config.json in {folder.path}: the weights alone do not say what model they are of")
    preprocessor = optional("preprocessor_config.json")
    if not preprocessor:  # transformers 5 may save it as a part of this one
        part = optional("processor_config.json").get("image_processor", {})
        preprocessor = part if isinstance(part, dict) else {}
    config, inner = optional("config.json"), folder.inner(LANGUAGE)
    if inner is not None and inner.has("config.json"):
        with closing(inner.open("config.json")) as file:  # it is a source file of the part, not of this one
            config.setdefault(LANGUAGE, read_json(file))
    return Checkpoint(
        format="hf",
        tensors=tensors,
        config=config,
        generation=optional("generation_config.json"),
        preprocessor=preprocessor,
        card=optional("kosmos_edge.json"),
        tokenizer=TokenizerFiles(folder, tokenizer, files),
        folder=folder,
        files=files,
    )
