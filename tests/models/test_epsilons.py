"""Each norm has the epsilon that the file says of it. Random weights hide 1e-5 beside 1e-6 or 1e-12, so here they are
large, and no two are equal."""

import copy
from pathlib import Path

import numpy as np
from helpers.golden_cases import relative_error
from helpers.tiny import Tiny, make_picture, write_tiny

from kosmos_edge import _core
from models.description import Described


def test_every_epsilon_is_that_of_its_own_norms(of: Described, tmp_path: Path) -> None:
    tiny, picture = of.tiny, make_picture(4, 90, 60)
    keys = [key for key in tiny.metadata if key.endswith("epsilon")]
    assert len(keys) >= 2
    values = [("f32", 0.09 / (1 + i)) for i in range(len(keys))]
    metadata = {**tiny.metadata, **dict(zip(keys, values, strict=True))}

    def engine_of(metadata: dict) -> _core.Engine:
        write_tiny(tmp_path / "x.gguf", tiny=Tiny(tiny.config, tiny.vocabulary, tiny.weights, metadata))
        return _core.Engine(str(tmp_path / "x.gguf"), threads=1)

    def logits_of(engine: _core.Engine) -> np.ndarray:
        image = engine.encode_image(picture.tobytes(), *picture.shape[1::-1])
        segments = [(kind, image if kind == "image" else v) for kind, v in of.prompts["generate"]]
        data, rows, vocab = engine.logits(segments)
        return np.frombuffer(data, np.float32).reshape(rows, vocab)

    engine = engine_of(metadata)
    found, other = logits_of(engine), copy.copy(of)
    other.__dict__["definition"] = of.define(metadata, tiny.weights)
    prompt = other.prompt("generate", engine.tokenizer, [picture])
    assert relative_error(found, other.definition.logits(prompt)) < 1e-4
    mixed = dict(zip(keys, [*values[1:], values[0]], strict=True))
    assert relative_error(logits_of(engine_of({**metadata, **mixed})), found) > 1e-3  # logits depend on them
