"""The Captioner in Daft, in threads and in processes."""

from typing import Any

import pytest
from helpers.api_model import grounded_file, png

from kosmos_edge import load
from kosmos_edge.distributed import Captioner, daft_captioner

MODEL = grounded_file()
PICTURES: list[Any] = [png(1, 40, 50), png(2, 50, 40), b"broken", None, png(3, 30, 30)]
pytestmark = pytest.mark.filterwarnings("default")


def texts() -> list[str]:
    answers = load(MODEL, threads=1).batch([PICTURES[i] or b"" for i in range(5)], max_tokens=6)
    return [answer.text for answer in answers]


@pytest.mark.parametrize("settings", [{}, {"use_process": True, "max_concurrency": 2}])
def test_daft(settings: dict[str, Any]) -> None:
    daft = pytest.importorskip("daft", reason="daft is not installed (see .ci/distributed)")
    captions = daft_captioner(Captioner(MODEL, threads=1, max_tokens=6), rows=2, **settings)
    frame = daft.from_pydict({"id": list(range(5)), "bytes": PICTURES})
    found = frame.with_column("answer", captions.answer(frame["bytes"])).sort("id").to_pydict()
    assert found["id"] == list(range(5)) and [row["text"] for row in found["answer"]] == texts()
    assert [bool(row["error"]) for row in found["answer"]] == [False, False, True, True, False]
