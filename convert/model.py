"""What the converter must know of a model. Each module of `models` is one such object."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from .gguf import Entry
from .sources.checkpoint import Checkpoint

# (name in the checkpoint, name in the GGUF file, shape outermost first), in the order of the file
Table = Iterable[tuple[str, str, tuple[int, ...]]]


class Model(Protocol):
    """A model's module. Everything here raises ModelCorrupt for what it cannot accept. FOLDS = True where scales may be
    folded into the norms of its blocks (folding.py)."""

    @property
    def NAME(self) -> str: ...

    @property
    def ARCHITECTURE(self) -> str: ...  # general.architecture of its GGUF files

    @property
    def IGNORED(self) -> tuple[str, ...]: ...  # ends of the names of tensors that carry nothing

    @property
    def TIED(self) -> Mapping[str, str]: ...  # a tensor that the table may lack -> the one that it must equal then

    def recognises(self, settings: dict[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is one of this model."""

    def read_config(self, settings: dict[str, Any]) -> Any:
        """The sizes in a config.json; its `layers` is the decoder's number of blocks."""

    def tensor_table(self, c: Any) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """See Table."""

    def read_vocabulary(self, checkpoint: Checkpoint) -> Any:
        """Opens and reads the tokenizer's files."""

    def fit(self, checkpoint: Checkpoint, config: Any, vocabulary: Any) -> Any:
        """Brings the checkpoint's tensors under the names and shapes of the table, where it is published in several
        layouts or in parts; -> the config of what it is then."""

    def metadata(
        self, checkpoint: Checkpoint, config: Any, vocabulary: Any, file_type: int, sha256: list[str], converter: str
    ) -> list[Entry]:
        """Everything but the tensors' checksums: (key, GGUF type, value). sha256: "file name:hex" per source file."""

    def check(
        self, where: str, settings: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], int, int]]
    ) -> None:
        """Whether a GGUF file's tensors are those of its settings (_core.GgufFile.tensors, _core.model_info)."""
