"""The Captioner as a class of Daft (0.7 or later)."""

from __future__ import annotations

from typing import Any

from kosmos_edge.distributed.captioner import Captioner
from kosmos_edge.errors import InvalidRequest


def daft_captioner(
    captioner: Captioner,
    *,
    max_concurrency: int | None = None,
    use_process: bool | None = None,
    cpus: float | None = None,
    rows: int = 64,
) -> Any:
    """An object whose answer(df["bytes"]) is an expression: a struct of captioner.columns, one for each row.

    max_concurrency, use_process, cpus: as of daft.cls. rows: at most so many come in one call. Images without a value
    are rows with an error. InvalidRequest without the package daft.
    """
    try:
        import daft
    except ImportError:
        raise InvalidRequest("Daft is not installed: pip install 'kosmos-edge[daft]'") from None
    kinds = {"string": daft.DataType.string(), "int32": daft.DataType.int32()}
    answer = daft.DataType.struct({name: kinds[kind] for name, kind in captioner.columns.items()})
    given = {"max_concurrency": max_concurrency, "use_process": use_process, "cpus": cpus}

    class DaftCaptioner:
        def __init__(self, captioner: Captioner) -> None:
            self._captioner = captioner

        def answer(self, images: Any) -> Any:
            return self._captioner.rows(images.to_pylist())

    batched = daft.method.batch(return_dtype=answer, batch_size=rows)
    DaftCaptioner.answer = batched(DaftCaptioner.answer)  # type: ignore[method-assign]
    made = daft.cls(DaftCaptioner, **{name: value for name, value in given.items() if value is not None})
    return made(captioner)
