"""What every kind of checkpoint is turned into: tensors under Hugging Face's names, settings, tokenizer files."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from .files import Folder, SourceFile
from .tensor import SourceTensor
from .tokenizer_files import TokenizerFiles


@dataclass
class Checkpoint:
    """An opened checkpoint. The dicts are parsed JSON as published, empty where the file is missing."""

    format: str  # "hf" or "fairseq"
    tensors: dict[str, SourceTensor]  # by Hugging Face's names
    config: dict[str, Any]
    generation: dict[str, Any]
    preprocessor: dict[str, Any]
    card: dict[str, Any]  # kosmos_edge.json: how the converted model is to be called, see card.py
    tokenizer: TokenizerFiles  # unread: the model decides what it opens
    folder: Folder  # where the weights lie
    files: list[SourceFile] = field(default_factory=list)  # everything that was read

    def close(self) -> None:
        for file in self.files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
