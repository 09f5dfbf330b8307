"""Rows of parts, made in a worker."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from kosmos_edge.distributed.captioner import Captioner
from kosmos_edge.distributed.frames import DETAILS, details_json
from kosmos_edge.distributed.items import Columns, Item, open_items
from kosmos_edge.folders.sidecars import caption_of
from kosmos_edge.folders.tables import answer_row, plain
from kosmos_edge.folders.wording import Wording
from kosmos_edge.results import Result


class RowMaker:
    """Opens images and answers about them: rows as part_schema has them. Small and picklable."""

    def __init__(self, captioner: Captioner, columns: Columns, wording: Wording) -> None:
        self.captioner, self.columns, self.wording = captioner, columns, wording

    def about(self) -> dict[str, Any]:
        """Opens the model. -> its name, notice and the size of its file, this process and machine."""
        model = self.captioner.opened()
        size = os.path.getsize(model.path)
        facts = {"name": model.name, "notice": model.notice, "path": str(model.path), "size": size}
        return facts | {"pid": os.getpid(), "machine": platform.node()}

    def answer(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """A row for each item, in order; also for one with an error."""
        opened = list(open_items(items, self.columns))
        answers = self.captioner.answers(image for _, image in opened)
        return [self._row(item, key, answer) for item, (key, _), answer in zip(items, opened, answers, strict=True)]

    def failed_row(self, item: Item, error: Exception) -> dict[str, Any]:
        """The row of an image that could not be computed; its key is that of the item, as nothing was read."""
        answer = Result("", model="", device="", source=item.name, finish_reason="error", error=error)  # type: ignore[arg-type]
        return self._row(item, item.key, answer)

    def _row(self, item: Item, key: str | None, answer: Any) -> dict[str, Any]:
        caption = caption_of(answer, self.wording) if answer.error is None else ""
        row = answer_row(answer, item.name, caption)
        more = {"key": None if key is None else plain(key), "copy": item.copy}
        row |= more | {"finish_reason": getattr(answer, "finish_reason", "stop" if answer.error is None else "error")}
        task = self.captioner.task
        return row | {DETAILS[task]: details_json(answer, task)} if task in DETAILS else row
