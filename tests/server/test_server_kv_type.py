"""kosmos-edge serve --kv-type: the served model, and the one that is loaded again."""

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from types import SimpleNamespace

from helpers.api_model import tiny_file

from kosmos_edge.cli.common import Messages
from kosmos_edge.cli.serve import _loader


@pytest.mark.parametrize(("kv_type", "kept"), [("f16", "f32"), ("q8_0", "q8_0")])
def test_the_first_model_and_the_next_keep_keys_and_values_so(kv_type: str, kept: str) -> None:
    values = {
        "model": str(tiny_file()), "mmproj": None, "device": "cpu", "threads": 1, "copy": False, "offline": True,
        "isolation": "none", "kv_type": kv_type, "shared_weights": False,
    }  # fmt: skip
    load, _ = _loader(values, Messages(True, 0))
    assert SimpleNamespace(first=load().kv_type, again=load().kv_type) == SimpleNamespace(first=kept, again=kept)
