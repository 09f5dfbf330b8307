"""Checkpoints as they are published: `open_checkpoint` recognises one and returns it unread."""

import os
from pathlib import Path

from kosmos_edge.errors import ModelNotFound

from .checkpoint import Checkpoint
from .fairseq import open_fairseq
from .files import Folder, SourceFile
from .hf import open_hf, open_hf_file
from .lavis import is_lavis, open_lavis
from .weights import read_torch, sniff

__all__ = ["Checkpoint", "open_checkpoint"]


def open_checkpoint(source: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The checkpoint at `source`: a folder in Hugging Face's layout or with unilm's kosmos-2.pt or ckpt.pt, or a file
    of weights of either; or a folder with MiniGPT-4's parts.

    tokenizer: a tokenizer.json, a sentencepiece .model, a .tiktoken, or a folder that holds one; None: beside the
    weights. The caller closes the checkpoint. ModelNotFound, ModelCorrupt and InvalidRequest say what is missing or
    wrong.
    """
    if os.path.isdir(source):
        folder = Folder(source)
        if is_lavis(folder):
            return open_lavis(folder, tokenizer)
        if folder.has("config.json"):
            return open_hf(folder, tokenizer)
        names = sorted(path.name for path in source.iterdir() if path.suffix == ".pt")
        if len(names) == 1:
            return open_fairseq(folder.open(names[0]), folder, tokenizer)
        found = f"{len(names)} .pt files" if names else "neither config.json nor a .pt file"
        raise ModelNotFound(
            f"no checkpoint in {source}: it has {found}; "
            "expected a model in Hugging Face's layout, or unilm's kosmos-2.pt or ckpt.pt"
        )
    file = SourceFile(source)
    try:
        return _open_file(file, Folder(source.parent), tokenizer)
    except BaseException:
        file.close()
        raise


def _open_file(file: SourceFile, folder: Folder, tokenizer: Path | None) -> Checkpoint:
    """A weights file: the content tells a fairseq checkpoint (with "model" in it) from a flat dict of tensors."""
    kind = sniff(file)
    if kind != "safetensors":
        torch_file = read_torch(file, kind)
        if isinstance(torch_file.root, dict) and isinstance(torch_file.root.get("model"), dict):
            return open_fairseq(file, folder, tokenizer, torch_file)
    return open_hf_file(file, folder, tokenizer)
