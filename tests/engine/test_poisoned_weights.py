"""Weights that are no numbers are a typed error wherever they show, and another model goes on as before."""

import numpy as np
import pytest
from helpers.api_model import png, tiny_model
from helpers.tiny import make_tiny, write_tiny

from kosmos_edge import load
from kosmos_edge.errors import ModelCorrupt


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "tensor", ["output_norm.bias", "blk.0.ffn_norm.weight", "blk.1.attn_q.bias", "mm.latent_query", "v.blk.0.ln1.bias"]
)
@pytest.mark.parametrize("where", ["one", "all"])
def test_poisoned_weights(tmp_path, tensor, value, where):
    before = tiny_model().caption(png(), max_tokens=4).text
    tiny = make_tiny(0)
    poisoned = tiny.weights[tensor].copy()
    poisoned.reshape(-1)[0 if where == "one" else slice(None)] = value
    tiny.weights[tensor] = poisoned
    write_tiny(tmp_path / "poisoned.gguf", tiny=tiny)
    with load(tmp_path / "poisoned.gguf", threads=1) as model:
        for options in ({}, {"ground": True}, {"temperature": 1.0, "seed": 1}, {"num_beams": 2}):
            with pytest.raises(ModelCorrupt, match="not a finite number"):
                model.caption(png(), max_tokens=4, **options)
        with pytest.raises(ModelCorrupt, match="not a finite number"):
            model.score(png(), ["a dog", "b"])
    assert tiny_model().caption(png(), max_tokens=4).text == before
